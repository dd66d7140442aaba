//! What happens behind the 202: waits until the sink has everything, reads when it came, and takes
//! the cost of it all from before and after.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde::Deserialize;
use service::shutdown::Shutdown;

use super::content::Content;
use super::load::Sent;
use super::machine;
use super::own_platform::OwnPlatform;
use super::processes::Processes;
use super::report::DeliveryReport;
use super::samples::Percentiles;

/// A platform that delivers nothing for so long has lost what is missing.
const STILL_PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(100);
/// The generator and this measurement, in the report.
const OWN_NAME: &str = "generator";

/// Where all meters stood at one moment.
pub(super) struct Meters {
    cpu: BTreeMap<&'static str, Duration>,
    wal_bytes: u64,
    database_bytes: u64,
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
}

/// Waits until everything accepted was delivered, and reports. `before` was read before the load.
///
/// # Errors
/// The sink or the database is gone, or the sink's record cannot be read.
pub(super) async fn measure(
    platform: &OwnPlatform,
    content: &Content,
    accepted: &[Sent],
    before: &Meters,
    received_before: u64,
    stop: &Shutdown,
) -> anyhow::Result<DeliveryReport> {
    wait_for(platform, received_before + accepted.len() as u64, stop).await?;
    let after = Meters::read(platform).await?;
    let memory_bytes = memory(platform);
    let machine = tokio::task::spawn_blocking(machine::measure).await??;

    let received = read_record(&platform.record, content)?;
    let delivered = received.first_ms.len() as u64;
    let waits = accepted.iter().filter_map(|sent| {
        let at_ms = received.first_ms.get(&sent.number)?;
        Some((at_ms - sent.at_ms_unix).max(0) as f64)
    });
    let first_sent_ms = accepted
        .iter()
        .map(|sent| sent.at_ms_unix)
        .min()
        .unwrap_or_default();
    let last_ms = received
        .first_ms
        .values()
        .copied()
        .max()
        .unwrap_or(first_sent_ms);
    let seconds = (last_ms - first_sent_ms).max(1) as f64 / 1e3;
    let delivered_per_s = delivered as f64 / seconds;
    let per_message = |amount: f64| amount / delivered.max(1) as f64;
    let cpu = after.cpu.iter().map(|(name, spent)| {
        let since = spent.saturating_sub(before.cpu.get(name).copied().unwrap_or_default());
        (*name, per_message(since.as_secs_f64() * 1e6))
    });
    let growth = |after: u64, before: u64| per_message(after.saturating_sub(before) as f64);
    Ok(DeliveryReport {
        delivered,
        duplicates: received.copies - delivered,
        seconds,
        delivered_per_s,
        post_to_250_ms: Percentiles::of(waits.collect()),
        cpu_us_per_message: cpu.collect(),
        memory_bytes,
        wal_bytes_per_message: growth(after.wal_bytes, before.wal_bytes),
        disk_bytes_per_message: growth(after.database_bytes, before.database_bytes),
        machine,
        delivered_per_signature: delivered_per_s / machine.rsa_2048_signatures_per_s,
    })
}

/// Returns when the sink has taken `wanted` copies, or nothing more comes.
pub(super) async fn wait_for(
    platform: &OwnPlatform,
    wanted: u64,
    stop: &Shutdown,
) -> anyhow::Result<()> {
    let (mut received, mut moved) = (0, Instant::now());
    while !stop.is_requested() {
        let stats = platform.sink_stats().await?;
        if stats.received - stats.duplicates >= wanted {
            break;
        }
        if stats.received > received {
            (received, moved) = (stats.received, Instant::now());
        }
        if moved.elapsed() > STILL_PATIENCE {
            eprintln!(
                "bench: nothing more is delivered; {} of {wanted} came",
                stats.received
            );
            break;
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

fn memory(platform: &OwnPlatform) -> BTreeMap<&'static str, u64> {
    let processes = Processes::new();
    platform
        .pids()
        .into_iter()
        .map(|(name, pid)| (name, processes.memory(pid)))
        .collect()
}

/// What the sink took in one run.
#[derive(Debug, Default, PartialEq, Eq)]
struct ReceivedOfRun {
    /// When each message came first, milliseconds since 1970.
    first_ms: HashMap<u64, i64>,
    /// Repeats included.
    copies: u64,
}

fn read_record(path: &Path, content: &Content) -> anyhow::Result<ReceivedOfRun> {
    let text = std::fs::read_to_string(path).context("could not read the sink's record")?;
    read_lines(&text, content)
}

fn read_lines(text: &str, content: &Content) -> anyhow::Result<ReceivedOfRun> {
    #[derive(Deserialize)]
    struct Line<'a> {
        #[serde(borrow)]
        id: Option<&'a str>,
        at_ms_unix: i64,
        result: &'a str,
    }
    let mut received = ReceivedOfRun::default();
    for line in text.lines() {
        let line: Line<'_> = serde_json::from_str(line).context("the sink's record is damaged")?;
        let number = line.id.and_then(|id| content.number(id));
        if let Some(number) = number.filter(|_| line.result == "accepted") {
            received.copies += 1;
            received.first_ms.entry(number).or_insert(line.at_ms_unix);
        }
    }
    Ok(received)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_tells_firsts_repeats_and_strangers_apart() {
        let content = Content::new(OwnPlatform::correspondence(), 100, 1, 2);
        let text = r#"{"id":"2-0","rcpt":"a@b.test","at_ms_unix":5,"result":"accepted"}
{"id":"2-1","rcpt":"a@b.test","at_ms_unix":6,"result":"deferred"}
{"id":"2-0","rcpt":"a@b.test","at_ms_unix":7,"result":"accepted"}
{"id":"1-1","rcpt":"a@b.test","at_ms_unix":8,"result":"accepted"}
{"id":null,"rcpt":"a@b.test","at_ms_unix":9,"result":"accepted"}"#;
        let expected = ReceivedOfRun {
            first_ms: HashMap::from([(0, 5)]),
            copies: 2,
        };
        assert_eq!(read_lines(text, &content).unwrap(), expected);
        assert!(read_lines("{", &content).is_err());
    }
}
