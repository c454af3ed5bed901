//! The options of a socket (`-p 8000,backlog=1024`, `unix:/run/x,mode=0600`): from text to [`SocketOptions`] and back.
//! It never sets one, looks a user up, or asks what the kernel of this machine allows.

use core::fmt;

use super::text::one_line;

/// How many connections may wait unless told otherwise: the kernel's own default limit,
/// `net.core.somaxconn` (tcp(7)).
pub const BACKLOG: u32 = 4096;

/// Who may connect to a unix socket unless told otherwise: owner and group (unix(7): connecting needs
/// write permission).
pub const MODE: u32 = 0o660;

/// What is to be set on a socket. What is not asked for stays as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct SocketOptions {
    /// `backlog`: how many connections may wait to be accepted, [`BACKLOG`] without it.
    pub backlog: Option<u32>,
    /// `mode`: the permissions of a unix socket's file, [`MODE`] without it.
    pub mode: Option<u32>,
    /// `user`: who owns a unix socket's file, by name or number.
    pub user: Option<String>,
    /// `group`: the group of a unix socket's file, by name or number.
    pub group: Option<String>,
    /// `unlink`: what becomes of a unix socket's file when shepherd stops.
    pub at_the_stop: AtTheStop,
}

/// What becomes of the file of a unix socket when shepherd stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum AtTheStop {
    /// It is removed.
    #[default]
    Removed,
    /// It stays, and clients find nobody behind it: `unlink=no`.
    Kept,
}

impl SocketOptions {
    /// How many connections may wait to be accepted.
    #[must_use]
    pub fn backlog(&self) -> u32 {
        self.backlog.unwrap_or(BACKLOG)
    }

    /// The permissions of a unix socket's file.
    #[must_use]
    pub fn mode(&self) -> u32 {
        self.mode.unwrap_or(MODE)
    }

    /// The options among these that a bound socket cannot be given.
    pub fn before_bind(&self) -> impl Iterator<Item = &'static str> {
        let known = KNOWN.iter().filter(|known| known.moment == Moment::BeforeBind);
        known.filter(|known| (known.write)(self).is_some()).map(|known| known.name)
    }
}

/// Kinds of sockets that an option may be for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// A unix path, of stream or sequenced packets.
    UnixPath,
    /// A unix name without a file.
    Abstract,
}

impl Kind {
    fn listens(self) -> bool {
        match self {
            Kind::Tcp | Kind::UnixPath | Kind::Abstract => true,
            Kind::Udp => false,
        }
    }

    fn is_path(self) -> bool {
        self == Kind::UnixPath
    }
}

/// Why an option cannot be taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each message says it")]
pub enum OptionError {
    #[error(
        "there is nothing after a comma; write an option such as `backlog=1024`, or `,,` for a comma"
    )]
    Empty,
    #[error("it has no option `{}`; there {}; for a comma write `,,`", one_line(.name), nearest(.name))]
    Unknown { name: String },
    #[error("the option `{name}` is given twice; give it once")]
    Twice { name: &'static str },
    #[error("the option `{name}` is for {which} only; leave it away")]
    Misplaced { name: &'static str, which: &'static str },
    #[error("the option `{name}` needs a value; write `{name}={example}`")]
    ValueMissing { name: &'static str, example: &'static str },
    #[error("`{name}={}` is not {what}; write `{name}={example}`", one_line(.value))]
    Value { name: &'static str, value: String, what: &'static str, example: &'static str },
}

/// The known name that is nearest, or all of them where none is near.
fn nearest(name: &str) -> String {
    let close = |known: &&Known| strsim::jaro_winkler(known.name, name) > 0.8;
    let distance = |known: &&Known| strsim::damerau_levenshtein(known.name, name);
    if let Some(known) = KNOWN.iter().filter(close).min_by_key(distance) {
        return format!("is `{}`", known.name);
    }
    let names: Vec<&str> = KNOWN.iter().map(|known| known.name).collect();
    format!("are {}", names.join(", "))
}

/// An option: what it is called, where it makes sense, how it is read and written.
struct Known {
    name: &'static str,
    moment: Moment,
    fits: fn(Kind) -> bool,
    which: &'static str,
    what: &'static str,
    example: &'static str,
    read: fn(&mut SocketOptions, &str) -> Option<()>,
    /// The value if it is not the one that stands without the option.
    write: fn(&SocketOptions) -> Option<String>,
}

/// When an option can be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    /// Only before a socket is bound, or with its binding.
    BeforeBind,
    /// Also on a socket that is bound.
    AnyTime,
}

