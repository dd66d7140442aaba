//! What committing together is worth: the same messages through the same interface, but each in a
//! transaction of its own. An interface commits together what waits at the same moment, so the load
//! is spread over processes that are each asked for one message at a time: nothing ever waits
//! beside another. PostgreSQL still flushes with one write the commits that fall together.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use reqwest::Url;
use serde::Serialize;
use service::shutdown::Shutdown;
use tokio::process::Child;

use super::connection::Target;
use super::content::Content;
use super::load::{Budget, Generator, Pace, Parcel};
use super::own_platform::OwnPlatform;
use super::processes::Processes;
use crate::wait;

/// Interfaces, and so transactions at once. More were tried and gave no more.
const INTERFACES: usize = 12;
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// What came of it.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct OneByOne {
    pub(super) accepted: u64,
    pub(super) seconds: f64,
    pub(super) accepted_per_s: f64,
    /// Of the interfaces and PostgreSQL, microseconds.
    pub(super) cpu_us_per_message: f64,
}

/// Accepts one message a transaction for so long.
///
/// # Errors
/// The interfaces do not start or stop.
pub(super) async fn measure(
    platform: &OwnPlatform,
    content: Content,
    time: Duration,
    stop: &Shutdown,
) -> anyhow::Result<OneByOne> {
    let mut interfaces = Interfaces::start(platform).await?;
    let targets = interfaces.targets.clone();
    let generator = Arc::new(Generator::new(
        targets,
        vec![platform.key.clone()],
        Parcel::Single,
        content,
    )?);
    let pace = Pace::Closed {
        concurrency: INTERFACES,
    };
    // Each makes its connections and fills its caches with the first messages.
    let warm_up = Budget {
        messages: Some(10 * INTERFACES as u64),
        time: Some(time),
    };
    generator.run(pace, warm_up, stop).await;
    let before = interfaces.cpu(platform);
    let budget = Budget {
        messages: None,
        time: Some(time),
    };
    let loaded = generator.run(pace, budget, stop).await;
    let spent = interfaces.cpu(platform).saturating_sub(before);
    interfaces.stop().await?;
    if let Some((kind, count)) = loaded.errors.iter().next() {
        eprintln!("bench: {count} messages were not accepted one by one: {kind}");
    }
    let (accepted, seconds) = (loaded.accepted(), loaded.elapsed.as_secs_f64());
    Ok(OneByOne {
        accepted,
        seconds,
        accepted_per_s: accepted as f64 / seconds,
        cpu_us_per_message: spent.as_secs_f64() * 1e6 / accepted.max(1) as f64,
    })
}

/// Processes of the role api.
struct Interfaces {
    children: Vec<Child>,
    targets: Vec<Target>,
}

impl Interfaces {
    async fn start(platform: &OwnPlatform) -> anyhow::Result<Self> {
        let (mut children, mut targets) = (Vec::new(), Vec::new());
        for _ in 0..INTERFACES {
            let (child, api) = platform.start_interface().await?;
            let url = Url::parse(&format!("http://{api}"))?;
            targets.push(Target::new(&url)?);
            children.push(child);
        }
        Ok(Self { children, targets })
    }

    /// Processor time so far, with that of PostgreSQL.
    fn cpu(&self, platform: &OwnPlatform) -> Duration {
        let processes = Processes::new();
        let own = self.children.iter().filter_map(Child::id);
        own.chain([platform.postgres_pid()])
            .map(|pid| processes.cpu(pid))
            .sum()
    }

    async fn stop(&mut self) -> anyhow::Result<()> {
        for child in &mut self.children {
            wait::stop(child, STOP_PATIENCE)
                .await
                .context("could not stop an interface")?;
        }
        Ok(())
    }
}
