//! The environment by which a worker learns of its sockets, and what it must not inherit. Pure.
//!
//! The convention is that of sd_listen_fds(3). `LISTEN_PID` and `LISTEN_PIDFDID` name the process
//! that is meant, so only the process itself can write them.

/// Variables that speak of another process, another manager or another convention. A worker that
/// inherited one would take sockets, channels or words that are not its own.
const SCRUBBED: &[&str] = &[
    // sd_notify(3), sd_watchdog_enabled(3), systemd.exec(5).
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "FDSTORE",
    "MAINPID",
    "MAINPIDFDID",
    "MANAGERPID",
    "MANAGERPIDFDID",
    "SYSTEMD_EXEC_PID",
    "MEMORY_PRESSURE_WATCH",
    "MEMORY_PRESSURE_WRITE",
    // Node's channel to its parent and its place in a cluster.
    "NODE_CHANNEL_FD",
    "NODE_CHANNEL_SERIALIZATION_MODE",
    "NODE_UNIQUE_ID",
    // Other ways to hand sockets over: Server::Starter, nginx, unicorn, puma, php-fpm, upstart.
    "SERVER_STARTER_PORT",
    "SERVER_STARTER_GENERATION",
    "NGINX",
    "NGINX_VAR",
    "UNICORN_FD",
    "FPM_SOCKETS",
    "UPSTART_FDS",
    "GUNICORN_FD",
    "GUNICORN_PID",
];

/// The same for whole families.
const SCRUBBED_PREFIXES: &[&str] = &["LISTEN_", "SHEPHERD_", "EINHORN_", "PUMA_INHERIT_"];

/// Whether a worker must not inherit this variable. `JOURNAL_STREAM` is not among them: whether it
/// is true depends on where the output of the worker leads, which is known only when it is started.
#[must_use]
pub fn is_scrubbed(name: &[u8]) -> bool {
    SCRUBBED.iter().any(|scrubbed| scrubbed.as_bytes() == name)
        || SCRUBBED_PREFIXES.iter().any(|prefix| name.starts_with(prefix.as_bytes()))
}

/// The first socket, `SD_LISTEN_FDS_START`; the others follow.
pub const FIRST: u16 = 3;

/// The name of a socket that nobody named, see sd_listen_fds_with_names(3).
pub const UNNAMED: &str = "unknown";

/// The variables that say how many sockets there are and how they are called. Without sockets there
/// are none: `LISTEN_FDS=0` is an error to some readers.
#[must_use]
pub fn variables(names: &[Option<String>]) -> Vec<(&'static str, String)> {
    if names.is_empty() {
        return Vec::new();
    }
    let names: Vec<&str> = names.iter().map(|name| name.as_deref().unwrap_or(UNNAMED)).collect();
    vec![("LISTEN_FDS", names.len().to_string()), ("LISTEN_FDNAMES", names.join(":"))]
}

/// The variable that says which process the sockets are meant for.
pub const PID: &str = "LISTEN_PID";

/// The variable that says the same by the inode number of a pidfd of it, where the kernel has unique
/// ones (pidfs, Linux 6.9).
pub const PIDFD_ID: &str = "LISTEN_PIDFDID";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_speaks_of_others_is_scrubbed_and_the_rest_stays() {
        for name in ["LISTEN_PIDFDID", "LISTEN_FDS_FIRST_FD", "NOTIFY_SOCKET", "NODE_CHANNEL_FD"] {
            assert!(is_scrubbed(name.as_bytes()), "{name}");
        }
        for name in ["PATH", "NODE_ENV", "LISTEN", "JOURNAL_STREAM", "INVOCATION_ID", "NGINX_HOME"]
        {
            assert!(!is_scrubbed(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn there_are_as_many_names_as_sockets() {
        assert_eq!(variables(&[]), []);
        let variables = variables(&[Some("http".to_owned()), None]);
        assert_eq!(variables[0], ("LISTEN_FDS", "2".to_owned()));
        assert_eq!(variables[1], ("LISTEN_FDNAMES", "http:unknown".to_owned()));
    }
}
