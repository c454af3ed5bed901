//! Who the workers are: looks their user and groups up, and tries beforehand whether we may start
//! anybody as them and whether they could do what they are asked to. It changes nothing of ours.
//!
//! Names are looked up when a generation is read and at no other time: the user database may be on
//! another machine.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::{
    AccessFlags, Gid, Group, Uid, User, faccessat, getegid, geteuid, getgrouplist, getgroups,
    getresgid, getresuid,
};
use thiserror::Error;

use super::rights::{self, CAP_SETGID, CAP_SETUID, Capabilities, Rights};
use super::sys;
use crate::config::identity::{Account, Identity as Wanted};

/// How long the user database may take: one on another machine answers in milliseconds, and the loop
/// waits for it at a reload.
const LOOK_UP_MAX: Duration = Duration::from_secs(5);

/// See capabilities(7).
const CAP_KILL: u32 = 5;

/// What leads to the session of the person that started us, and is of no use to another user.
const OF_OUR_SESSION: [&str; 5] =
    ["DBUS_SESSION_BUS_ADDRESS", "MAIL", "SSH_AUTH_SOCK", "XAUTHORITY", "XDG_RUNTIME_DIR"];

/// Who the workers of a generation are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// What a worker becomes; nothing where that is what we are.
    pub credentials: Option<Credentials>,
    /// Whether a worker has no capabilities: a user other than root was asked for.
    pub drops_capabilities: bool,
    /// The flags that say so, for messages.
    flags: String,
    /// The user, for messages: "user `www`".
    whom: Option<String>,
    person: Option<Person>,
}

/// Whose rights a worker has, as numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user.
    pub user: u32,
    /// The group.
    pub group: u32,
    /// The supplementary groups.
    pub groups: Vec<u32>,
}

/// What the user database knows of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Person {
    uid: u32,
    gid: u32,
    name: Option<String>,
    home: Vec<u8>,
}

/// Why workers cannot be who they are to be.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// No such user or group.
    #[error(
        "cannot use `{flag} {name}`: there is no such {kind}; create it (`{kind}add --system {name}`), or name another"
    )]
    Unknown {
        /// The flag that names it.
        flag: &'static str,
        /// `user` or `group`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// The user database failed.
    #[error(
        "cannot look up `{flag} {name}`: {error}; see what `getent passwd` and `getent group` say"
    )]
    LookUp {
        /// The flag that names it.
        flag: &'static str,
        /// Its name.
        name: String,
        /// Why.
        error: io::Error,
    },
    /// The user database was not even asked, or does not answer.
    #[error("cannot look up `{flags}`: {error}; see what `getent passwd` and `getent group` say")]
    NoAnswer {
        /// The flags that ask for it.
        flags: String,
        /// Why.
        error: io::Error,
    },
    /// We may not start anybody as them.
    #[error("cannot use `{flags}`: {}", explain_refusal(error))]
    Refused {
        /// The flags that ask for it.
        flags: String,
        /// Why.
        error: io::Error,
    },
    /// We could never stop them.
    #[error(
        "cannot use `{0}`: without CAP_KILL shepherd could not stop workers of another user; give it that capability too"
    )]
    CannotStop(String),
    /// We may not favour them so.
    #[error(
        "cannot use `--nice {nice}`: {}; choose a higher one",
        if error.kind() == io::ErrorKind::PermissionDenied {
            "only root, or a process with CAP_SYS_NICE, may lower the niceness so far".to_owned()
        } else {
            error.to_string()
        }
    )]
    Nice {
        /// The niceness.
        nice: i8,
        /// Why.
        error: io::Error,
    },
}

fn explain_refusal(error: &io::Error) -> String {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EPERM) => {
            "only root, or a process with CAP_SETUID and CAP_SETGID, may start workers \
             as somebody else; start shepherd as root, or as that user and without the flag"
                .to_owned()
        }
        Some(Errno::EINVAL) => {
            "one of its ids is not mapped into this user namespace; choose one that is".to_owned()
        }
        _ => error.to_string(),
    }
}

