//! `postrider bench`: puts a load on a platform and says what came of it. Runs the steps in order;
//! each is in a file of its own.

mod args;
mod children;
mod connection;
mod content;
mod delivery;
mod load;
mod machine;
mod meters;
mod one_by_one;
mod own_config;
mod own_platform;
mod own_runs;
mod processes;
mod progress;
mod report;
mod samples;
mod scenario;
mod summary;
mod webhook;
mod words;

use std::sync::Arc;

use anyhow::{Context, anyhow};
use reqwest::Url;
use service::shutdown::Shutdown;

pub(crate) use args::BenchArgs;

use crate::output;
use args::Mode;
use children::SinkWatch;
use connection::{Authorization, Target};
use content::{Content, Correspondence};
use load::{Budget, Generator, Loaded, Pace, Parcel};
use report::RunReport;
use samples::Percentiles;
use summary::Report;

/// How to put the load on: everything that is the same in every run.
struct Manner {
    pace: Pace,
    parcel: Parcel,
    budget: Budget,
    stop: Shutdown,
}

/// Runs the benchmark and prints its results.
///
/// # Errors
/// The target may not be used, the platform cannot be started, or results cannot be written.
pub(crate) async fn run(args: BenchArgs) -> anyhow::Result<()> {
    let stop = Shutdown::new();
    stop.follow_signals()
        .context("could not listen to signals")?;
    if cfg!(debug_assertions) {
        eprintln!("bench: this is a debug build: its numbers say little about speed");
    }
    if let Some(scenario) = args.scenario {
        args.parcel()?;
        return scenario::run(&args, scenario, &stop).await;
    }
    let manner = Manner {
        pace: args.pace()?,
        parcel: args.parcel()?,
        budget: args.budget(),
        stop,
    };
    let runs = match args.checked_target()? {
        Some(target) => load_target(&args, target, &manner).await?,
        None => own_runs::load(&args, &manner).await?,
    };
    let report = Report {
        version: env!("CARGO_PKG_VERSION"),
        profile: if cfg!(debug_assertions) {
            "debug"
        } else {
            "release"
        },
        mode: match args.mode {
            Mode::HttpSingle => "one message a request".to_owned(),
            Mode::HttpBatch => format!("{} messages a request", args.batch_size),
        },
        pace: manner.pace.to_string(),
        message_bytes: args.size,
        domains: args.domains,
        seed: args.seed,
        summary: summary::summarize(&runs)?,
        runs,
    };
    if report.runs.len() > 1 {
        output::line(&summary::table(&report.summary, report.runs.len()))?;
    }
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
    manner: &Manner,
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
        domains: args.domains,
        senders: 1,
    };
    let target = Target::new(target).context("--target cannot be used")?;
    let key = Authorization::new(key)?;
    // Ids differ between calls of this command, so that a sink does not take them for repeats.
    let first: u32 = rand::random_range(1..u32::MAX / 2);
    let mut reports = Vec::new();
    for run in 0..args.runs {
        if manner.stop.is_requested() {
            break;
        }
        let content = Content::new(&who, args.size, args.seed, first + run);
        let (targets, keys) = (vec![target.clone()], vec![key.clone()]);
        let generator = Arc::new(Generator::new(targets, keys, manner.parcel, content)?);
        let loaded = load(&generator, manner, None).await;
        let report = summarize(run + 1, &loaded);
        output::line(&report.table())?;
        reports.push(report);
    }
    Ok(reports)
}

async fn load(generator: &Arc<Generator>, manner: &Manner, sink: Option<SinkWatch>) -> Loaded {
    let _shown = progress::start(generator.live(), sink);
    generator
        .run(manner.pace, manner.budget, &manner.stop)
        .await
}

fn summarize(run: u32, loaded: &Loaded) -> RunReport {
    let seconds = loaded.elapsed.as_secs_f64();
    let accepted = loaded.accepted();
    let took = loaded.sent.iter().map(|sent| sent.took.as_secs_f64() * 1e3);
    RunReport {
        run,
        accepted,
        errors: loaded.errors.clone(),
        seconds,
        accepted_per_s: accepted as f64 / seconds.max(1e-3),
        accept_ms: Percentiles::of(took.collect()),
        delivery: None,
        webhook_calls: None,
        cost: None,
        delivered_per_signature: None,
        one_by_one: None,
    }
}
