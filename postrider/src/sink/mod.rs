//! The SMTP sink: receives mail for capacity tests, counts it and throws it away.
//! Must not deliver, keep or forward anything, and must not listen publicly by default.

mod args;
mod behaviour;
mod content;
mod http;
mod latency;
mod record;
mod reply_mix;
mod sequence;
mod server;
mod session;
mod shared;
mod stats;
mod wire;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use mta::listener::server_tls_self_signed;
use service::shutdown::Shutdown;
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

pub(crate) use args::SinkArgs;
pub(crate) use latency::Latency;
pub(crate) use stats::StatsSnapshot;

use behaviour::Behaviours;
use record::Record;
use shared::Shared;
use stats::Stats;

const HOST_NAME: &str = "sink.localhost";
const PROGRESS_PERIOD: Duration = Duration::from_secs(1);
/// How often a gathered record is written.
const RECORD_PERIOD: Duration = Duration::from_millis(100);

/// How a sink behaves; see [`SinkArgs`] for the meaning of each field.
#[derive(Debug, Clone)]
pub(crate) struct SinkConfig {
    pub(crate) listen: SocketAddr,
    pub(crate) http: Option<SocketAddr>,
    pub(crate) id_header: String,
    pub(crate) behaviours: Behaviours,
    pub(crate) starttls: bool,
    pub(crate) record: Option<PathBuf>,
    pub(crate) gather_record: bool,
    pub(crate) max_connections: usize,
    pub(crate) allow_public: bool,
}

/// A running sink.
pub(crate) struct Sink {
    local_addr: SocketAddr,
    http_addr: Option<SocketAddr>,
    shared: Arc<Shared>,
    tasks: JoinSet<anyhow::Result<()>>,
}

/// Runs a sink until a signal, with a line about its progress on standard error each second. On a
/// runtime of its own: with one thread no work is ever handed from one to another, which would cost
/// more than the work itself.
///
/// # Errors
/// When it cannot listen, or its record cannot be written.
pub(crate) fn run(args: SinkArgs) -> anyhow::Result<()> {
    let runtime = match args.threads.get() {
        1 => Builder::new_current_thread().enable_all().build()?,
        threads => Builder::new_multi_thread()
            .worker_threads(threads)
            .enable_all()
            .build()?,
    };
    let ended = runtime.block_on(async {
        let shutdown = Shutdown::new();
        shutdown.follow_signals()?;
        serve(args.into(), shutdown.token()).await
    });
    runtime.shutdown_background();
    ended
}

async fn serve(config: SinkConfig, shutdown: CancellationToken) -> anyhow::Result<()> {
    let sink = Sink::start(config, shutdown).await?;
    eprintln!("sink: SMTP on {}", sink.local_addr);
    if let Some(http) = sink.http_addr {
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
        let gathers = config.gather_record;
        let record = config.record.as_deref();
        let tls = config.starttls.then(|| server_tls_self_signed(HOST_NAME));
        let shared = Arc::new(Shared {
            stats: Stats::default(),
            behaviours: watch::Sender::new(Arc::new(config.behaviours)),
            record: record.map(|path| Record::open(path, gathers)).transpose()?,
            id_header: config.id_header,
            host_name: HOST_NAME,
            tls: tls.transpose()?,
            clock: service::clock::Clock::system(),
            shutdown,
        });
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
        if gathers {
            tasks.spawn(write_record(Arc::clone(&shared)));
        }
        let sessions = Arc::clone(&shared);
        tasks.spawn(async move {
            server::serve(listener, config.max_connections, sessions).await;
            Ok(())
        });
        Ok(Self {
            local_addr,
            http_addr,
            shared,
            tasks,
        })
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When a part of it failed.
    pub(crate) async fn join(mut self) -> anyhow::Result<()> {
        while let Some(ended) = self.tasks.join_next().await {
            ended.context("a part of the sink panicked")??;
        }
        // What the last sessions brought.
        let _logged = self.shared.flush_record();
        Ok(())
    }
}

async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("could not listen on {address}"))
}

async fn write_record(shared: Arc<Shared>) -> anyhow::Result<()> {
    let mut tick = tokio::time::interval(RECORD_PERIOD);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = shared.shutdown.cancelled() => return Ok(()),
        }
        if shared.flush_record().is_err() {
            return Ok(());
        }
    }
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
                "sink: {} received (+{}/s), {} distinct, {} duplicates, {} missing, {} deferred, \
                 {} refused, {} dropped, {} held, {} connections, {:.1} MB",
                now.received,
                now.received - before.received,
                now.distinct,
                now.duplicates,
                now.missing,
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