impl Identity {
    /// Looks up who is wanted, and waits no longer than [`LOOK_UP_MAX`] for it.
    ///
    /// # Errors
    ///
    /// See [`IdentityError`]; whether we may become so is seen by [`try_on`](Identity::try_on).
    pub fn look_up(wanted: &Wanted) -> Result<Identity, IdentityError> {
        let flags = flags(wanted);
        if flags.is_empty() {
            return Ok(Identity::default());
        }
        let failed = |error| IdentityError::NoAnswer { flags: flags.clone(), error };
        let (sender, receiver) = mpsc::channel();
        let wanted = wanted.clone();
        // One that gets no answer is left to itself: nothing can end it.
        let look_up = move || {
            // Nobody may be listening by then.
            let _ = sender.send(Identity::of(&wanted));
        };
        thread::Builder::new().spawn(look_up).map_err(failed)?;
        receiver.recv_timeout(LOOK_UP_MAX).unwrap_or_else(|_| {
            let cause = format!("the user database gave no answer within {LOOK_UP_MAX:?}");
            Err(failed(io::Error::new(io::ErrorKind::TimedOut, cause)))
        })
    }

    /// The same, for as long as it takes.
    fn of(wanted: &Wanted) -> Result<Identity, IdentityError> {
        let person = wanted.user.as_ref().map(person).transpose()?;
        let group = wanted.group.as_ref().map(|group| gid("--group", group)).transpose()?;
        let explicit = match &wanted.groups {
            Some(groups) => Some(
                groups
                    .0
                    .iter()
                    .map(|group| gid("--groups", group))
                    .collect::<Result<Vec<_>, _>>()?,
            ),
            None => None,
        };
        let ours = Credentials {
            user: geteuid().as_raw(),
            group: getegid().as_raw(),
            groups: getgroups().unwrap_or_default().into_iter().map(Gid::as_raw).collect(),
        };
        let user = person.as_ref().map_or(ours.user, |person| person.uid);
        // Whoever may not change groups is in those that it was put into.
        let keeps_groups = user == ours.user && !sys::has_capability(CAP_SETGID);
        let own_group = match &person {
            Some(person) if !keeps_groups => person.gid,
            Some(_) | None => ours.group,
        };
        let group_of = group.unwrap_or(own_group);
        let groups = match (explicit, &person, group) {
            (Some(groups), _, _) => groups,
            (None, _, _) if keeps_groups && group_of == ours.group => ours.groups.clone(),
            (None, Some(person), _) => person.groups(group_of)?,
            // Ours are not those of a foreign group.
            (None, None, Some(_)) => Vec::new(),
            (None, None, None) => ours.groups.clone(),
        };
        let credentials = Credentials { user, group: group_of, groups };
        let drops_capabilities = person.as_ref().is_some_and(|person| person.uid != 0);
        let whom = person.as_ref().map(|person| format!("user `{}`", person.shown()));
        let is_ours = are_ours(&credentials, &ours);
        let flags = flags(wanted);
        // Who may not even become another is told that, by `try_on`.
        let may_become = user != ours.user && sys::has_capability(CAP_SETUID);
        if may_become && !sys::has_capability(CAP_KILL) {
            return Err(IdentityError::CannotStop(flags));
        }
        let credentials = (!is_ours).then_some(credentials);
        Ok(Identity { credentials, drops_capabilities, flags, whom, person })
    }

    /// The user that the workers are, for messages; nothing where they are who we are.
    #[must_use]
    pub fn whom(&self) -> Option<&str> {
        self.credentials.as_ref()?;
        Some(self.whom.as_deref().unwrap_or("the workers' user"))
    }

    /// Who owns what a worker is to reach and others are not.
    #[must_use]
    pub fn owner(&self) -> Option<(u32, u32)> {
        self.credentials.as_ref().map(|credentials| (credentials.user, credentials.group))
    }

    /// What becomes of variables: a value for those that are set, none for those that are left out.
    #[must_use]
    pub fn variables(&self) -> Vec<(&'static str, Option<Vec<u8>>)> {
        let Some(person) = &self.person else {
            return Vec::new();
        };
        let name = || person.name.as_ref().map(|name| name.clone().into_bytes());
        let mut variables =
            vec![("HOME", Some(person.home.clone())), ("USER", name()), ("LOGNAME", name())];
        if person.uid != geteuid().as_raw() {
            variables.extend(OF_OUR_SESSION.map(|variable| (variable, None)));
        }
        variables
    }

