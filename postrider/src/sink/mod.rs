//! The SMTP sink: receives mail for capacity tests, counts it and throws it away.
//! Must not deliver, keep or forward anything, and must not listen publicly by default.

mod args;
mod behaviour;
mod handler;
mod http;
mod record;
mod stats;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use mta::listener::{ListenerConfig, serve, server_tls_self_signed};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

pub(crate) use args::SinkArgs;
pub(crate) use behaviour::{Latency, ReplyMix};
pub(crate) use stats::StatsSnapshot;

use handler::{Behaviour, Shared, SinkSession};
use record::Record;
use stats::Stats;

const HOST_NAME: &str = "sink.localhost";
/// Sessions in the middle of a message may finish at shutdown; held ones are dropped at once.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);
const PROGRESS_PERIOD: Duration = Duration::from_secs(1);

/// How a sink behaves; see [`SinkArgs`] for the meaning of each field.
#[derive(Debug, Clone)]
pub(crate) struct SinkConfig {
    pub(crate) listen: SocketAddr,
    pub(crate) http: Option<SocketAddr>,
    pub(crate) id_header: String,
    pub(crate) latency: Latency,
    pub(crate) replies: ReplyMix,
    pub(crate) starttls: bool,
    pub(crate) record: Option<PathBuf>,
    pub(crate) max_connections: usize,
    pub(crate) allow_public: bool,
}

/// A running sink.
#[derive(Debug)]
pub(crate) struct Sink {
    local_addr: SocketAddr,
    http_addr: Option<SocketAddr>,
    shared: Arc<Shared>,
    tasks: JoinSet<anyhow::Result<()>>,
}

/// Runs a sink until `shutdown`, with a line about its progress on standard error each second.
///
/// # Errors
/// When it cannot listen, or its record cannot be written.
pub(crate) async fn run(config: SinkConfig, shutdown: CancellationToken) -> anyhow::Result<()> {
    let sink = Sink::start(config, shutdown).await?;
    eprintln!("sink: SMTP on {}", sink.local_addr());
    if let Some(http) = sink.http_addr() {
        eprintln!("sink: HTTP on http://{http}/stats");
    }
    let progress = tokio::spawn(report_progress(Arc::clone(&sink.shared)));
    let ended = sink.join().await;
    progress.abort();
    ended
}

impl Sink {
    /// Binds and begins to serve.
    ///
    /// # Errors
    /// When an address is not loopback and that was not allowed, cannot be bound, or the record
    /// cannot be opened.
    pub(crate) async fn start(
        config: SinkConfig,
        shutdown: CancellationToken,
    ) -> anyhow::Result<Self> {
        for address in [Some(config.listen), config.http].into_iter().flatten() {
            ensure!(
                config.allow_public || address.ip().is_loopback(),
                "{address} is not a loopback address: give --allow-public if that is meant"
            );
        }
        let behaviour = Behaviour {
            latency: config.latency,
            replies: Arc::new(config.replies),
            hang: false,
        };
        let shared = Arc::new(Shared {
            stats: Stats::default(),
            behaviour: watch::Sender::new(behaviour),
            record: config.record.as_deref().map(Record::open).transpose()?,
            id_header: config.id_header,
            clock: service::clock::Clock::system(),
            shutdown: shutdown.clone(),
        });
        let mut limits = ListenerConfig::new(HOST_NAME);
        limits.max_connections = config.max_connections;
        limits.shutdown_grace = SHUTDOWN_GRACE;
        if config.starttls {
            limits.tls = Some(server_tls_self_signed(HOST_NAME)?);
        }
        let listener = bind(config.listen).await?;
        let local_addr = listener.local_addr()?;
        let mut tasks = JoinSet::new();
        let mut http_addr = None;
        if let Some(address) = config.http {
            let listener = bind(address).await?;
            http_addr = Some(listener.local_addr()?);
            let shared = Arc::clone(&shared);
            tasks.spawn(async move { Ok(http::serve(listener, shared).await?) });
        }
        let sessions = Arc::clone(&shared);
        tasks.spawn(async move {
            serve(
                listener,
                limits,
                |_| SinkSession::new(Arc::clone(&sessions)),
                shutdown,
            )
            .await;
            Ok(())
        });
        Ok(Self {
            local_addr,
            http_addr,
            shared,
            tasks,
        })
    }

    /// Where it receives SMTP.
    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Where it answers HTTP.
    pub(crate) fn http_addr(&self) -> Option<SocketAddr> {
        self.http_addr
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When a part of it failed.
    pub(crate) async fn join(mut self) -> anyhow::Result<()> {
        while let Some(ended) = self.tasks.join_next().await {
            ended.context("a part of the sink panicked")??;
        }
        Ok(())
    }
}

async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("could not listen on {address}"))
}

async fn report_progress(shared: Arc<Shared>) {
    let mut tick = tokio::time::interval(PROGRESS_PERIOD);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before = StatsSnapshot::default();
    loop {
        tick.tick().await;
        let now = shared.stats.snapshot();
        if now != before {
            eprintln!(
                "sink: {} received (+{}/s), {} distinct, {} duplicates, {} deferred, {} refused, \
                 {} dropped, {} held, {} connections, {:.1} MB",
                now.received,
                now.received - before.received,
                now.distinct,
                now.duplicates,
                now.deferred,
                now.refused,
                now.dropped,
                now.held,
                now.connections,
                now.bytes as f64 / 1e6,
            );
        }
        before = now;
    }
}

#[cfg(test)]
mod tests;