const PATH: &str = "unix sockets with a path";
const LISTENING: &str = "sockets that accept connections";

const KNOWN: &[Known] = &[
    Known {
        name: "backlog",
        moment: Moment::AnyTime,
        fits: Kind::listens,
        which: LISTENING,
        what: "a number from 1 to 2147483647",
        example: "1024",
        read: |options, text| set(&mut options.backlog, positive(text)),
        write: |options| options.backlog.map(|number| number.to_string()),
    },
    Known {
        name: "mode",
        moment: Moment::BeforeBind,
        fits: Kind::is_path,
        which: PATH,
        what: "an octal number from 0 to 0777",
        example: "0660",
        read: |options, text| set(&mut options.mode, mode(text)),
        write: |options| options.mode.map(|mode| format!("{mode:04o}")),
    },
    Known {
        name: "user",
        moment: Moment::BeforeBind,
        fits: Kind::is_path,
        which: PATH,
        what: "a user's name or number",
        example: "www-data",
        read: |options, text| set(&mut options.user, owner(text)),
        write: |options| options.user.clone(),
    },
    Known {
        name: "group",
        moment: Moment::BeforeBind,
        fits: Kind::is_path,
        which: PATH,
        what: "a group's name or number",
        example: "www-data",
        read: |options, text| set(&mut options.group, owner(text)),
        write: |options| options.group.clone(),
    },
    Known {
        name: "unlink",
        moment: Moment::BeforeBind,
        fits: Kind::is_path,
        which: PATH,
        what: FLAG,
        example: "no",
        read: |options, text| {
            let mut unlink = true;
            flag(&mut unlink, text)?;
            options.at_the_stop = if unlink { AtTheStop::Removed } else { AtTheStop::Kept };
            Some(())
        },
        write: |options| match options.at_the_stop {
            AtTheStop::Removed => None,
            AtTheStop::Kept => Some("no".to_owned()),
        },
    },
];

const FLAG: &str = "`yes` or `no`";

/// The names of all options.
pub fn names() -> impl Iterator<Item = &'static str> {
    KNOWN.iter().map(|known| known.name)
}

/// Reads the options that follow an address, for a socket of this kind.
///
/// # Errors
///
/// The first that cannot be taken, and why.
pub fn read(parts: &[String], kind: Kind) -> Result<SocketOptions, OptionError> {
    let mut options = SocketOptions::default();
    let mut given: Vec<&'static str> = Vec::new();
    for part in parts {
        let (name, value) = match part.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (part.as_str(), None),
        };
        if part.is_empty() {
            return Err(OptionError::Empty);
        }
        let Some(known) = KNOWN.iter().find(|known| known.name == name) else {
            return Err(OptionError::Unknown { name: name.to_owned() });
        };
        let Known { name, which, what, example, .. } = *known;
        if given.contains(&name) {
            return Err(OptionError::Twice { name });
        }
        given.push(name);
        if !(known.fits)(kind) {
            return Err(OptionError::Misplaced { name, which });
        }
        let Some(value) = value else {
            return Err(OptionError::ValueMissing { name, example });
        };
        if (known.read)(&mut options, value).is_none() {
            return Err(OptionError::Value { name, value: value.to_owned(), what, example });
        }
    }
    Ok(options)
}

impl fmt::Display for SocketOptions {
    /// Each as `,name` or `,name=value`, ready to follow an address.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for known in KNOWN {
            match (known.write)(self).as_deref() {
                None => {}
                Some(value) => {
                    write!(formatter, ",{}={}", known.name, value.replace(',', ",,"))?;
                }
            }
        }
        Ok(())
    }
}

fn set<T>(field: &mut Option<T>, value: Option<T>) -> Option<()> {
    *field = Some(value?);
    Some(())
}

fn flag(field: &mut bool, text: &str) -> Option<()> {
    *field = match text {
        "yes" => true,
        "no" => false,
        _ => return None,
    };
    Some(())
}

/// A number in digits alone; `str::parse` would take a `+` as well.
fn number(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn positive(text: &str) -> Option<u32> {
    number(text).filter(|&number| number > 0 && i32::try_from(number).is_ok())
}

fn mode(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    digits.then(|| u32::from_str_radix(text, 8).ok()).flatten().filter(|&mode| mode <= 0o777)
}

fn owner(text: &str) -> Option<String> {
    let fits = !text.is_empty() && !text.contains(|char: char| char.is_control() || char == ':');
    fits.then(|| text.to_owned())
}
