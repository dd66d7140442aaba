//! What happens behind the 202: waits until the sink has everything, and reads when it came.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde::Deserialize;
use service::shutdown::Shutdown;

use super::children::SinkWatch;
use super::content::Content;
use super::load::Sent;
use super::own_platform::OwnPlatform;
use super::report::DeliveryReport;
use super::samples::Percentiles;

/// A platform that delivers nothing for so long has lost what is missing.
const STILL_PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(100);

/// What the sink took of one run, from its record.
///
/// # Errors
/// The record cannot be read.
pub(super) async fn measure(
    platform: &OwnPlatform,
    content: &Content,
    sent: &[Sent],
) -> anyhow::Result<DeliveryReport> {
    let received = read_record(&platform.record, content, SentTimes::of(sent))?;
    let delivered = received.waits_ms.len() as u64;
    let first_sent_ms = sent.iter().map(|sent| sent.at_ms_unix).min();
    let last_ms = received.last_ms.or(first_sent_ms).unwrap_or_default();
    let seconds = (last_ms - first_sent_ms.unwrap_or_default()).max(1) as f64 / 1e3;
    Ok(DeliveryReport {
        delivered,
        duplicates: received.copies - delivered,
        seconds,
        delivered_per_s: delivered as f64 / seconds,
        post_to_250_ms: Percentiles::of(received.waits_ms),
    })
}

/// Returns when the sink has taken so many different messages of a run, or nothing more comes.
///
/// # Errors
/// The sink is gone.
pub(super) async fn wait_for(
    sink: &mut SinkWatch,
    series: &str,
    wanted: u64,
    stop: &Shutdown,
) -> anyhow::Result<()> {
    let (mut came, mut moved) = (0, Instant::now());
    loop {
        let now = sink.came(series).await?;
        if now > came {
            (came, moved) = (now, Instant::now());
        }
        if now >= wanted || stop.is_requested() {
            return Ok(());
        }
        if moved.elapsed() > STILL_PATIENCE {
            eprintln!("bench: nothing more is delivered; {now} of {wanted} came");
            return Ok(());
        }
        tokio::time::sleep(POLL).await;
    }
}

/// When each message was due, by its number; taken out when it has come.
struct SentTimes(Vec<Option<i64>>);

impl SentTimes {
    fn of(sent: &[Sent]) -> Self {
        let end = sent.iter().map(|sent| sent.first + sent.count).max();
        let mut times = vec![None; end.unwrap_or_default() as usize];
        for sent in sent {
            let numbers = sent.first as usize..(sent.first + sent.count) as usize;
            times[numbers].fill(Some(sent.at_ms_unix));
        }
        Self(times)
    }

    fn take(&mut self, number: u64) -> Option<i64> {
        self.0.get_mut(usize::try_from(number).ok()?)?.take()
    }
}

/// What the sink took in one run.
#[derive(Debug, Default, PartialEq)]
struct ReceivedOfRun {
    /// From when each message was due until it came first, milliseconds.
    waits_ms: Vec<f64>,
    last_ms: Option<i64>,
    /// Repeats included.
    copies: u64,
}

fn read_record(path: &Path, content: &Content, times: SentTimes) -> anyhow::Result<ReceivedOfRun> {
    let file = std::fs::File::open(path).context("could not open the sink's record")?;
    read_lines(BufReader::new(file), content, times)
}

fn read_lines(
    lines: impl BufRead,
    content: &Content,
    mut times: SentTimes,
) -> anyhow::Result<ReceivedOfRun> {
    #[derive(Deserialize)]
    struct Line<'a> {
        #[serde(borrow)]
        id: Option<&'a str>,
        at_ms_unix: i64,
        result: &'a str,
    }
    let mut received = ReceivedOfRun::default();
    for line in lines.lines() {
        let line = line.context("could not read the sink's record")?;
        let line: Line<'_> = serde_json::from_str(&line).context("the sink's record is damaged")?;
        let number = line.id.and_then(|id| content.number(id));
        let Some(number) = number.filter(|_| line.result == "accepted") else {
            continue;
        };
        received.copies += 1;
        if let Some(due_ms) = times.take(number) {
            received
                .waits_ms
                .push((line.at_ms_unix - due_ms).max(0) as f64);
            received.last_ms = received.last_ms.max(Some(line.at_ms_unix));
        }
    }
    Ok(received)
}

#[cfg(test)]
mod tests {
    use super::super::own_config::correspondence;
    use super::*;

    #[test]
    fn the_record_tells_firsts_repeats_and_strangers_apart() {
        let content = Content::new(&correspondence(1), 100_000, 1, 2);
        let text = r#"{"id":"2-0","rcpt":"a@b.test","at_ms_unix":5,"result":"accepted"}
{"id":"2-1","rcpt":"a@b.test","at_ms_unix":6,"result":"deferred"}
{"id":"2-0","rcpt":"a@b.test","at_ms_unix":7,"result":"accepted"}
{"id":"1-1","rcpt":"a@b.test","at_ms_unix":8,"result":"accepted"}
{"id":null,"rcpt":"a@b.test","at_ms_unix":9,"result":"accepted"}"#;
        let sent = Sent {
            first: 0,
            count: 2,
            accepted: 2,
            at_ms_unix: 1,
            took: Duration::ZERO,
        };
        let read = |text: &str| read_lines(text.as_bytes(), &content, SentTimes::of(&[sent]));
        let expected = ReceivedOfRun {
            waits_ms: vec![4.0],
            last_ms: Some(5),
            copies: 2,
        };
        assert_eq!(read(text).unwrap(), expected);
        assert!(read("{").is_err());
    }
}
