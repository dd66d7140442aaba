//! How soon a platform delivers again that was killed with a long queue.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::ensure;

use super::super::children::SinkWatch;
use super::super::own_config::{RECIPIENT_DOMAIN, correspondence};
use super::super::own_platform::{ALL_ROLES, NO_SENDING, OwnPlatform};
use super::fill::Fill;
use super::{Answer, Question};

const POLL: Duration = Duration::from_millis(10);
/// It delivers for so long before it is killed.
const DELIVERING: Duration = Duration::from_secs(3);
/// Nothing is on its way any more when nothing has come for so long.
const QUIET: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(120);

pub(super) async fn run(question: &Question<'_>) -> anyhow::Result<Answer> {
    eprintln!("bench: starting a platform");
    let mut plan = question.args.plan();
    plan.roles = NO_SENDING;
    let mut platform = OwnPlatform::start(&plan).await?;
    let found = measure(question, &mut platform).await;
    platform.stop().await?;
    found
}

async fn measure(question: &Question<'_>, platform: &mut OwnPlatform) -> anyhow::Result<Answer> {
    let fill = Fill {
        key: platform.key.clone(),
        from: correspondence(1).from,
        to_domain: RECIPIENT_DOMAIN.to_owned(),
        send_at: None,
        deliveries: question.args.queued,
    };
    fill.run(platform, question.stop).await?;
    let mut sink = platform.watch_sink()?;
    platform.restart(ALL_ROLES).await?;
    let (mut first, mut ready) = (Vec::new(), Vec::new());
    for run in 1..=question.args.runs {
        await_more(&mut sink, 0).await?;
        tokio::time::sleep(DELIVERING).await;
        platform.kill().await?;
        let came = quiet(&mut sink).await?;
        ensure!(
            came < question.args.queued,
            "the queue is empty already: give a larger --queued"
        );
        let started = Instant::now();
        platform.start_again(ALL_ROLES).await?;
        ready.push(started.elapsed().as_secs_f64());
        await_more(&mut sink, came).await?;
        first.push(started.elapsed().as_secs_f64());
        eprintln!(
            "bench: run {run}: ready after {:.2} s, delivered after {:.2} s",
            ready.last().copied().unwrap_or_default(),
            first.last().copied().unwrap_or_default(),
        );
    }
    let figures = BTreeMap::from([("first_delivery_s", first), ("ready_s", ready)]);
    Ok(Answer {
        queued: Some(question.args.queued),
        ..question.figures("restart", figures)
    })
}

/// Waits until more than this has come.
async fn await_more(sink: &mut SinkWatch, came: u64) -> anyhow::Result<()> {
    let started = Instant::now();
    while sink.stats().await?.received <= came {
        ensure!(
            started.elapsed() < PATIENCE,
            "nothing was delivered in {} s",
            PATIENCE.as_secs()
        );
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

/// Waits until nothing comes any more; how much there is then.
async fn quiet(sink: &mut SinkWatch) -> anyhow::Result<u64> {
    loop {
        let before = sink.stats().await?.received;
        tokio::time::sleep(QUIET).await;
        if sink.stats().await?.received == before {
            return Ok(before);
        }
    }
}
