//! Who the workers are and what they may use, as the user wrote it. Pure: no name is looked up here.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::values::{ValueError, duration};

/// What differs from our own identity and limits; nothing of it is set by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// The user.
    pub user: Option<Account>,
    /// The group; that of the user without it.
    pub group: Option<Account>,
    /// The supplementary groups; those of the user without it.
    pub groups: Option<Groups>,
    /// The mask of new files' permissions, see umask(2).
    pub umask: Option<Umask>,
    /// The niceness, see setpriority(2).
    pub nice: Option<i8>,
    /// Whether execve(2) may give no privileges, see `PR_SET_NO_NEW_PRIVS` in prctl(2).
    pub no_new_privileges: bool,
    /// Limits, the last one of a kind holds.
    pub limits: Vec<Limit>,
}

/// A user or a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Account {
    /// By name, to be looked up.
    Name(String),
    /// By number.
    Number(u32),
}

impl FromStr for Account {
    type Err = ValueError;

    /// Only digits are a number, as no name of a user may be only digits.
    fn from_str(text: &str) -> Result<Account, ValueError> {
        if text.is_empty() {
            return Err(ValueError("the name is empty; write a name or a number".to_owned()));
        }
        if let Some((user, group)) = text.split_once(':') {
            return Err(ValueError(format!(
                "`{text}` has a `:`; write `--user {user} --group {group}`"
            )));
        }
        if !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return if text.contains(|char: char| char.is_control()) {
                Err(ValueError("there are control characters in the name".to_owned()))
            } else {
                Ok(Account::Name(text.to_owned()))
            };
        }
        // The highest number stands for "no change" in setresuid(2).
        match text.parse() {
            Ok(number) if number < u32::MAX => Ok(Account::Number(number)),
            Ok(_) | Err(_) => Err(ValueError(format!("`{text}` is above 4294967294"))),
        }
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Account::Name(name) => f.write_str(name),
            Account::Number(number) => number.fmt(f),
        }
    }
}

/// Supplementary groups, maybe none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Groups(pub Vec<Account>);

impl FromStr for Groups {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Groups, ValueError> {
        if text.is_empty() {
            return Ok(Groups(Vec::new()));
        }
        let groups = text.split(',').map(str::parse).collect::<Result<Vec<_>, _>>()?;
        // The kernel's bound, NGROUPS_MAX.
        if groups.len() > 65_536 {
            return Err(ValueError("there are more than 65536 groups".to_owned()));
        }
        Ok(Groups(groups))
    }
}

/// A mask of permissions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Umask(pub u32);

impl FromStr for Umask {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Umask, ValueError> {
        let is_octal = !text.is_empty() && text.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
        match u32::from_str_radix(text, 8) {
            Ok(mask @ 0..=0o777) if is_octal => Ok(Umask(mask)),
            Ok(_) | Err(_) => Err(ValueError(format!(
                "`{text}` is no mask; write an octal number, such as `027`"
            ))),
        }
    }
}

/// What the kernel limits, see setrlimit(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    /// Address space, in bytes.
    As,
    /// The size of a core file, in bytes.
    Core,
    /// Processor time, in seconds.
    Cpu,
    /// Data segments, in bytes.
    Data,
    /// The size of a file that is written, in bytes.
    Fsize,
    /// Locks and leases on files; kernels since 2.4.25 do not look at it.
    Locks,
    /// Locked memory, in bytes.
    Memlock,
    /// POSIX message queues, in bytes.
    Msgqueue,
    /// How far the niceness can be lowered: to 20 less this.
    Nice,
    /// Open files.
    Nofile,
    /// Processes and threads of the user.
    Nproc,
    /// Resident memory, in bytes; kernels since 2.4.30 do not look at it.
    Rss,
    /// The highest realtime priority.
    Rtprio,
    /// Processor time without a blocking call under realtime scheduling, in microseconds.
    Rttime,
    /// Queued signals of the user.
    Sigpending,
    /// The main thread's stack, in bytes.
    Stack,
}

/// How the value of a limit is written.
enum Kind {
    Bytes,
    Count,
    Seconds,
    Microseconds,
}

