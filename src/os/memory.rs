//! What workers have in memory. It only reads, and from any thread: a thousand workers are a
//! thousand files, which the loop has better things to do than to read.
//!
//! Of a cgroup where memory is counted it is what the kernel charges to it, `memory.current`: what
//! processes share counts once, and files that the kernel keeps for them count too. Elsewhere the
//! resident sets of the worker's processes are added up (`/proc/PID/statm`), and what they share
//! counts once for each: `smaps_rollup` would divide it, but walks every page of a process while it
//! holds up the process itself, and is closed to others than the owner.

use std::collections::BTreeSet;

use nix::unistd::{Pid, SysconfVar, sysconf};

use super::cgroup::Leaf;
use super::proc;
use super::tree::Process;

/// How many processes are looked at in one reading, all workers together, at about 20 us each; the
/// workers after that have no number. A worker is one process mostly.
pub const PROCESSES_MAX: usize = 4096;

/// Where the processes of one worker are found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its cgroup, where it has one.
    pub(super) leaf: Option<Leaf>,
    /// Its main process, while it lives.
    pub(super) main: Option<Pid>,
    /// What else was seen to be its own, dead by now or not.
    pub(super) known: BTreeSet<Process>,
}

/// Reads of each account how much it is, in bytes, as far as that can be read.
#[must_use]
pub fn read<'a>(accounts: impl IntoIterator<Item = &'a Account>) -> Vec<Option<u64>> {
    let mut processes_left = PROCESSES_MAX;
    accounts.into_iter().map(|account| account.read(&mut processes_left)).collect()
}

impl Account {
    /// That of a main process alone, or of nobody.
    #[must_use]
    pub fn of(main: Option<i32>) -> Account {
        Account { leaf: None, main: main.map(Pid::from_raw), known: BTreeSet::new() }
    }

    fn read(&self, processes_left: &mut usize) -> Option<u64> {
        if let Some(charged) = self.leaf.as_ref().and_then(Leaf::memory) {
            return Some(charged);
        }
        if *processes_left == 0 {
            return None;
        }
        let processes = self.processes();
        *processes_left = processes_left.checked_sub(processes.len())?;
        // One that has gone meanwhile has nothing.
        let sizes: Vec<u64> = processes.into_iter().filter_map(resident).collect();
        (!sizes.is_empty()).then(|| sizes.into_iter().fold(0, u64::saturating_add))
    }

    /// Its processes, each once: those in its cgroup, and those that its tree shows besides.
    pub(super) fn processes(&self) -> Vec<Pid> {
        let mut processes = self.leaf.as_ref().map(Leaf::members).unwrap_or_default();
        processes.extend(self.main);
        processes.extend(self.main.map(proc::descendants).unwrap_or_default());
        // Another may have the number of one that has died.
        let known = self.known.iter().filter(|process| process.is_live());
        processes.extend(known.map(|process| process.pid));
        processes.sort_unstable();
        processes.dedup();
        processes
    }
}

/// The resident set of a process, in bytes.
pub(super) fn resident(pid: Pid) -> Option<u64> {
    let pages = parse(&proc::statm(pid).ok()?)?;
    let page = sysconf(SysconfVar::PAGE_SIZE).ok().flatten().and_then(|size| size.try_into().ok());
    Some(pages.saturating_mul(page.unwrap_or(4096)))
}

/// The second number is the resident set in pages, see proc_pid_statm(5).
fn parse(statm: &[u8]) -> Option<u64> {
    std::str::from_utf8(statm).ok()?.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resident_set_is_the_second_number() {
        assert_eq!(parse(b"3182 1057 780 51 0 423 0\n"), Some(1057));
        assert_eq!(parse(b"3182\n"), None);
        assert_eq!(parse(b"\xff \xff\n"), None);
    }

    #[test]
    fn a_process_has_memory_and_one_that_is_not_there_has_none() {
        let ours = Account::of(Some(Pid::this().as_raw()));
        // Beyond the largest number that a process can have.
        let nobody = Account::of(Some(i32::MAX));
        let sizes = read([&ours, &nobody, &Account::of(None)]);
        assert!(sizes[0].is_some_and(|size| size > 1 << 20), "{sizes:?}");
        assert_eq!(sizes[1..], [None, None]);
    }

    #[test]
    fn what_would_take_too_long_is_left_out() {
        let account = Account::of(Some(Pid::this().as_raw()));
        let mut processes_left = 0;
        assert_eq!(account.read(&mut processes_left), None);
    }
}
