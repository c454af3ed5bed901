//! Where in the tree of cgroups we are, and where we may make some, from what `/proc` says. Pure:
//! it reads texts that were given to it.
//!
//! A cgroup has one writer, see <https://systemd.io/CGROUP_DELEGATION>: whoever manages the tree
//! lets us have a part of it, or we make nothing. A part is ours if
//! * it is marked as delegated (`Delegate=yes`): our own cgroup, or the one above it when we were
//!   put into a sub-group for that (`DelegateSubgroup=`);
//! * it is the top of what we can see, as in a container, whose tree is its own;
//! * it is the top of the whole machine, and no systemd manages that.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use super::{LEAF, NoCgroups, PROBE, PROBE_LEAF};

/// Our own cgroup, as one mount of the hierarchy shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// Its directory.
    pub(super) directory: PathBuf,
    /// The same as `/proc/PID/cgroup` names it: `/` and the way from the top.
    pub(super) path: PathBuf,
    /// The way from the top of what this mount shows; empty when we are there.
    below_top: PathBuf,
}

/// A cgroup that we may make others in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Base {
    /// Its directory.
    pub(super) directory: PathBuf,
    /// The same as `/proc/PID/cgroup` names it.
    pub(super) path: PathBuf,
}

/// What decides whether a cgroup may be ours.
pub(super) trait Marks {
    /// Whether it carries the mark that systemd gives to a delegated one.
    fn is_delegated(&self, directory: &Path) -> bool;
    /// Whether it is the top of the whole machine, not that of a container.
    fn is_root(&self, directory: &Path) -> bool;
    /// Whether systemd manages this machine.
    fn has_manager(&self) -> bool;
}

/// Our own cgroup on each mount of the hierarchy that shows it, from `/proc/self/mountinfo`,
/// proc_pid_mountinfo(5), and `/proc/self/cgroup`, cgroups(7). None is left out, as one may be
/// read-only and the next not.
pub(super) fn places(mountinfo: &[u8], cgroup: &[u8]) -> Result<Vec<Place>, NoCgroups> {
    let mounts: Vec<Mount> =
        mountinfo.split(|&byte| byte == b'\n').filter_map(parse_mount).collect();
    if mounts.is_empty() {
        return Err(NoCgroups::NotMounted);
    }
    let path = path_in(cgroup).ok_or(NoCgroups::NotMounted)?;
    let places: Vec<Place> = mounts
        .into_iter()
        .filter_map(|Mount { root, point }| {
            let below_top = path.strip_prefix(&root).ok()?.to_owned();
            // What lies outside of our namespace is shown as `/..` and the way from there.
            let is_shown = path.components().all(|part| part != Component::ParentDir);
            let directory =
                if below_top.as_os_str().is_empty() { point } else { point.join(&below_top) };
            is_shown.then(|| Place { directory, path: path.clone(), below_top })
        })
        .collect();
    if places.is_empty() { Err(NoCgroups::NotShown(path)) } else { Ok(places) }
}

impl Place {
    /// Its directory, and all above it that this mount shows.
    pub(super) fn up_to_top(&self) -> Vec<PathBuf> {
        let depth = self.below_top.components().count();
        self.directory.ancestors().take(depth + 1).map(Path::to_owned).collect()
    }

    /// The cgroup that we may make others in.
    pub(super) fn base(&self, marks: &impl Marks) -> Result<Base, NoCgroups> {
        let own = Base { directory: self.directory.clone(), path: self.path.clone() };
        let is_top = self.below_top.as_os_str().is_empty();
        if marks.is_delegated(&self.directory)
            || is_top && !(marks.is_root(&self.directory) && marks.has_manager())
        {
            return Ok(own);
        }
        let above = self.directory.parent().zip(self.path.parent());
        if let Some((directory, path)) = above
            && !is_top
            && !is_unit(&self.directory)
            && marks.is_delegated(directory)
        {
            return Ok(Base { directory: directory.to_owned(), path: path.to_owned() });
        }
        Err(NoCgroups::NotDelegated(self.path.clone()))
    }
}

/// The cgroup of version 2 in the text of `/proc/PID/cgroup`.
pub(super) fn path_in(cgroup: &[u8]) -> Option<PathBuf> {
    let path = cgroup.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(b"0::"))?;
    Some(PathBuf::from(OsStr::from_bytes(path)))
}

/// The name of the cgroup of a worker, or of its probe.
pub(super) fn name_of(worker: u64) -> String {
    match worker & PROBE {
        0 => format!("{LEAF}{worker}"),
        _ => format!("{PROBE_LEAF}{}", worker & !PROBE),
    }
}

/// Whose worker's cgroup a path is, or is below, if it is one of those right below `own`.
pub(super) fn worker_in(path: &Path, own: &Path) -> Option<u64> {
    let Component::Normal(first) = path.strip_prefix(own).ok()?.components().next()? else {
        return None;
    };
    let first = first.to_str()?;
    let number = |prefix| first.strip_prefix(prefix)?.parse::<u64>().ok();
    number(LEAF).or_else(|| Some(number(PROBE_LEAF)? | PROBE))
}

