//! A whole platform for one benchmark: private PostgreSQL, Redis if installed, all roles in a
//! process of their own, and an SMTP sink in another, so that each one's cost can be told apart.
//! Everything is in one directory and gone afterwards.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use reqwest::Url;
use service::config::Config;
use service::pg_cluster::{ClusterOptions, Durability, PgCluster};
use service::redis_server::RedisServer;
use store::Store;
use tempfile::TempDir;
use tokio::process::Child;

use super::children::{SinkProcess, SinkWatch, log_tail, start_serve};
use super::connection::{Authorization, Target};
use super::own_config::{Provisioned, Surroundings, provision};
use crate::wait;

const DATABASE: &str = "postrider";
const LOG: &str = "serve.log";
const STOP_PATIENCE: Duration = Duration::from_secs(30);
/// Names in the report.
pub(super) const POSTRIDER: &str = "postrider";
pub(super) const POSTGRESQL: &str = "postgresql";
pub(super) const REDIS: &str = "redis";
pub(super) const SINK: &str = "sink";
pub(super) const WEBHOOKS: &str = "webhook receiver";

/// What kind of platform to start.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    /// Where its directory is made; none: the system's temporary directory.
    pub(super) work_dir: Option<PathBuf>,
    /// Connections to the sink at most.
    pub(super) connections: u32,
    /// Options of `postrider sink`.
    pub(super) sink_options: Vec<String>,
    /// Roles of the platform, as `postrider serve` takes them.
    pub(super) roles: &'static str,
    /// Whether somebody is told of what is delivered.
    pub(super) webhook: bool,
    /// Accounts beside the one that is always there.
    pub(super) accounts: u32,
    /// Domains that have a mail host of their own.
    pub(super) receivers: Vec<Receiver>,
}

/// A sink for one domain.
#[derive(Debug, Clone)]
pub(super) struct Receiver {
    pub(super) domain: &'static str,
    /// Options of `postrider sink`.
    pub(super) options: Vec<String>,
}

/// Every role.
pub(super) const ALL_ROLES: &str = "api,mta,worker";
/// Everything but sending: what is accepted stays.
pub(super) const NO_SENDING: &str = "api,worker";

/// A running platform. Dropping it kills what it started.
pub(super) struct OwnPlatform {
    pub(super) url: Url,
    pub(super) key: Authorization,
    /// Of the other accounts.
    pub(super) account_keys: Vec<Authorization>,
    /// For the server's own numbers.
    pub(super) store: Store,
    /// One line for every copy the sink took.
    pub(super) record: PathBuf,
    roles: &'static str,
    serve: Child,
    sink: SinkProcess,
    receivers: Vec<SinkProcess>,
    webhooks: Option<SinkProcess>,
    redis: Option<RedisServer>,
    postgres: PgCluster,
    dir: TempDir,
}

