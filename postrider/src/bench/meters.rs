//! What a load cost: processor time by process, write-ahead log, disk, memory, each a message.
//! Readings before and after, no judgement.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::machine::{self, Machine};
use super::own_platform::{OwnPlatform, POSTGRESQL, POSTRIDER, REDIS};
use super::processes::Processes;

/// The generator and this measurement, in the report.
const OWN_NAME: &str = "generator";
/// What counts as the platform; the rest is the surroundings of the measurement.
const PLATFORM: [&str; 3] = [POSTRIDER, POSTGRESQL, REDIS];

/// Where all meters stood at one moment.
pub(super) struct Meters {
    cpu: BTreeMap<&'static str, Duration>,
    wal_bytes: u64,
    database_bytes: u64,
}

/// What was spent between two readings.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Cost {
    /// Processor time a message, by process, microseconds.
    pub(super) cpu_us_per_message: BTreeMap<&'static str, f64>,
    /// That of the platform: postrider, PostgreSQL and Redis.
    pub(super) platform_cpu_us_per_message: f64,
    /// Memory at the end of the load, octets, by process.
    pub(super) memory_bytes: BTreeMap<&'static str, u64>,
    /// Write-ahead log a message.
    pub(super) wal_bytes_per_message: f64,
    /// Growth of the database a message.
    pub(super) disk_bytes_per_message: f64,
    pub(super) machine: Machine,
}

impl Meters {
    /// Reads them all.
    ///
    /// # Errors
    /// The database does not answer.
    pub(super) async fn read(platform: &OwnPlatform) -> anyhow::Result<Self> {
        let processes = Processes::new();
        let mut cpu: BTreeMap<_, _> = platform
            .pids()
            .into_iter()
            .map(|(name, pid)| (name, processes.cpu(pid)))
            .collect();
        // Not the whole tree: the others are our children.
        cpu.insert(OWN_NAME, processes.own_cpu(std::process::id()));
        Ok(Self {
            cpu,
            wal_bytes: platform.store.wal_position().await?,
            database_bytes: platform.store.database_size().await?,
        })
    }

    /// The cost of so many messages since this was read. Measures the machine, which takes a second.
    ///
    /// # Errors
    /// The database does not answer.
    pub(super) async fn cost(&self, platform: &OwnPlatform, messages: u64) -> anyhow::Result<Cost> {
        let after = Self::read(platform).await?;
        let memory_bytes = memory(platform);
        let machine = tokio::task::spawn_blocking(machine::measure).await??;
        let per_message = |amount: f64| amount / messages.max(1) as f64;
        let cpu = after.cpu.iter().map(|(name, spent)| {
            let since = spent.saturating_sub(self.cpu.get(name).copied().unwrap_or_default());
            (*name, per_message(since.as_secs_f64() * 1e6))
        });
        let cpu_us_per_message: BTreeMap<_, _> = cpu.collect();
        let growth = |after: u64, before: u64| per_message(after.saturating_sub(before) as f64);
        Ok(Cost {
            platform_cpu_us_per_message: PLATFORM
                .iter()
                .filter_map(|name| cpu_us_per_message.get(name))
                .sum(),
            cpu_us_per_message,
            memory_bytes,
            wal_bytes_per_message: growth(after.wal_bytes, self.wal_bytes),
            disk_bytes_per_message: growth(after.database_bytes, self.database_bytes),
            machine,
        })
    }
}

/// Memory of each process now.
pub(super) fn memory(platform: &OwnPlatform) -> BTreeMap<&'static str, u64> {
    let processes = Processes::new();
    platform
        .pids()
        .into_iter()
        .map(|(name, pid)| (name, processes.memory(pid)))
        .collect()
}
