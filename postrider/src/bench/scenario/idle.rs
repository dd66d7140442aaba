//! What a platform costs that has nothing to do.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::super::meters::memory;
use super::super::own_config::correspondence;
use super::super::own_platform::{OwnPlatform, POSTGRESQL, POSTRIDER};
use super::super::processes::Processes;
use super::{Answer, Question};

/// What the start and the warm-up left to be done is done after that.
const SETTLING: Duration = Duration::from_secs(10);

pub(super) async fn run(question: &Question<'_>) -> anyhow::Result<Answer> {
    eprintln!("bench: starting a platform");
    let platform = OwnPlatform::start(&question.args.plan()).await?;
    let found = measure(question, &platform).await;
    platform.stop().await?;
    found
}

async fn measure(question: &Question<'_>, platform: &OwnPlatform) -> anyhow::Result<Answer> {
    let keys = vec![platform.key.clone()];
    let runs = question.runs(platform, correspondence(1), keys);
    runs.warm_up(question.stop).await?;
    tokio::time::sleep(SETTLING).await;
    let (before, started) = (cpu(platform), Instant::now());
    tokio::select! {
        () = tokio::time::sleep(question.time()) => {}
        () = question.stop.requested() => {}
    }
    let (after, seconds) = (cpu(platform), started.elapsed().as_secs_f64());
    let percent = |name| {
        let at = |cpu: &BTreeMap<&str, Duration>| cpu.get(name).copied().unwrap_or_default();
        vec![(at(&after).saturating_sub(at(&before))).as_secs_f64() / seconds * 100.0]
    };
    let memory = memory(platform).get(POSTRIDER).copied().unwrap_or_default() as f64;
    let figures = BTreeMap::from([
        ("cpu_percent", percent(POSTRIDER)),
        ("postgresql_cpu_percent", percent(POSTGRESQL)),
        ("memory_bytes", vec![memory]),
    ]);
    Ok(question.figures("idle", figures))
}

fn cpu(platform: &OwnPlatform) -> BTreeMap<&'static str, Duration> {
    let processes = Processes::new();
    let pids = platform.pids().into_iter();
    pids.map(|(name, pid)| (name, processes.cpu(pid))).collect()
}
