//! `postrider bench`: puts a load on a platform and says what came of it. Runs the steps in order;
//! each is in a file of its own.

mod args;
mod content;
mod delivery;
mod load;
mod machine;
mod own_platform;
mod processes;
mod progress;
mod report;
mod samples;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use reqwest::Url;
use service::shutdown::Shutdown;

pub(crate) use args::BenchArgs;

use crate::output;
use content::{Content, Correspondence};
use delivery::Meters;
use load::{Budget, Generator, Loaded, Pace};
use own_platform::OwnPlatform;
use report::{Report, RunReport};
use samples::Percentiles;

/// Fills caches and connections before anything is measured.
const WARM_UP_MESSAGES: u64 = 200;
const WARM_UP_CONCURRENCY: usize = 16;
const WARM_UP_TIME: Duration = Duration::from_secs(20);
/// Ids of the warm-up; real runs count from 1.
const WARM_UP_RUN: u32 = 0;

/// Runs the benchmark and prints its results.
///
/// # Errors
/// The target may not be used, the platform cannot be started, or results cannot be written.
pub(crate) async fn run(args: BenchArgs) -> anyhow::Result<()> {
    let stop = Shutdown::new();
    stop.follow_signals()
        .context("could not listen to signals")?;
    let pace = args.pace()?;
    let runs = match args.checked_target()? {
        Some(target) => load_target(&args, target, pace, &stop).await?,
        None => load_own_platform(&args, pace, &stop).await?,
    };
    let report = Report {
        version: env!("CARGO_PKG_VERSION"),
        profile: if cfg!(debug_assertions) {
            "debug"
        } else {
            "release"
        },
        pace: match pace {
            Pace::Open { per_second } => format!("open loop, {per_second}/s"),
            Pace::Closed { concurrency } => format!("closed loop, {concurrency} under way"),
        },
        message_bytes: args.size,
        seed: args.seed,
        runs,
    };
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&report)?;
        std::fs::write(path, text + "\n")
            .with_context(|| format!("could not write {}", path.display()))?;
    }
    if report.runs.iter().all(|run| run.accepted == 0) {
        anyhow::bail!("nothing was accepted; the errors above say why");
    }
    Ok(())
}

async fn load_target(
    args: &BenchArgs,
    target: &Url,
    pace: Pace,
    stop: &Shutdown,
) -> anyhow::Result<Vec<RunReport>> {
    let key = args.key.as_deref().context("--target needs --key")?;
    let own_domain = args
        .from
        .rsplit_once('@')
        .map(|(_, domain)| domain.to_owned());
    let to_domain = args.to_domain.clone().or(own_domain);
    let who = Correspondence {
        from: args.from.clone(),
        to_domain: to_domain.ok_or_else(|| anyhow!("--from {:?} has no domain", args.from))?,
        subdomains: 0,
    };
    // Ids differ between calls of this command, so that a sink does not take them for repeats.
    let first: u32 = rand::random_range(1..u32::MAX / 2);
    let mut reports = Vec::new();
    for run in 0..args.runs {
        let content = Content::new(who.clone(), args.size, args.seed, first + run);
        let generator = Arc::new(Generator::new(target, key, content)?);
        let loaded = load(&generator, pace, args.budget(), None, stop).await;
        let report = summarize(run + 1, &loaded);
        output::line(&report.table())?;
        reports.push(report);
    }
    Ok(reports)
}

async fn load_own_platform(
    args: &BenchArgs,
    pace: Pace,
    stop: &Shutdown,
) -> anyhow::Result<Vec<RunReport>> {
    if cfg!(debug_assertions) {
        eprintln!("bench: this is a debug build: its numbers say little about speed");
    }
    eprintln!("bench: starting PostgreSQL, a platform and a sink");
    let platform = OwnPlatform::start(args).await?;
    let measured = async {
        warm_up(args, &platform, stop).await?;
        let mut reports = Vec::new();
        for run in 1..=args.runs {
            if stop.is_requested() {
                break;
            }
            let report = measure(args, &platform, run, pace, stop).await?;
            output::line(&report.table())?;
            reports.push(report);
        }
        Ok(reports)
    };
    let result = measured.await;
    platform
        .stop()
        .await
        .context("could not stop the platform")?;
    result
}

async fn warm_up(args: &BenchArgs, platform: &OwnPlatform, stop: &Shutdown) -> anyhow::Result<()> {
    let who = OwnPlatform::correspondence();
    let content = Content::new(who, args.size, args.seed, WARM_UP_RUN);
    let generator = Arc::new(Generator::new(&platform.url, &platform.key, content)?);
    let budget = Budget {
        messages: Some(WARM_UP_MESSAGES),
        time: Some(WARM_UP_TIME),
    };
    let pace = Pace::Closed {
        concurrency: WARM_UP_CONCURRENCY,
    };
    let loaded = generator.run(pace, budget, stop).await;
    if let Some((kind, count)) = loaded.errors.iter().next() {
        eprintln!("bench: {count} messages of the warm-up failed: {kind}");
    }
    delivery::wait_for(platform, loaded.accepted.len() as u64, stop).await
}

async fn measure(
    args: &BenchArgs,
    platform: &OwnPlatform,
    run: u32,
    pace: Pace,
    stop: &Shutdown,
) -> anyhow::Result<RunReport> {
    let content = Content::new(OwnPlatform::correspondence(), args.size, args.seed, run);
    let generator = Arc::new(Generator::new(&platform.url, &platform.key, content)?);
    let stats = platform.sink_stats().await?;
    let received_before = stats.received - stats.duplicates;
    let before = Meters::read(platform).await?;
    let sink = Some(platform.sink_stats_url());
    let loaded = load(&generator, pace, args.budget(), sink, stop).await;
    let mut report = summarize(run, &loaded);
    let accepted = &loaded.accepted;
    let content = generator.content();
    let delivered =
        delivery::measure(platform, content, accepted, &before, received_before, stop).await?;
    report.delivery = Some(delivered);
    Ok(report)
}

async fn load(
    generator: &Arc<Generator>,
    pace: Pace,
    budget: Budget,
    sink_stats: Option<Url>,
    stop: &Shutdown,
) -> Loaded {
    let progress = progress::start(generator.live(), sink_stats);
    let loaded = generator.clone().run(pace, budget, stop).await;
    progress.abort();
    loaded
}

fn summarize(run: u32, loaded: &Loaded) -> RunReport {
    let seconds = loaded.elapsed.as_secs_f64();
    let took = loaded
        .accepted
        .iter()
        .map(|sent| sent.took.as_secs_f64() * 1e3);
    RunReport {
        run,
        accepted: loaded.accepted.len() as u64,
        errors: loaded.errors.clone(),
        seconds,
        accepted_per_s: loaded.accepted.len() as f64 / seconds.max(1e-3),
        accept_ms: Percentiles::of(took.collect()),
        delivery: None,
    }
}