/// Whether it is a unit of systemd, which is in a delegated one because a manager runs there (that
/// of a user), and has not been delegated itself.
fn is_unit(directory: &Path) -> bool {
    let kind = directory.extension().and_then(OsStr::to_str);
    matches!(kind, Some("service" | "scope" | "slice" | "socket" | "mount" | "swap"))
}

struct Mount {
    /// What of the hierarchy is mounted.
    root: PathBuf,
    /// Where.
    point: PathBuf,
}

/// A mount of cgroup v2 from a line like
/// `41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw`.
fn parse_mount(line: &[u8]) -> Option<Mount> {
    let mut words = line.split(|&byte| byte == b' ').skip(3);
    let (root, point) = (unescape(words.next()?), unescape(words.next()?));
    // The options, some more words, and what ends those.
    let kind = words.skip(1).skip_while(|&word| word != b"-").nth(1)?;
    (kind == b"cgroup2").then_some(Mount { root, point })
}

/// Blanks and the like stand there as a backslash and three octal digits.
fn unescape(word: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((&first, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|_| first == b'\\');
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        if let Some(byte) = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            bytes.push(byte);
            rest = &after[3..];
        } else {
            bytes.push(first);
            rest = after;
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine with controllers on version 1 and an empty version 2 beside them.
    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";
    const HYBRID_CGROUP: &str = "9:name=systemd:/\n4:memory:/box/1\n0::/\n";

    const VERSION_1: &str = "\
31 23 0:28 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755
35 31 0:32 / /sys/fs/cgroup/memory rw shared:12 - cgroup cgroup rw,memory
";
    const VERSION_1_CGROUP: &str = "4:memory:/user.slice\n1:name=systemd:/user.slice/x.scope\n";

    const VERSION_2: &str = "\
22 29 0:20 / /sys rw,nosuid,nodev,noexec,relatime shared:7 - sysfs sysfs rw
30 22 0:26 / /sys/fs/cgroup rw,nosuid shared:9 master:1 - cgroup2 cgroup2 rw,nsdelegate
";

    /// A container with a namespace of its own for cgroups.
    const CONTAINER: &str = "\
612 600 0:26 / /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw,nsdelegate
";
    /// A container that has none, and is shown its part of the tree only.
    const CONTAINER_OF_HOST: &str = "\
612 600 0:26 /docker/4f /sys/fs/cgroup rw,nosuid - cgroup2 cgroup rw,nsdelegate
";

    const USER_SCOPE: &str = "/user.slice/user-1000.slice/user@1000.service/app.slice/run-1.scope";

    #[test]
    fn our_own_cgroup_is_found_on_each_mount_that_shows_it() {
        let service = "0::/system.slice/web.service\n";
        let cases: [(&str, &str, &str, &[&str]); 8] = [
            ("hybrid", HYBRID, HYBRID_CGROUP, &["/sys/fs/cgroup/unified"]),
            ("version 2", VERSION_2, service, &["/sys/fs/cgroup/system.slice/web.service"]),
            ("container", CONTAINER, "0::/\n", &["/sys/fs/cgroup"]),
            ("host's namespace", CONTAINER_OF_HOST, "0::/docker/4f\n", &["/sys/fs/cgroup"]),
            (
                "host's namespace, below",
                CONTAINER_OF_HOST,
                "0::/docker/4f/in it\n",
                &["/sys/fs/cgroup/in it"],
            ),
            (
                "escaped, and optional words that mislead",
                "30 22 0:26 / /a\\040b\\134 rw a:- - cgroup2 x rw\n",
                "0::/x\n",
                &["/a b\\/x"],
            ),
            (
                "two",
                "1 2 0:2 / /ro ro - cgroup2 x rw\n1 2 0:2 / /rw rw - cgroup2 x rw\n",
                "0::/\n",
                &["/ro", "/rw"],
            ),
            ("a name that begins alike", CONTAINER_OF_HOST, "0::/docker/4f5\n", &[]),
        ];
        for (case, mountinfo, cgroup, expected) in cases {
            let found = places(mountinfo.as_bytes(), cgroup.as_bytes()).unwrap_or_default();
            let found: Vec<_> = found.iter().map(|place| place.directory.to_str()).collect();
            let expected: Vec<_> = expected.iter().copied().map(Some).collect();
            assert_eq!(found, expected, "{case}");
        }
    }

    #[test]
    fn what_is_not_there_is_named() {
        let why = |mountinfo: &str, cgroup: &str| {
            places(mountinfo.as_bytes(), cgroup.as_bytes()).expect_err("there is none")
        };
        assert_eq!(why(VERSION_1, VERSION_1_CGROUP), NoCgroups::NotMounted);
        assert_eq!(why("", ""), NoCgroups::NotMounted);
        assert_eq!(why(VERSION_2, VERSION_1_CGROUP), NoCgroups::NotMounted);
        assert_eq!(why(CONTAINER_OF_HOST, "0::/a\n"), NoCgroups::NotShown("/a".into()));
        assert_eq!(why(CONTAINER, "0::/../b\n"), NoCgroups::NotShown("/../b".into()));
        assert_eq!(why("\\", "\\"), NoCgroups::NotMounted);
    }

    struct World {
        delegated: &'static str,
        root: &'static str,
        manager: bool,
    }

    impl Marks for World {
        fn is_delegated(&self, directory: &Path) -> bool {
            directory == Path::new(self.delegated)
        }

        fn is_root(&self, directory: &Path) -> bool {
            directory == Path::new(self.root)
        }

        fn has_manager(&self) -> bool {
            self.manager
        }
    }

    /// Its name, mountinfo, our cgroup, which is delegated, whether systemd is there, the base.
    type Case<'a> = (&'a str, &'a str, &'a str, &'a str, bool, Option<&'a str>);

    #[test]
    fn only_what_is_ours_is_taken() {
        const TOP: &str = "/sys/fs/cgroup";
        const WEB: &str = "/sys/fs/cgroup/system.slice/web.service";
        const USER: &str = "/sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service";
        let scope = format!("0::{USER_SCOPE}\n").leak();
        let scope_directory = format!("{TOP}{USER_SCOPE}").leak();
        let web = "0::/system.slice/web.service\n";
        let inside = "0::/system.slice/web.service/supervisor\n";
        let manager = "0::/user.slice/user-1000.slice/user@1000.service/init.scope\n";
        let cases: [Case<'_>; 12] = [
            ("a unit", VERSION_2, web, "", true, None),
            ("a delegated unit", VERSION_2, web, WEB, true, Some(WEB)),
            ("a sub-group of one", VERSION_2, inside, WEB, true, Some(WEB)),
            ("a sub-group of a unit", VERSION_2, inside, "", true, None),
            ("a user's scope", VERSION_2, scope, USER, true, None),
            (
                "a user's delegated scope",
                VERSION_2,
                scope,
                scope_directory,
                true,
                Some(scope_directory),
            ),
            ("a user's manager", VERSION_2, manager, USER, true, None),
            ("a container", CONTAINER, "0::/\n", "", true, Some(TOP)),
            (
                "a container in the host's namespace",
                CONTAINER_OF_HOST,
                "0::/docker/4f\n",
                "",
                true,
                Some(TOP),
            ),
            ("below the top of a container", CONTAINER, "0::/worker\n", "", false, None),
            ("the root without systemd", HYBRID, "0::/\n", "", false, Some("")),
            ("the root of systemd", HYBRID, "0::/\n", "", true, None),
        ];
        for (case, mountinfo, cgroup, delegated, manager, expected) in cases {
            let root = "/sys/fs/cgroup/unified";
            let expected = expected.map(|path| if path.is_empty() { root } else { path });
            let world = World { delegated, root, manager };
            let places = places(mountinfo.as_bytes(), cgroup.as_bytes()).expect("a place");
            let base = places[0].base(&world).map(|base| base.directory).ok();
            assert_eq!(base.as_deref(), expected.map(Path::new), "{case}");
        }
    }

    #[test]
    fn workers_are_told_by_the_first_part_below_ours() {
        let worker = |path: &str| worker_in(Path::new(path), Path::new("/a/shepherd.web"));
        assert_eq!(worker("/a/shepherd.web/worker.12"), Some(12));
        assert_eq!(worker("/a/shepherd.web/worker.12/of/its/own"), Some(12));
        assert_eq!(worker("/a/shepherd.web/probe.12/x"), Some(PROBE + 12));
        for number in [12, PROBE + 12] {
            assert_eq!(worker(&format!("/a/shepherd.web/{}", name_of(number))), Some(number));
        }
        for path in [
            "/",
            "/a/shepherd.web",
            "/a/shepherd.web/supervisor",
            "/a/shepherd.web-2/worker.12",
            "/a/shepherd.web/worker.12 (deleted)",
            "/a/shepherd.web/x/worker.12",
            "/worker.12",
        ] {
            assert_eq!(worker(path), None, "{path}");
        }
        assert_eq!(path_in(b"4:memory:/a\n0::/b/c\n"), Some("/b/c".into()));
        assert_eq!(path_in(b"4:memory:/a\n"), None);
    }

    #[test]
    fn a_base_is_named_as_proc_names_it() {
        let world = World { delegated: "/sys/fs/cgroup/a", root: "", manager: true };
        let places = places(VERSION_2.as_bytes(), b"0::/a/sup\n").expect("a place");
        let base = places[0].base(&world).expect("it is delegated");
        assert_eq!(base, Base { directory: "/sys/fs/cgroup/a".into(), path: "/a".into() });
    }
}
