//! A running process: its roles, and the order in which they start and end. The API ends first and
//! with it the acceptor's work; the sandbox outlives the MTA that talks to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, anyhow};
use api::{ApiMetrics, AppParts, AppState, Callers};
use mail::domain_name::DomainName;
use mail::ids::NodeId;
use mta::sandbox::{self, SandboxConfig};
use mta::state_dir::StateDir;
use mta::{Dependencies, Mta};
use service::config::Config;
use service::health::{self, Check};
use service::shutdown::Shutdown;
use store::{Acceptor, RateLimitStore, RedisHints, RedisWake, Store};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use worker::WorkerConfig;

use super::Foundation;
use super::hints::{AcceptMetrics, Hints};
use super::listeners::{Addresses, Listeners};
use super::settings::{self, Surroundings};
use crate::cli::Role;

/// How long what serves the roles may take to end after them.
const SUPPORT_PATIENCE: Duration = Duration::from_secs(5);
/// The worker's identity lives in the node's state directory, in a directory of its own: the
/// other is locked by the MTA.
const WORKER_DIR: &str = "worker";

/// Newest messages that the sandbox shows.
const SANDBOX_KEPT: usize = 1_000;

/// What a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Roles {
    pub(crate) api: bool,
    pub(crate) mta: bool,
    pub(crate) worker: bool,
}

impl Roles {
    /// All of them.
    pub(crate) const ALL: Self = Self {
        api: true,
        mta: true,
        worker: true,
    };

    /// Those named.
    pub(crate) fn of(named: &[Role]) -> Self {
        let has = |role| named.contains(&role);
        Self {
            api: has(Role::Api),
            mta: has(Role::Mta),
            worker: has(Role::Worker),
        }
    }
}

