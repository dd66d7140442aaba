//! What other processes cost, as /proc tells: processor time and memory of a process with all its
//! descendants. Reads only.

use std::collections::HashMap;
use std::fs;
use std::process::Command;
use std::time::Duration;

/// Ticks a second where `getconf` is missing: the value of every Linux this runs on.
const TICKS_PER_SECOND: u64 = 100;

/// The fields of /proc/PID/stat we need (proc(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stat {
    parent: u32,
    own_ticks: u64,
    /// Of children that ended and were waited for.
    ended_children_ticks: u64,
}

/// Reads /proc.
#[derive(Debug, Clone, Copy)]
pub(super) struct Processes {
    ticks_per_second: u64,
}

impl Processes {
    /// Asks the system for the length of its ticks.
    pub(super) fn new() -> Self {
        let asked = Command::new("getconf").arg("CLK_TCK").output().ok();
        let told = asked.and_then(|output| String::from_utf8(output.stdout).ok());
        let ticks = told
            .and_then(|text| text.trim().parse().ok())
            .filter(|ticks| *ticks > 0);
        Self {
            ticks_per_second: ticks.unwrap_or(TICKS_PER_SECOND),
        }
    }

    /// Processor time of `root` and its descendants since they started, those that ended included.
    pub(super) fn cpu(&self, root: u32) -> Duration {
        let all = read_all();
        let tree = descendants(root, &all);
        let own: u64 = tree
            .iter()
            .filter_map(|pid| all.get(pid))
            .map(|stat| stat.own_ticks)
            .sum();
        let ended: u64 = tree
            .iter()
            .filter_map(|pid| all.get(pid))
            .map(|stat| stat.ended_children_ticks)
            .sum();
        Duration::from_secs_f64((own + ended) as f64 / self.ticks_per_second as f64)
    }

    /// Processor time of `root` alone.
    pub(super) fn own_cpu(&self, root: u32) -> Duration {
        let ticks = read(root).map_or(0, |stat| stat.own_ticks);
        Duration::from_secs_f64(ticks as f64 / self.ticks_per_second as f64)
    }

    /// Memory of `root` and its descendants in octets; pages they share count once where the
    /// kernel tells (PSS), else as often as they are mapped (RSS).
    pub(super) fn memory(&self, root: u32) -> u64 {
        descendants(root, &read_all())
            .into_iter()
            .map(memory_of)
            .sum()
    }
}

/// In octets; see [`Processes::memory`].
fn memory_of(pid: u32) -> u64 {
    let of = |file: &str, field: &str| {
        let text = fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?;
        let rest = text.lines().find_map(|line| line.strip_prefix(field))?;
        rest.split_whitespace().next()?.parse::<u64>().ok()
    };
    let kilobytes = of("smaps_rollup", "Pss:").or_else(|| of("status", "VmRSS:"));
    kilobytes.unwrap_or(0) * 1_024
}

fn read_all() -> HashMap<u32, Stat> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| Some((pid, read(pid)?))).collect()
}

fn read(pid: u32) -> Option<Stat> {
    parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The name in parentheses may hold spaces and parentheses; everything after its last one is
/// numbers, beginning with field 3.
fn parse(stat: &str) -> Option<Stat> {
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    Some(Stat {
        parent: u32::try_from(number(4)?).ok()?,
        own_ticks: number(14)? + number(15)?,
        ended_children_ticks: number(16)? + number(17)?,
    })
}

fn descendants(root: u32, all: &HashMap<u32, Stat>) -> Vec<u32> {
    let mut tree = vec![root];
    let mut looked_at = 0;
    while let Some(&parent) = tree.get(looked_at) {
        looked_at += 1;
        let children = all
            .iter()
            .filter(|(pid, stat)| stat.parent == parent && **pid != parent);
        tree.extend(children.map(|(pid, _)| *pid));
    }
    tree
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let line = "42 (a) b (c)) S 7 1 1 0 -1 4194560 1 2 3 4 50 6 70 8 20 0 9 0 1 2 3";
        let expected = Stat {
            parent: 7,
            own_ticks: 56,
            ended_children_ticks: 78,
        };
        assert_eq!(parse(line), Some(expected));
        assert_eq!(parse("42 (x) S 7"), None);
    }

    #[test]
    fn trees_are_followed_to_the_leaves() {
        let stat = |parent| Stat {
            parent,
            own_ticks: 0,
            ended_children_ticks: 0,
        };
        let all = HashMap::from([(1, stat(0)), (2, stat(1)), (3, stat(2)), (4, stat(9))]);
        let mut tree = descendants(1, &all);
        tree.sort_unstable();
        assert_eq!(tree, [1, 2, 3]);
    }

    #[test]
    fn this_process_uses_time_and_memory() {
        let processes = Processes::new();
        let own = std::process::id();
        assert!(processes.memory(own) > 1_000_000);
        let started = std::time::Instant::now();
        while processes.own_cpu(own).is_zero() && started.elapsed() < Duration::from_secs(10) {}
        // Read first: time goes on between two readings.
        let earlier = processes.own_cpu(own);
        assert!(!earlier.is_zero());
        assert!(processes.cpu(own) >= earlier);
    }
}