impl Resource {
    /// All of them, in the order of their names.
    pub const ALL: [Resource; 16] = [
        Resource::As,
        Resource::Core,
        Resource::Cpu,
        Resource::Data,
        Resource::Fsize,
        Resource::Locks,
        Resource::Memlock,
        Resource::Msgqueue,
        Resource::Nice,
        Resource::Nofile,
        Resource::Nproc,
        Resource::Rss,
        Resource::Rtprio,
        Resource::Rttime,
        Resource::Sigpending,
        Resource::Stack,
    ];

    /// As limits.conf(5) has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Resource::As => "as",
            Resource::Core => "core",
            Resource::Cpu => "cpu",
            Resource::Data => "data",
            Resource::Fsize => "fsize",
            Resource::Locks => "locks",
            Resource::Memlock => "memlock",
            Resource::Msgqueue => "msgqueue",
            Resource::Nice => "nice",
            Resource::Nofile => "nofile",
            Resource::Nproc => "nproc",
            Resource::Rss => "rss",
            Resource::Rtprio => "rtprio",
            Resource::Rttime => "rttime",
            Resource::Sigpending => "sigpending",
            Resource::Stack => "stack",
        }
    }

    fn kind(self) -> Kind {
        match self {
            Resource::As
            | Resource::Core
            | Resource::Data
            | Resource::Fsize
            | Resource::Memlock
            | Resource::Msgqueue
            | Resource::Rss
            | Resource::Stack => Kind::Bytes,
            Resource::Locks
            | Resource::Nice
            | Resource::Nofile
            | Resource::Nproc
            | Resource::Rtprio
            | Resource::Sigpending => Kind::Count,
            Resource::Cpu => Kind::Seconds,
            Resource::Rttime => Kind::Microseconds,
        }
    }
}

/// A limit on a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// On what.
    pub resource: Resource,
    /// What holds; the process may raise it to the hard one. In the resource's own unit.
    pub soft: u64,
    /// What only a privileged process may raise.
    pub hard: u64,
}

/// No limit, `RLIM_INFINITY` in setrlimit(2).
pub const UNLIMITED: u64 = u64::MAX;

impl FromStr for Limit {
    type Err = ValueError;

    /// `NAME=VALUE` for both, or `NAME=SOFT:HARD`.
    fn from_str(text: &str) -> Result<Limit, ValueError> {
        let (name, value) = text.split_once('=').ok_or_else(|| {
            ValueError(format!(
                "`{text}` has no `=`; write e.g. `nofile=65536` or `core=unlimited`"
            ))
        })?;
        let resource = Resource::ALL.into_iter().find(|resource| resource.name() == name);
        let resource = resource.ok_or_else(|| {
            let names = Resource::ALL.map(Resource::name).join(", ");
            ValueError(format!("`{name}` is nothing that can be limited; there are {names}"))
        })?;
        let (soft, hard) = value.split_once(':').unwrap_or((value, value));
        let (soft, hard) = (amount(resource, soft)?, amount(resource, hard)?);
        if soft > hard {
            return Err(ValueError(format!(
                "the soft limit of `{text}` is above the hard one; write `{name}=SOFT:HARD`"
            )));
        }
        Ok(Limit { resource, soft, hard })
    }
}

impl fmt::Display for Limit {
    /// As it can be written, in the resource's own unit.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let amount = |amount: u64| match (amount, self.resource.kind()) {
            (UNLIMITED, _) => "unlimited".to_owned(),
            (amount, Kind::Bytes | Kind::Count) => amount.to_string(),
            (amount, Kind::Seconds) => format!("{amount}s"),
            (amount, Kind::Microseconds) => format!("{}ms", amount / 1000),
        };
        write!(f, "{}={}", self.resource.name(), amount(self.soft))?;
        if self.soft == self.hard { Ok(()) } else { write!(f, ":{}", amount(self.hard)) }
    }
}

fn amount(resource: Resource, text: &str) -> Result<u64, ValueError> {
    let name = resource.name();
    if matches!(text, "unlimited" | "infinity") {
        return Ok(UNLIMITED);
    }
    let wrong = |example: &str| {
        ValueError(format!("`{text}` is no limit for `{name}`; write {example} or `unlimited`"))
    };
    match resource.kind() {
        Kind::Count => text.parse().map_err(|_| wrong("a number")),
        Kind::Bytes => bytes(text).ok_or_else(|| wrong("bytes, such as `1048576`, `64M`")),
        Kind::Seconds => match duration(text) {
            Ok(time) if time >= Duration::from_secs(1) && time.subsec_nanos() == 0 => {
                Ok(time.as_secs())
            }
            Ok(_) | Err(_) => Err(wrong("whole seconds, such as `30s`, `10m`")),
        },
        Kind::Microseconds => match duration(text) {
            Ok(time) if time >= Duration::from_millis(1) => {
                Ok(u64::try_from(time.as_micros()).unwrap_or(UNLIMITED))
            }
            Ok(_) | Err(_) => Err(wrong("a time, such as `200ms`")),
        },
    }
}