    /// Does `work` as a worker would: with its rights and its niceness, on a thread of its own.
    ///
    /// # Errors
    ///
    /// When we may not start anybody so; nothing was done then.
    pub fn try_on<T: Send>(
        &self,
        nice: Option<i8>,
        work: impl FnOnce() -> T + Send,
    ) -> Result<T, IdentityError> {
        if let Some(nice) = nice {
            rights::on_a_thread(|| sys::set_thread_nice(nice.into()))
                .map_err(|error| IdentityError::Nice { nice, error })?;
        }
        match self.rights() {
            Some(rights) => rights::with(rights, work)
                .map_err(|error| IdentityError::Refused { flags: self.flags.clone(), error }),
            None => Ok(work()),
        }
    }

    /// Whether a worker may enter this directory.
    #[must_use]
    pub fn may_enter(&self, path: &Path) -> bool {
        let enters = || faccessat(AT_FDCWD, path, AccessFlags::X_OK, AtFlags::AT_EACCESS).is_ok();
        // Whoever has come so far has tried it on before.
        self.try_on(None, enters).unwrap_or(true)
    }

    fn rights(&self) -> Option<Rights<'_>> {
        let credentials = self.credentials.as_ref()?;
        Some(Rights {
            user: Uid::from_raw(credentials.user),
            group: Gid::from_raw(credentials.group),
            groups: Some(&credentials.groups),
            capabilities: if self.drops_capabilities {
                Capabilities::None
            } else {
                Capabilities::Ours
            },
        })
    }
}

impl Person {
    fn shown(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.uid.to_string())
    }

    /// The supplementary groups by the rules of initgroups(3). Who has no entry is in no group.
    fn groups(&self, group: u32) -> Result<Vec<u32>, IdentityError> {
        let Some(name) = self.name.clone() else {
            return Ok(Vec::new());
        };
        let bytes = CString::new(name.clone()).unwrap_or_default();
        let groups = getgrouplist(&bytes, Gid::from_raw(group))
            .map_err(|errno| IdentityError::LookUp { flag: "--user", name, error: errno.into() })?;
        Ok(groups.into_iter().map(Gid::as_raw).collect())
    }
}

/// Whether all of it is what we are; the order of groups means nothing, nor whether the main one is
/// named again.
fn are_ours(wanted: &Credentials, ours: &Credentials) -> bool {
    let all = |credentials: &Credentials| {
        let mut groups = credentials.groups.clone();
        groups.push(credentials.group);
        groups.sort_unstable();
        groups.dedup();
        groups
    };
    let user = Uid::from_raw(wanted.user);
    let group = Gid::from_raw(wanted.group);
    let is_user = getresuid().is_ok_and(|ids| [ids.real, ids.effective, ids.saved] == [user; 3]);
    let is_group = getresgid().is_ok_and(|ids| [ids.real, ids.effective, ids.saved] == [group; 3]);
    is_user && is_group && all(wanted) == all(ours)
}

fn flags(wanted: &Wanted) -> String {
    let mut flags = Vec::new();
    if let Some(user) = &wanted.user {
        flags.push(format!("--user {user}"));
    }
    if let Some(group) = &wanted.group {
        flags.push(format!("--group {group}"));
    }
    if let Some(groups) = &wanted.groups {
        let names: Vec<String> = groups.0.iter().map(ToString::to_string).collect();
        flags.push(format!("--groups {}", names.join(",")));
    }
    flags.join(" ")
}

fn person(account: &Account) -> Result<Person, IdentityError> {
    let flag = "--user";
    let failed = |errno: Errno| IdentityError::LookUp {
        flag,
        name: account.to_string(),
        error: errno.into(),
    };
    let found = match account {
        Account::Name(name) => User::from_name(name),
        &Account::Number(number) => User::from_uid(Uid::from_raw(number)),
    };
    match (found.map_err(failed)?, account) {
        (Some(user), _) => Ok(Person {
            uid: user.uid.as_raw(),
            gid: user.gid.as_raw(),
            name: Some(user.name),
            home: user.dir.into_os_string().into_vec(),
        }),
        (None, &Account::Number(number)) => {
            Ok(Person { uid: number, gid: number, name: None, home: b"/".to_vec() })
        }
        (None, Account::Name(name)) => {
            Err(IdentityError::Unknown { flag, kind: "user", name: name.clone() })
        }
    }
}

