//! For how many more workers there is memory. It only reads, and from a thread that may take its time.
//!
//! What is free is `MemAvailable` of the machine (proc_meminfo(5)), or what the cgroups that we are in
//! allow (`memory.max` less `memory.current`, where files that were not used lately count as free),
//! whichever is less. One more worker is taken to need what those that serve need in the mean, each
//! page divided by those who share it (`Pss` in proc_pid_smaps_rollup(5)), or the whole resident set
//! where only that may be read.

use nix::unistd::Pid;

use super::cgroup;
use super::memory::{self, Account};
use super::proc;

/// How many workers are looked at: a look walks all pages of a process and holds it up meanwhile, and
/// one is like the others.
const WORKERS_MAX: usize = 16;

/// How many processes of one worker are: beyond that it is taken to be a tree of what was seen.
const PROCESSES_MAX: usize = 64;

/// What stays free of what is: this part of a hundred, for what grows meanwhile.
const KEPT_PERCENT: u64 = 10;

/// For how many more workers like these memory is free; `None` where that cannot be known.
#[must_use]
pub fn room(workers: &[Account]) -> Option<u32> {
    let machine = proc::meminfo().ok().and_then(|text| available(&text));
    let free = machine.into_iter().chain(cgroup::free()).min()?;
    // Some of them, from the first to the last.
    let step = workers.len().div_ceil(WORKERS_MAX).max(1);
    let sizes: Vec<u64> = workers.iter().step_by(step).filter_map(size).collect();
    fits(free, &sizes)
}

/// How many of this mean size fit.
fn fits(free: u64, sizes: &[u64]) -> Option<u32> {
    let count = u64::try_from(sizes.len()).ok()?;
    let sum = sizes.iter().fold(0, |sum: u64, size| sum.saturating_add(*size));
    let mean = sum.checked_div(count).filter(|mean| *mean > 0)?;
    let usable = free - free / 100 * KEPT_PERCENT;
    Some(u32::try_from(usable / mean).unwrap_or(u32::MAX))
}

/// What a worker has in memory, in bytes; `None` where nothing of it can be read.
fn size(worker: &Account) -> Option<u64> {
    let processes = worker.processes().into_iter().take(PROCESSES_MAX);
    let sizes: Vec<u64> =
        processes.filter_map(|pid| part(pid).or_else(|| memory::resident(pid))).collect();
    (!sizes.is_empty()).then(|| sizes.into_iter().fold(0, u64::saturating_add))
}

/// A process's part of what it shares, and all that it has alone, in bytes.
fn part(pid: Pid) -> Option<u64> {
    amount(&proc::smaps_rollup(pid).ok()?, "Pss:")
}

/// What the kernel thinks that it can give away without swapping, in bytes.
fn available(meminfo: &[u8]) -> Option<u64> {
    amount(meminfo, "MemAvailable:")
}

/// The number of kilobytes in the line that begins so, in bytes.
fn amount(text: &[u8], key: &str) -> Option<u64> {
    let line = |line: &&[u8]| line.starts_with(key.as_bytes());
    let line = text.split(|&byte| byte == b'\n').find(line)?;
    let number = std::str::from_utf8(line).ok()?.split_ascii_whitespace().nth(1)?;
    number.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn amounts_are_read_by_the_beginning_of_their_line() {
        let meminfo = b"MemTotal:       16319076 kB\nMemFree: 1 kB\nMemAvailable:   2048 kB\n";
        assert_eq!(available(meminfo), Some(2 * MIB));
        assert_eq!(available(b"MemTotal: 5 kB\n"), None);
        let rollup = b"00400000-7ffd0000 ---p 00000000 00:00 0 [rollup]\nRss: 9 kB\nPss: 4 kB\nPss_Dirty: 3 kB\n";
        assert_eq!(amount(rollup, "Pss:"), Some(4096));
        assert_eq!(amount(b"Pss: many kB\n", "Pss:"), None);
    }

    #[test]
    fn a_tenth_of_what_is_free_stays_so() {
        assert_eq!(fits(100 * MIB, &[MIB, MIB]), Some(90));
        assert_eq!(fits(10 * MIB, &[8 * MIB, 12 * MIB]), Some(0));
        assert_eq!((fits(100 * MIB, &[]), fits(100 * MIB, &[0, 0])), (None, None));
    }

    #[test]
    fn we_are_weighed_and_what_is_gone_is_not() {
        let ours = Account::of(Some(Pid::this().as_raw()));
        let nobody = Account::of(Some(i32::MAX));
        assert!(part(Pid::this()).is_some_and(|part| part > 0));
        assert!(room(&[ours, nobody.clone()]).is_some());
        assert_eq!(room(&[nobody]), None);
    }
}