/// Process ids by the names they have in the report.
pub(super) type Pids = Vec<(&'static str, u32)>;

impl OwnPlatform {
    /// Starts everything, in about three seconds.
    ///
    /// # Errors
    /// A program is missing or does not start; the end of its log is in the message.
    pub(super) async fn start(plan: &Plan) -> anyhow::Result<Self> {
        let dir = work_dir(plan.work_dir.as_deref())?;
        let postgres = start_postgres(dir.path().join("postgres")).await?;
        let database_url = postgres.url(DATABASE);
        Store::migrate(&database_url)
            .await
            .context("could not migrate the private database")?;
        let redis = match RedisServer::find() {
            Some(_) => Some(RedisServer::start(&dir.path().join("redis"))?),
            None => None,
        };
        let record = dir.path().join("received.jsonl");
        let mut sink_options = plan.sink_options.clone();
        let record_path = record.display().to_string();
        sink_options.extend(["--record", &record_path, "--gather-record"].map(str::to_owned));
        let sink = SinkProcess::start(&sink_options).await?;
        let webhooks = match plan.webhook {
            true => Some(SinkProcess::start(&[]).await?),
            false => None,
        };
        let mut routes = vec![("*", sink.smtp)];
        let mut receivers = Vec::new();
        for receiver in &plan.receivers {
            let own = SinkProcess::start(&receiver.options).await?;
            routes.push((receiver.domain, own.smtp));
            receivers.push(own);
        }
        let redis_url = redis.as_ref().map(RedisServer::url);
        let around = Surroundings {
            dir: dir.path(),
            database: &database_url,
            redis: redis_url.as_deref(),
            routes: &routes,
            connections: plan.connections,
        };
        let config_path = config_path(dir.path());
        std::fs::write(&config_path, around.configuration()?)
            .context("could not write the configuration")?;
        let config = Config::load(Some(&config_path))?;
        let Provisioned { store, key, others } = provision(&config, plan.accounts).await?;
        let (serve, url) = serve(dir.path(), plan.roles).await?;
        Ok(Self {
            url,
            key,
            account_keys: others,
            roles: plan.roles,
            store,
            record,
            serve,
            sink,
            receivers,
            webhooks,
            redis,
            postgres,
            dir,
        })
    }

    /// The interface.
    ///
    /// # Errors
    /// Never, with a URL that we made.
    pub(super) fn target(&self) -> anyhow::Result<Target> {
        Target::new(&self.url)
    }

    /// What it plays now.
    pub(super) fn roles(&self) -> &'static str {
        self.roles
    }

    /// Stops it in order and starts it with these roles.
    ///
    /// # Errors
    /// It does not stop or start.
    pub(super) async fn restart(&mut self, roles: &'static str) -> anyhow::Result<()> {
        wait::stop(&mut self.serve, STOP_PATIENCE).await?;
        self.start_again(roles).await
    }

    /// Kills it where it stands.
    ///
    /// # Errors
    /// The system refuses.
    pub(super) async fn kill(&mut self) -> anyhow::Result<()> {
        self.serve
            .kill()
            .await
            .context("could not kill the platform")
    }

    /// Starts it after it has ended. Its interface is elsewhere then.
    ///
    /// # Errors
    /// It does not start.
    pub(super) async fn start_again(&mut self, roles: &'static str) -> anyhow::Result<()> {
        (self.serve, self.url) = serve(self.dir.path(), roles).await?;
        self.roles = roles;
        Ok(())
    }

    /// Asks the sink what it has counted.
    ///
    /// # Errors
    /// Never, with a URL that the sink printed.
    pub(super) fn watch_sink(&self) -> anyhow::Result<SinkWatch> {
        self.sink.watch()
    }

    /// The same of the receiver of webhooks; none if there is none.
    ///
    /// # Errors
    /// Never, with a URL that it printed.
    pub(super) fn watch_webhooks(&self) -> anyhow::Result<Option<SinkWatch>> {
        self.webhooks.as_ref().map(SinkProcess::watch).transpose()
    }

    /// Where webhooks are to call, if they are received.
    pub(super) fn webhook_url(&self) -> Option<String> {
        let http = &self.webhooks.as_ref()?.http;
        Some(format!("{}webhooks", http.as_str()))
    }

    /// Starts one more process that only takes mail in; where it does so.
    ///
    /// # Errors
    /// It does not start.
    pub(super) async fn start_interface(&self) -> anyhow::Result<(Child, SocketAddr)> {
        let dir = self.dir.path();
        start_serve(&config_path(dir), &dir.join("interfaces.log"), "api").await
    }

    pub(super) fn postgres_pid(&self) -> u32 {
        self.postgres.pid()
    }

    /// The processes whose cost is reported.
    pub(super) fn pids(&self) -> Pids {
        let redis = self.redis.as_ref().map(|redis| (REDIS, redis.pid()));
        let webhooks = self.webhooks.as_ref().and_then(|sink| sink.child.id());
        let mut pids = vec![(POSTGRESQL, self.postgres.pid())];
        pids.extend(self.serve.id().map(|pid| (POSTRIDER, pid)));
        pids.extend(redis);
        pids.extend(self.sink.child.id().map(|pid| (SINK, pid)));
        pids.extend(webhooks.map(|pid| (WEBHOOKS, pid)));
        pids
    }

    /// Stops everything in order.
    ///
    /// # Errors
    /// Something does not stop.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        self.store.close().await;
        if let Ok(Some(status)) = self.serve.try_wait() {
            let log = log_tail(&self.dir.path().join(LOG));
            eprintln!("bench: the platform ended by itself ({status}); the end of its log:\n{log}");
        }
        wait::stop(&mut self.serve, STOP_PATIENCE).await?;
        let mut sinks = vec![self.sink];
        sinks.extend(self.receivers);
        sinks.extend(self.webhooks);
        for sink in &mut sinks {
            wait::stop(&mut sink.child, STOP_PATIENCE).await?;
        }
        let (postgres, redis) = (self.postgres, self.redis);
        tokio::task::spawn_blocking(move || {
            drop(redis);
            postgres.stop()
        })
        .await??;
        Ok(())
    }
}

fn config_path(dir: &Path) -> PathBuf {
    dir.join("postrider.toml")
}

async fn serve(dir: &Path, roles: &str) -> anyhow::Result<(Child, Url)> {
    let (serve, api) = start_serve(&config_path(dir), &dir.join(LOG), roles).await?;
    Ok((serve, Url::parse(&format!("http://{api}"))?))
}

/// Others may pass through: as root, PostgreSQL runs as another user.
fn work_dir(parent: Option<&Path>) -> anyhow::Result<TempDir> {
    let system = std::env::temp_dir();
    let parent = parent.unwrap_or(&system);
    tempfile::Builder::new()
        .prefix("postrider-bench-")
        .permissions(std::fs::Permissions::from_mode(0o711))
        .tempdir_in(parent)
        .with_context(|| format!("could not make a directory in {}", parent.display()))
}

async fn start_postgres(base_dir: PathBuf) -> anyhow::Result<PgCluster> {
    let start = move || {
        let options = ClusterOptions {
            base_dir,
            durability: Durability::Durable,
            bin_dir: None,
        };
        let cluster = PgCluster::start(options)?;
        cluster.create_database(DATABASE)?;
        Ok::<_, service::pg_cluster::PgError>(cluster)
    };
    Ok(tokio::task::spawn_blocking(start).await??)
}