fn gid(flag: &'static str, account: &Account) -> Result<u32, IdentityError> {
    let name = match account {
        &Account::Number(number) => return Ok(number),
        Account::Name(name) => name,
    };
    match Group::from_name(name) {
        Ok(Some(group)) => Ok(group.gid.as_raw()),
        Ok(None) => Err(IdentityError::Unknown { flag, kind: "group", name: name.clone() }),
        Err(errno) => Err(IdentityError::LookUp { flag, name: name.clone(), error: errno.into() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::identity::Groups;

    fn wanted(user: Option<Account>) -> Wanted {
        Wanted { user, ..Wanted::default() }
    }

    fn name(name: &str) -> Account {
        Account::Name(name.to_owned())
    }

    #[test]
    fn without_a_wish_workers_are_who_we_are() {
        let identity = Identity::look_up(&wanted(None)).expect("ours");
        assert_eq!(identity, Identity::default());
        assert_eq!((identity.whom(), identity.owner()), (None, None));
        assert_eq!(identity.try_on(None, || 7).expect("ours"), 7);
    }

    #[test]
    fn our_own_user_needs_no_privilege() {
        let own = Account::Number(geteuid().as_raw());
        let identity = Identity::look_up(&wanted(Some(own))).expect("ours");
        assert!(identity.try_on(None, || ()).is_ok());
        let home = identity.variables().into_iter().find(|(name, _)| *name == "HOME");
        assert!(home.is_some_and(|(_, value)| value.is_some()));
    }

    #[test]
    fn a_user_has_its_entrys_group_groups_and_home() {
        let identity = Identity::look_up(&wanted(Some(name("nobody")))).expect("on every system");
        let entry = User::from_name("nobody").expect("readable").expect("there");
        let credentials = identity.credentials.as_ref().expect("not us");
        assert_eq!((credentials.user, credentials.group), (entry.uid.as_raw(), entry.gid.as_raw()));
        assert!(credentials.groups.contains(&entry.gid.as_raw()));
        assert_eq!(identity.whom(), Some("user `nobody`"));
        let variables = identity.variables();
        assert!(variables.contains(&("USER", Some(b"nobody".to_vec()))), "{variables:?}");
        assert!(variables.contains(&("XDG_RUNTIME_DIR", None)), "{variables:?}");
    }

    #[test]
    fn a_number_without_an_entry_has_the_group_of_that_number_and_nobodys_name() {
        let mut wish = wanted(Some(Account::Number(3_141_592)));
        let identity = Identity::look_up(&wish).expect("a number");
        let credentials = identity.credentials.clone().expect("not us");
        let expected = Credentials { user: 3_141_592, group: 3_141_592, groups: Vec::new() };
        assert_eq!(credentials, expected);
        let variables = identity.variables();
        assert_eq!(
            variables[..3],
            [("HOME", Some(b"/".to_vec())), ("USER", None), ("LOGNAME", None)]
        );
        wish.group = Some(Account::Number(7));
        wish.groups = Some(Groups(vec![Account::Number(8)]));
        let credentials = Identity::look_up(&wish).expect("numbers").credentials;
        let expected = Credentials { user: 3_141_592, group: 7, groups: vec![8] };
        assert_eq!(credentials, Some(expected));
    }

    #[test]
    fn who_is_unknown_is_named_with_the_flag() {
        let mut wish = wanted(Some(name("no-such-user")));
        let error = Identity::look_up(&wish).expect_err("unknown").to_string();
        assert!(
            error.starts_with("cannot use `--user no-such-user`: there is no such user; "),
            "{error}"
        );
        wish.user = None;
        wish.groups = Some(Groups(vec![Account::Number(1), name("no-such-group")]));
        let error = Identity::look_up(&wish).expect_err("unknown").to_string();
        assert!(error.contains("`--groups no-such-group`: there is no such group"), "{error}");
    }
}
