//! One line a second on standard error while a load runs. Shows, measures nothing.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use reqwest::Url;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use super::load::Live;
use super::own_platform::SinkStats;

const PERIOD: Duration = Duration::from_secs(1);

/// Reports until aborted.
pub(super) fn start(live: Arc<Live>, sink_stats: Option<Url>) -> JoinHandle<()> {
    tokio::spawn(async move {
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
            if let Some(received) = received(sink_stats.as_ref()).await {
                let more = received - received_before.unwrap_or(received);
                line.push_str(&format!("  delivered +{more}/s"));
                received_before = Some(received);
            }
            eprintln!("{line}");
        }
    })
}

async fn received(sink_stats: Option<&Url>) -> Option<u64> {
    let answer = reqwest::get(sink_stats?.clone()).await.ok()?;
    answer
        .json::<SinkStats>()
        .await
        .ok()
        .map(|stats| stats.received)
}
