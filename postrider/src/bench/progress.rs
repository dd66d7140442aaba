//! How a load is getting on, once a second on standard error: one line that is written over on a
//! terminal, lines one after another elsewhere. Shows, measures nothing.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use super::children::SinkWatch;
use super::load::Live;

const PERIOD: Duration = Duration::from_secs(1);

/// Shows until dropped.
pub(super) struct Progress(JoinHandle<()>);

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.abort();
        if std::io::stderr().is_terminal() {
            eprintln!();
        }
    }
}

/// Begins to show a load, and what the sink receives meanwhile.
pub(super) fn start(live: Arc<Live>, mut sink: Option<SinkWatch>) -> Progress {
    Progress(tokio::spawn(async move {
        let started = Instant::now();
        let mut tick = tokio::time::interval_at((started + PERIOD).into(), PERIOD);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut accepted_before, mut received_before) = (0, None);
        loop {
            tick.tick().await;
            let accepted = live.accepted.load(Ordering::Relaxed);
            let failed = live.failed.load(Ordering::Relaxed);
            let in_flight = live.in_flight.load(Ordering::Relaxed);
            let mut line = format!(
                "bench: {:3.0} s  accepted {accepted} (+{}/s)  errors {failed}  under way {in_flight}",
                started.elapsed().as_secs_f64(),
                accepted - accepted_before,
            );
            accepted_before = accepted;
            if let Some(received) = received(sink.as_mut()).await {
                let more = received - received_before.unwrap_or(received);
                line.push_str(&format!("  delivered +{more}/s"));
                received_before = Some(received);
            }
            show(&line);
        }
    }))
}

fn show(line: &str) {
    let mut out = std::io::stderr().lock();
    // Nothing depends on somebody reading this.
    let _ = if out.is_terminal() {
        write!(out, "\r\x1b[K{line}").and_then(|()| out.flush())
    } else {
        writeln!(out, "{line}")
    };
}

async fn received(sink: Option<&mut SinkWatch>) -> Option<u64> {
    sink?.stats().await.ok().map(|stats| stats.received)
}
