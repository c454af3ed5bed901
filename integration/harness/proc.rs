//! Reads /proc; what cannot be read, or is gone by then, is absent.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
};

use super::Address;

/// Pid and parent of a process that has not ended.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub pid: i32,
    pub parent: i32,
    pub state: char,
}

pub fn entry(pid: i32) -> Option<Entry> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in brackets and may itself hold brackets and blanks.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut words = rest.split_ascii_whitespace();
    let state = words.next()?.chars().next()?;
    let parent = words.next()?.parse().ok()?;
    (!matches!(state, 'Z' | 'X')).then_some(Entry { pid, parent, state })
}

/// Every live process.
pub fn entries() -> Vec<Entry> {
    let Ok(directory) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    directory
        .filter_map(|item| item.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(entry)
        .collect()
}

/// Live children of a process, in order of their pids.
pub fn children(pid: i32) -> Vec<i32> {
    let mut pids: Vec<i32> =
        entries().iter().filter(|entry| entry.parent == pid).map(|entry| entry.pid).collect();
    pids.sort_unstable();
    pids
}

/// Live descendants of a process, parents before their children.
pub fn descendants(pid: i32) -> Vec<Entry> {
    let entries = entries();
    let mut found: Vec<Entry> = Vec::new();
    let mut generation = BTreeSet::from([pid]);
    // A pid is in the list once, so this ends.
    while !generation.is_empty() {
        let next: Vec<Entry> =
            entries.iter().filter(|entry| generation.contains(&entry.parent)).copied().collect();
        generation = next.iter().map(|entry| entry.pid).collect();
        found.extend(next);
    }
    found
}

/// The environment that a process was started with. A program that writes over it (as some do to
/// change their title) hides it.
pub fn environment(pid: i32) -> BTreeMap<String, String> {
    let Ok(bytes) = fs::read(format!("/proc/{pid}/environ")) else {
        return BTreeMap::new();
    };
    bytes
        .split(|byte| *byte == 0)
        .filter_map(|pair| {
            let pair = String::from_utf8_lossy(pair);
            let (key, value) = pair.split_once('=')?;
            Some((key.to_owned(), value.to_owned()))
        })
        .collect()
}

pub fn command_line(pid: i32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words: Vec<_> =
        bytes.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word)).collect();
    words.join(" ").trim_end().to_owned()
}

/// Addresses of the stream sockets that a process holds and that listen, each once.
pub fn listening(pid: i32) -> Vec<Address> {
    let inodes = socket_inodes(pid);
    let mut found = BTreeSet::new();
    for table in ["tcp", "tcp6"] {
        let text = fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
        for line in text.lines().skip(1) {
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            let (Some(local), Some(state), Some(inode)) =
                (words.get(1), words.get(3), words.get(9))
            else {
                continue;
            };
            if *state == "0A" && inodes.contains(*inode) {
                found.extend(tcp_address(local).map(Address::Tcp));
            }
        }
    }
    let text = fs::read_to_string(format!("/proc/{pid}/net/unix")).unwrap_or_default();
    for line in text.lines().skip(1) {
        // Num RefCount Protocol Flags Type St Inode Path; flag 0x10000 says that it listens. A path
        // with blanks in it is cut, which no test needs.
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let [_, _, _, flags, kind, _, inode, path, ..] = words.as_slice() else {
            continue;
        };
        if *flags == "00010000" && *kind == "0001" && inodes.contains(*inode) {
            found.insert(Address::Unix(PathBuf::from(path)));
        }
    }
    found.into_iter().collect()
}

fn socket_inodes(pid: i32) -> BTreeSet<String> {
    let Ok(directory) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return BTreeSet::new();
    };
    directory
        .filter_map(|item| fs::read_link(item.ok()?.path()).ok())
        .filter_map(|link| {
            let link = link.to_str()?;
            Some(link.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
        })
        .collect()
}

/// `0100007F:1F90`: the address as words of the machine's byte order, the port in hexadecimal.
fn tcp_address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut bytes = Vec::new();
    for start in (0..ip.len()).step_by(8) {
        let word = u32::from_str_radix(ip.get(start..start + 8)?, 16).ok()?;
        bytes.extend(word.to_ne_bytes());
    }
    let ip = match <[u8; 4]>::try_from(bytes.as_slice()) {
        Ok(four) => IpAddr::V4(Ipv4Addr::from(four)),
        Err(_) => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes.as_slice()).ok()?)),
    };
    Some(SocketAddr::new(ip, port))
}
