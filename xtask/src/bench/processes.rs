//! Processor time and memory of a process with all its descendants, as /proc tells (proc(5)).

use std::collections::HashMap;
use std::fs;
use std::process::Command;

use crate::shell::ask;

/// Ticks a second where `getconf` is missing: the value of every Linux this runs on.
const TICKS_PER_SECOND: f64 = 100.0;

struct Stat {
    parent: u32,
    /// Its own and those of children that ended and were waited for.
    ticks: f64,
}

/// Seconds of processor time of `root` and its descendants since they started.
pub(super) fn cpu_seconds(root: u32) -> f64 {
    let asked = ask(Command::new("getconf").arg("CLK_TCK"));
    let told = asked.and_then(|text| text.trim().parse().ok());
    let all = read_all();
    let ticks = tree(root, &all).into_iter().filter_map(|pid| all.get(&pid));
    ticks.map(|stat| stat.ticks).sum::<f64>() / told.unwrap_or(TICKS_PER_SECOND)
}

/// Octets of memory of `root` and its descendants; shared pages count once where the kernel tells.
pub(super) fn memory_bytes(root: u32) -> f64 {
    let all = read_all();
    tree(root, &all).into_iter().map(memory_of).sum()
}

fn memory_of(pid: u32) -> f64 {
    let of = |file: &str, field: &str| {
        let text = fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?;
        let rest = text.lines().find_map(|line| line.strip_prefix(field))?;
        rest.split_whitespace().next()?.parse::<f64>().ok()
    };
    let kilobytes = of("smaps_rollup", "Pss:").or_else(|| of("status", "VmRSS:"));
    kilobytes.unwrap_or(0.0) * 1_024.0
}

fn read_all() -> HashMap<u32, Stat> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let read = |pid: u32| parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?);
    pids.filter_map(|pid| Some((pid, read(pid)?))).collect()
}

/// The name in parentheses may hold spaces and parentheses; everything after its last one is
/// numbers, beginning with field 3.
fn parse(stat: &str) -> Option<Stat> {
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<u32>().ok();
    let ticks = (14..=17).map(number).sum::<Option<u32>>()?;
    Some(Stat {
        parent: number(4)?,
        ticks: f64::from(ticks),
    })
}

fn tree(root: u32, all: &HashMap<u32, Stat>) -> Vec<u32> {
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
        let stat = parse(line).unwrap();
        assert_eq!((stat.parent, stat.ticks), (7, 134.0));
        assert!(parse("42 (x) S 7").is_none());
    }

    #[test]
    fn this_process_uses_memory() {
        assert!(memory_bytes(std::process::id()) > 1e6);
    }
}