/// A number of bytes, with a unit of 1024 if need be.
fn bytes(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|char: char| char.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" => 1,
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        "T" => 1_u64 << 40,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

/// Reads a niceness: from -20, which is favoured most, to 19.
///
/// # Errors
///
/// For anything else.
pub fn nice(text: &str) -> Result<i8, ValueError> {
    match text.parse() {
        Ok(nice @ -20..=19) => Ok(nice),
        Ok(_) | Err(_) => {
            Err(ValueError(format!("`{text}` is no niceness; write a number from -20 to 19")))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn digits_are_a_number_and_all_else_a_name() {
        assert_eq!("www-data".parse(), Ok(Account::Name("www-data".to_owned())));
        assert_eq!("0".parse(), Ok(Account::Number(0)));
        assert_eq!("1a".parse(), Ok(Account::Name("1a".to_owned())));
        for (text, words) in [
            ("", "is empty"),
            ("4294967295", "above 4294967294"),
            ("99999999999999999999", "above"),
            ("a:b", "write `--user a --group b`"),
            ("a\n", "control characters"),
        ] {
            let error = text.parse::<Account>().expect_err("refused").to_string();
            assert!(error.contains(words), "{text:?}: {error}");
        }
        assert_eq!("".parse(), Ok(Groups(Vec::new())));
        let both = Groups(vec![Account::Name("a".to_owned()), Account::Number(5)]);
        assert_eq!("a,5".parse(), Ok(both));
        assert!("a,".parse::<Groups>().is_err());
    }

    #[test]
    fn masks_are_octal_and_niceness_has_its_range() {
        assert_eq!("027".parse(), Ok(Umask(0o27)));
        assert_eq!("0".parse(), Ok(Umask(0)));
        for text in ["", "8", "1000", "+7", "u=rwx", "0o27"] {
            assert!(text.parse::<Umask>().is_err(), "{text}");
        }
        assert_eq!((nice("-20"), nice("19")), (Ok(-20), Ok(19)));
        for text in ["", "20", "-21", "300", "low"] {
            assert!(nice(text).is_err(), "{text}");
        }
    }

    #[test]
    fn limits_have_the_units_of_what_they_limit() {
        for (text, soft, hard) in [
            ("nofile=65536", 65536, 65536),
            ("nofile=1024:65536", 1024, 65536),
            ("core=unlimited", UNLIMITED, UNLIMITED),
            ("core=0:infinity", 0, UNLIMITED),
            ("memlock=64M", 64 << 20, 64 << 20),
            ("as=1T", 1 << 40, 1 << 40),
            ("cpu=10m", 600, 600),
            ("rttime=200ms", 200_000, 200_000),
        ] {
            let limit: Limit = text.parse().expect(text);
            assert_eq!((limit.soft, limit.hard), (soft, hard), "{text}");
            assert_eq!(limit.to_string().parse(), Ok(limit), "{limit}");
        }
        for (text, words) in [
            ("nofile", "has no `=`"),
            ("files=1", "`files` is nothing that can be limited; there are as, core, cpu"),
            ("nofile=1K", "`1K` is no limit for `nofile`; write a number"),
            ("nofile=2:1", "above the hard one"),
            ("nofile=unlimited:1", "above the hard one"),
            ("core=1Q", "`64M` or `unlimited`"),
            ("as=18446744073709551615K", "no limit"),
            ("cpu=30", "whole seconds"),
            ("cpu=1500ms", "whole seconds"),
            ("nproc=", "write a number"),
        ] {
            let error = text.parse::<Limit>().expect_err(text).to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,40}") {
            let _ = text.parse::<Account>();
            let _ = text.parse::<Groups>();
            let _ = text.parse::<Umask>();
            let _ = text.parse::<Limit>();
            let _ = format!("core={text}").parse::<Limit>();
            let _ = nice(&text);
        }
    }
}