/// The roles at work, by name.
type Running = JoinSet<(&'static str, anyhow::Result<()>)>;

/// A process at work.
pub(crate) struct Platform {
    addresses: Addresses,
    roles: Running,
    shutdown: Shutdown,
    /// Ends after the roles: sandbox, metrics, acceptor.
    support: Shutdown,
    acceptor: Option<Acceptor>,
    store: Store,
    /// The worker's identity, locked for as long as anything here is at work: a process that
    /// took it over earlier would hold the same leases as this one.
    worker_state: Option<StateDir>,
}

impl Platform {
    /// Starts the roles on ports that are bound already.
    ///
    /// # Errors
    /// A role cannot start; nothing is left running.
    pub(crate) async fn start(
        config: &Config,
        roles: Roles,
        around: &Surroundings,
        foundation: Foundation,
        listeners: Listeners,
    ) -> anyhow::Result<Self> {
        let addresses = listeners.addresses()?;
        let support = Shutdown::new();
        let wake = redis(config)?;
        let events_committed = Arc::new(Notify::new());
        let mut running = JoinSet::new();
        let mut checks = vec![database_check(&foundation.store)];

        let mut local = None;
        if roles.mta {
            let mut mta_config = settings::mta(config, around, addresses.sandbox_smtp)?;
            for source in &mut mta_config.sources {
                source.number = foundation
                    .store
                    .register_source(source.address, &source.ehlo)
                    .await?;
            }
            let mta = Mta::open(
                mta_config,
                dependencies(&foundation, wake.clone(), events_committed.clone()),
            )?;
            local = Some(mta.hints());
            checks.push(spawn_mta(&mut running, mta));
        }
        if let Some(listener) = listeners.sandbox {
            spawn_sandbox(config, listener, &foundation, &support)?;
        }
        let mut worker_state = None;
        if roles.worker {
            let state = worker_state_dir(config, &foundation)?;
            let settings =
                worker_config(config, around, state.node_id(), events_committed.clone())?;
            spawn_worker(&mut running, settings, &foundation);
            worker_state = Some(state);
        }
        let mut acceptor = None;
        if let Some(listener) = listeners.api {
            let hints = Hints {
                local,
                redis: wake.map(RedisHints::new),
                events_committed,
            };
            let state = app_state(config, around, &foundation, hints, &support)?;
            acceptor = Some(state.acceptor.clone());
            let work = api::run(state, listener, foundation.shutdown.clone());
            running.spawn(async {
                work.await;
                ("api", Ok(()))
            });
        }
        spawn_operator_addresses(listeners.metrics, &foundation, checks, &support);
        let Foundation {
            store, shutdown, ..
        } = foundation;
        Ok(Self {
            addresses,
            roles: running,
            shutdown,
            support,
            acceptor,
            store,
            worker_state,
        })
    }

    /// Where it listens.
    pub(crate) fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Waits for the stop, then for everything under way.
    ///
    /// # Errors
    /// A role failed or ended by itself; the others were then stopped in order.
    pub(crate) async fn finish(mut self) -> anyhow::Result<()> {
        let mut result = Ok(());
        while let Some(ended) = self.roles.join_next().await {
            let failure = match ended {
                Ok((name, Err(error))) => Some(error.context(format!("the role {name} failed"))),
                Ok((name, Ok(()))) if !self.shutdown.is_requested() => {
                    Some(anyhow!("the role {name} ended by itself"))
                }
                Ok((name, Ok(()))) => {
                    tracing::debug!(role = name, "ended");
                    None
                }
                Err(panicked) => Some(anyhow::Error::new(panicked).context("a role broke down")),
            };
            if let Some(failure) = failure {
                tracing::error!(error = format!("{failure:#}"), "stopping the other roles");
                result = result.and(Err(failure));
                self.shutdown.request();
            }
        }
        self.support.request();
        if let Some(acceptor) = &self.acceptor {
            // Requests have been answered or have given up; their commits may still be under way.
            let _ended_or_out_of_patience =
                tokio::time::timeout(SUPPORT_PATIENCE, acceptor.drained()).await;
        }
        self.support.drain(SUPPORT_PATIENCE).await;
        let _closed_or_out_of_patience =
            tokio::time::timeout(SUPPORT_PATIENCE, self.store.close()).await;
        drop(self.worker_state);
        result
    }
}

fn redis(config: &Config) -> anyhow::Result<Option<RedisWake>> {
    let Some(url) = &config.redis.url else {
        return Ok(None);
    };
    RedisWake::connect(url.with_password())
        .map(Some)
        .with_context(|| format!("[redis] url {url} cannot be used"))
}

/// The limits that nodes share, where there is Redis to share them in.
fn shared_limits(config: &Config) -> anyhow::Result<Option<RateLimitStore>> {
    let Some(url) = &config.redis.url else {
        return Ok(None);
    };
    RateLimitStore::connect(url.with_password())
        .map(Some)
        .with_context(|| format!("[redis] url {url} cannot be used"))
}

fn dependencies(
    foundation: &Foundation,
    wake: Option<RedisWake>,
    events_committed: Arc<Notify>,
) -> Dependencies {
    Dependencies {
        store: foundation.store.clone(),
        sealer: foundation.sealer.clone(),
        clock: foundation.clock.clone(),
        metrics: foundation.metrics.clone(),
        shutdown: foundation.shutdown.clone(),
        wake,
        events_committed,
    }
}

/// Runs the MTA; the check says whether it still does.
fn spawn_mta(running: &mut Running, mta: Mta) -> Check {
    let up = Arc::new(AtomicBool::new(true));
    let ended = up.clone();
    running.spawn(async move {
        mta.run().await;
        ended.store(false, Ordering::Relaxed);
        ("mta", Ok(()))
    });
    Check::new("mta", move || {
        let up = up.load(Ordering::Relaxed);
        async move {
            if up {
                Ok(())
            } else {
                Err("has ended".to_owned())
            }
        }
    })
}

fn spawn_sandbox(
    config: &Config,
    listener: TcpListener,
    foundation: &Foundation,
    support: &Shutdown,
) -> anyhow::Result<()> {
    let sandbox = SandboxConfig {
        host_name: format!("mx.{}", config.sandbox.domain),
        domain: DomainName::parse(&config.sandbox.domain.to_string())
            .context("[sandbox] domain cannot be used")?,
        reports_to: config.sandbox.reports_to,
        // Mail of test keys comes here, whoever it is for.
        domains: None,
        keep: SANDBOX_KEPT,
    };
    let Foundation { store, clock, .. } = foundation;
    let work = sandbox::run(
        listener,
        sandbox,
        store.clone(),
        clock.clone(),
        support.clone(),
    );
    support.spawn(async {
        if let Err(error) = work.await {
            tracing::error!(%error, "the sandbox ended");
        }
    });
    Ok(())
}

fn spawn_worker(running: &mut Running, settings: WorkerConfig, foundation: &Foundation) {
    let Foundation {
        store,
        sealer,
        clock,
        metrics,
        shutdown,
    } = foundation;
    let work = worker::run(
        settings,
        store.clone(),
        sealer.as_ref().clone(),
        clock.clone(),
        metrics.clone(),
        shutdown.clone(),
    );
    running.spawn(async { ("worker", work.await.map_err(Into::into)) });
}

fn worker_config(
    config: &Config,
    around: &Surroundings,
    node: NodeId,
    events_committed: Arc<Notify>,
) -> anyhow::Result<WorkerConfig> {
    Ok(WorkerConfig {
        node,
        name: settings::node_name(config),
        max_webhook_calls: config.worker.max_webhook_calls,
        webhook_allowed_networks: config.worker.webhook_allowed_networks.clone(),
        resolver: settings::resolver(config, around)?,
        return_path_domain: settings::return_path_domain(config),
        webhook_ports: config.worker.webhook_ports.clone(),
        events_committed,
    })
}

/// The worker's identity, locked until it is dropped.
fn worker_state_dir(config: &Config, foundation: &Foundation) -> anyhow::Result<StateDir> {
    let dir = config.node.state_dir.join(WORKER_DIR);
    let state = StateDir::open(&dir, foundation.clock.now(), rand::random())?;
    Ok(state)
}

fn app_state(
    config: &Config,
    around: &Surroundings,
    foundation: &Foundation,
    hints: Hints,
    support: &Shutdown,
) -> anyhow::Result<AppState> {
    let clock = foundation.clock.clone();
    let acceptor = Acceptor::start(
        foundation.store.clone(),
        Arc::new(move || clock.now()),
        Arc::new(hints),
        Arc::new(AcceptMetrics::register(&foundation.metrics)?),
        support.token(),
    );
    let settings = settings::api(config, around);
    let callers = Callers::new(&settings.rate_limits, shared_limits(config)?);
    Ok(AppState::from(AppParts {
        store: foundation.store.clone(),
        acceptor,
        callers,
        sealer: foundation.sealer.clone(),
        resolver: settings::resolver(config, around)?,
        key_maker: api::KeyMaker::default(),
        clock: foundation.clock.clone(),
        config: Arc::new(settings),
        metrics: ApiMetrics::register(&foundation.metrics)?,
        registry: foundation.metrics.clone(),
    }))
}

fn spawn_operator_addresses(
    listener: TcpListener,
    foundation: &Foundation,
    checks: Vec<Check>,
    support: &Shutdown,
) {
    let router = health::router(foundation.metrics.clone(), checks);
    let stop = support.token();
    support.spawn(async move {
        let served = axum::serve(listener, router)
            .with_graceful_shutdown(stop.cancelled_owned())
            .await;
        if let Err(error) = served {
            tracing::error!(%error, "metrics and health are not answered any more");
        }
    });
}

fn database_check(store: &Store) -> Check {
    let store = store.clone();
    Check::new("postgresql", move || {
        let store = store.clone();
        async move { store.ping().await.map_err(|error| error.to_string()) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_roles_are_played_and_no_others() {
        let roles = Roles::of(&[Role::Worker, Role::Mta]);
        assert_eq!(
            roles,
            Roles {
                api: false,
                mta: true,
                worker: true
            }
        );
        assert_eq!(Roles::of(&[Role::Api, Role::Mta, Role::Worker]), Roles::ALL);
    }
}
