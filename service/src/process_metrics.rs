//! What the process itself uses, under the names that every Prometheus client gives them. Read from
//! /proc when somebody asks; where there is none, nothing is shown.

use std::fs;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, IntGauge};

/// Ticks a second in /proc: Linux shows times in this unit on every machine, whatever it uses inside.
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU, memory and open files of this process.
pub(crate) struct ProcessMetrics {
    cpu_seconds: Counter,
    resident_bytes: IntGauge,
    open_files: IntGauge,
}

impl ProcessMetrics {
    pub(crate) fn new() -> prometheus::Result<Self> {
        Ok(Self {
            cpu_seconds: Counter::new(
                "process_cpu_seconds_total",
                "CPU time of the process, user and system.",
            )?,
            resident_bytes: IntGauge::new(
                "process_resident_memory_bytes",
                "Memory of the process that is in RAM.",
            )?,
            open_files: IntGauge::new(
                "process_open_fds",
                "Open files and connections of the process.",
            )?,
        })
    }

    fn read(&self) -> Option<()> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        // A counter only grows: another request may have brought it further meanwhile.
        let grown = cpu_seconds(&stat)? - self.cpu_seconds.get();
        if grown > 0.0 {
            self.cpu_seconds.inc_by(grown);
        }
        let status = fs::read_to_string("/proc/self/status").ok()?;
        self.resident_bytes.set(resident_bytes(&status)?);
        let open = fs::read_dir("/proc/self/fd").ok()?.count();
        self.open_files.set(i64::try_from(open).ok()?);
        Some(())
    }
}

impl Collector for ProcessMetrics {
    fn desc(&self) -> Vec<&Desc> {
        let mut all = self.cpu_seconds.desc();
        all.extend(self.resident_bytes.desc());
        all.extend(self.open_files.desc());
        all
    }

    fn collect(&self) -> Vec<MetricFamily> {
        if self.read().is_none() {
            return Vec::new();
        }
        let mut all = self.cpu_seconds.collect();
        all.extend(self.resident_bytes.collect());
        all.extend(self.open_files.collect());
        all
    }
}

/// From /proc/PID/stat (proc(5)): fields 14 and 15, counted after the name, which may hold anything.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(11);
    let user: f64 = times.next()?.parse().ok()?;
    let system: f64 = times.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

fn resident_bytes(status: &str) -> Option<i64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: i64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_proc_are_read_whatever_the_process_is_called() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194304 2 0 0 0 150 25 0 0 20 0 1 0 99 1000 5";
        assert_eq!(cpu_seconds(stat), Some(1.75));
        assert_eq!(cpu_seconds("7 (a) S 1"), None);
        assert_eq!(
            resident_bytes("Name:\ta\nVmRSS:\t    12 kB\n"),
            Some(12_288)
        );
        assert_eq!(resident_bytes("Name:\ta\n"), None);
    }
}
