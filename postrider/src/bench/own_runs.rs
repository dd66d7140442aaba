//! A load on a platform of our own: put it on, wait until everything is delivered and told, and
//! take the cost.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use service::shutdown::Shutdown;

use super::args::BenchArgs;
use super::connection::Authorization;
use super::content::{Content, Correspondence};
use super::load::{Budget, Generator, Loaded, Pace, Parcel};
use super::meters::Meters;
use super::own_config::correspondence;
use super::own_platform::{NO_SENDING, OwnPlatform};
use super::report::RunReport;
use super::{Manner, delivery, one_by_one, summarize, webhook};
use crate::output;

/// Fills caches and connections before anything is measured.
const WARM_UP_MESSAGES: u64 = 200;
const WARM_UP_CONCURRENCY: usize = 16;
const WARM_UP_TIME: Duration = Duration::from_secs(20);
/// Ids of the warm-up; real runs count from 1.
const WARM_UP_RUN: u32 = 0;
/// Ids of what is accepted one by one.
const ONE_BY_ONE_RUN: u32 = 1_000_000;

/// All runs, each printed when it is done.
///
/// # Errors
/// The platform cannot be started, or does not answer any more.
pub(super) async fn load(args: &BenchArgs, manner: &Manner) -> anyhow::Result<Vec<RunReport>> {
    eprintln!("bench: starting PostgreSQL, a platform and a sink");
    let platform = OwnPlatform::start(&args.plan()).await?;
    let runs = OwnRuns {
        keys: vec![platform.key.clone()],
        platform: &platform,
        who: correspondence(args.domains),
        size: args.size,
        seed: args.seed,
    };
    let result = all(args, manner, &runs).await;
    platform
        .stop()
        .await
        .context("could not stop the platform")?;
    result
}

async fn all(
    args: &BenchArgs,
    manner: &Manner,
    runs: &OwnRuns<'_>,
) -> anyhow::Result<Vec<RunReport>> {
    webhook::subscribe(runs.platform).await?;
    runs.warm_up(&manner.stop).await?;
    let mut reports = Vec::new();
    for run in 1..=args.runs {
        if manner.stop.is_requested() {
            break;
        }
        let mut report = runs.measure(run, manner).await?;
        if args.one_by_one {
            let content = runs.content(ONE_BY_ONE_RUN + run);
            let time = Duration::from_secs_f64(report.seconds);
            let found = one_by_one::measure(runs.platform, content, time, &manner.stop).await?;
            report.one_by_one = Some(found);
        }
        output::line(&report.table())?;
        reports.push(report);
    }
    Ok(reports)
}

/// Loads of one kind on one platform.
pub(super) struct OwnRuns<'a> {
    pub(super) platform: &'a OwnPlatform,
    pub(super) who: Correspondence,
    /// Of the senders, in their order.
    pub(super) keys: Vec<Authorization>,
    pub(super) size: usize,
    pub(super) seed: u64,
}

impl OwnRuns<'_> {
    /// Sends some messages and waits until they have come.
    ///
    /// # Errors
    /// The platform does not answer.
    pub(super) async fn warm_up(&self, stop: &Shutdown) -> anyhow::Result<()> {
        let generator = self.generator(Parcel::Single, self.content(WARM_UP_RUN))?;
        let budget = Budget {
            messages: Some(WARM_UP_MESSAGES.max(self.keys.len() as u64)),
            time: Some(WARM_UP_TIME),
        };
        let pace = Pace::Closed {
            concurrency: WARM_UP_CONCURRENCY,
        };
        let calls_before = self.calls().await?;
        let loaded = generator.run(pace, budget, stop).await;
        if let Some((kind, count)) = loaded.errors.iter().next() {
            eprintln!("bench: {count} messages of the warm-up failed: {kind}");
        }
        self.wait_for(generator.content(), calls_before, &loaded, stop)
            .await
            .map(drop)
    }

    /// Puts the load on once. Runs have different numbers, so that their messages are told apart.
    ///
    /// # Errors
    /// The platform does not answer.
    pub(super) async fn measure(&self, run: u32, manner: &Manner) -> anyhow::Result<RunReport> {
        let generator = self.generator(manner.parcel, self.content(run))?;
        let content = generator.content();
        let calls_before = self.calls().await?;
        let before = Meters::read(self.platform).await?;
        let sink = Some(self.platform.watch_sink()?);
        let loaded = super::load(&generator, manner, sink).await;
        let mut report = summarize(run, &loaded);
        let calls = self
            .wait_for(content, calls_before, &loaded, &manner.stop)
            .await?;
        report.webhook_calls = calls.zip(calls_before).map(|(now, before)| now - before);
        let cost = before.cost(self.platform, report.accepted).await?;
        if self.sends() {
            let delivered = delivery::measure(self.platform, content, &loaded.sent).await?;
            let signatures = cost.machine.rsa_2048_signatures_per_s;
            report.delivered_per_signature = Some(delivered.delivered_per_s / signatures);
            report.delivery = Some(delivered);
        }
        report.cost = Some(cost);
        Ok(report)
    }

    fn content(&self, run: u32) -> Content {
        Content::new(&self.who, self.size, self.seed, run)
    }

    fn generator(&self, parcel: Parcel, content: Content) -> anyhow::Result<Arc<Generator>> {
        let targets = vec![self.platform.target()?];
        let generator = Generator::new(targets, self.keys.clone(), parcel, content)?;
        Ok(Arc::new(generator))
    }

    fn sends(&self) -> bool {
        self.platform.roles() != NO_SENDING
    }

    /// Webhook calls so far, where somebody is called.
    async fn calls(&self) -> anyhow::Result<Option<u64>> {
        match self.platform.watch_webhooks()? {
            Some(mut receiver) => Ok(Some(receiver.stats().await?.webhook_calls)),
            None => Ok(None),
        }
    }

    /// Waits until what was accepted is delivered and told; the calls so far.
    async fn wait_for(
        &self,
        content: &Content,
        calls_before: Option<u64>,
        loaded: &Loaded,
        stop: &Shutdown,
    ) -> anyhow::Result<Option<u64>> {
        if !self.sends() {
            return Ok(None);
        }
        let accepted = loaded.accepted();
        let mut sink = self.platform.watch_sink()?;
        delivery::wait_for(&mut sink, &content.series(), accepted, stop).await?;
        match self.platform.watch_webhooks()? {
            Some(mut receiver) => {
                let wanted = calls_before.unwrap_or_default() + accepted;
                webhook::wait_for(&mut receiver, wanted, stop)
                    .await
                    .map(Some)
            }
            None => Ok(None),
        }
    }
}
