//! What a process costs, as the kernel counts it.

use std::{fs, time::Duration};

use nix::{time::clock_getcpuclockid, unistd::Pid};

/// How long a process has run on processors, its ended threads included; to the nanosecond.
pub fn cpu(pid: i32) -> Duration {
    let clock = clock_getcpuclockid(Pid::from_raw(pid)).and_then(nix::time::ClockId::now);
    clock.map(Duration::from).unwrap_or_default()
}

/// Its share of memory, in KiB: what several processes have in common is divided among them.
pub fn proportional_memory(pid: i32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    number_after(&text, "Pss:").unwrap_or(0.0)
}

/// How often its threads were put on a processor, by their own will or not.
pub fn switches(pid: i32) -> f64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let switches = threads.map(|thread| {
        let text = fs::read_to_string(thread.path().join("status")).unwrap_or_default();
        let kinds = ["voluntary_ctxt_switches:", "nonvoluntary_ctxt_switches:"];
        kinds.iter().filter_map(|kind| number_after(&text, kind)).sum::<f64>()
    });
    switches.sum()
}

fn number_after(text: &str, name: &str) -> Option<f64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_ascii_whitespace().next()?.parse().ok()
}
