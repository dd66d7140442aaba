//! A whole platform for one benchmark: private PostgreSQL, Redis if installed, all roles in a
//! process of their own, and an SMTP sink in another, so that each one's cost can be told apart.
//! Everything is in one directory and gone afterwards.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, anyhow};
use api::keys::KeyMode;
use mail::domain_name::DomainName;
use reqwest::Url;
use serde::Deserialize;
use service::config::Config;
use service::pg_cluster::{ClusterOptions, Durability, PgCluster};
use service::redis_server::RedisServer;
use service::shutdown::Shutdown;
use store::Store;
use tempfile::TempDir;
use tokio::io::BufReader;
use tokio::process::{Child, Command};

use super::args::BenchArgs;
use super::content::{Correspondence, ID_HEADER};
use crate::provision::Provisioner;
use crate::wait;
use crate::wiring::{Foundation, secrets};

const DATABASE: &str = "postrider";
const SENDER_DOMAIN: &str = "bench.test";
const RECIPIENT_DOMAIN: &str = "sink.test";
/// Recipient domains; all lead to the one sink.
const RECIPIENT_SUBDOMAINS: u32 = 20;
const READY_PATIENCE: Duration = Duration::from_secs(60);
const STOP_PATIENCE: Duration = Duration::from_secs(30);
const LOG_TAIL_OCTETS: usize = 2_000;

/// A running platform. Dropping it kills what it started.
pub(super) struct OwnPlatform {
    pub(super) url: Url,
    pub(super) key: String,
    /// For the server's own numbers.
    pub(super) store: Store,
    /// One line for every copy the sink took.
    pub(super) record: PathBuf,
    sink_stats: Url,
    serve: Child,
    sink: Child,
    redis: Option<RedisServer>,
    postgres: PgCluster,
    _dir: TempDir,
}

/// The sink's counters we need.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
pub(super) struct SinkStats {
    pub(super) received: u64,
    pub(super) duplicates: u64,
}

/// Process ids by the names they have in the report.
pub(super) type Pids = Vec<(&'static str, u32)>;

impl OwnPlatform {
    /// Starts everything, in about three seconds.
    ///
    /// # Errors
    /// A program is missing or does not start; the end of its log is in the message.
    pub(super) async fn start(args: &BenchArgs) -> anyhow::Result<Self> {
        let dir = work_dir(args.work_dir.as_deref())?;
        let postgres = start_postgres(dir.path().join("postgres")).await?;
        let url = postgres.url(DATABASE);
        Store::migrate(&url)
            .await
            .context("could not migrate the private database")?;
        let redis = match RedisServer::find() {
            Some(_) => Some(RedisServer::start(&dir.path().join("redis"))?),
            None => None,
        };
        let record = dir.path().join("received.jsonl");
        let (sink, smtp, sink_http) = start_sink(args, &record).await?;
        let config_path = dir.path().join("postrider.toml");
        let redis_url = redis.as_ref().map(RedisServer::url);
        let text = configuration(dir.path(), &url, redis_url.as_deref(), smtp, args)?;
        std::fs::write(&config_path, text).context("could not write the configuration")?;
        let config = Config::load(Some(&config_path))?;
        let (store, key) = provision(&config).await?;
        let (serve, api) = start_serve(&config_path, dir.path()).await?;
        Ok(Self {
            url: Url::parse(&format!("http://{api}"))?,
            key,
            store,
            record,
            sink_stats: Url::parse(&format!("http://{sink_http}/stats"))?,
            serve,
            sink,
            redis,
            postgres,
            _dir: dir,
        })
    }

    /// Who the messages are from and to.
    pub(super) fn correspondence() -> Correspondence {
        Correspondence {
            from: format!("bench@{SENDER_DOMAIN}"),
            to_domain: RECIPIENT_DOMAIN.to_owned(),
            subdomains: RECIPIENT_SUBDOMAINS,
        }
    }

    /// What the sink has counted.
    ///
    /// # Errors
    /// The sink does not answer.
    pub(super) async fn sink_stats(&self) -> anyhow::Result<SinkStats> {
        let answer = reqwest::get(self.sink_stats.clone())
            .await
            .context("the sink is gone")?;
        Ok(answer.json().await?)
    }

    /// Where to ask what the sink has counted.
    pub(super) fn sink_stats_url(&self) -> Url {
        self.sink_stats.clone()
    }

    /// The processes whose cost is reported.
    pub(super) fn pids(&self) -> Pids {
        let mut pids = vec![("postgresql", self.postgres.pid())];
        pids.extend(self.serve.id().map(|pid| ("postrider", pid)));
        pids.extend(self.redis.as_ref().map(|redis| ("redis", redis.pid())));
        pids.extend(self.sink.id().map(|pid| ("sink", pid)));
        pids
    }

    /// Stops everything in order.
    ///
    /// # Errors
    /// Something does not stop.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        self.store.close().await;
        wait::stop(&mut self.serve, STOP_PATIENCE).await?;
        wait::stop(&mut self.sink, STOP_PATIENCE).await?;
        let (postgres, redis) = (self.postgres, self.redis);
        tokio::task::spawn_blocking(move || {
            drop(redis);
            postgres.stop()
        })
        .await??;
        Ok(())
    }
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

fn configuration(
    dir: &Path,
    database: &str,
    redis: Option<&str>,
    sink: SocketAddr,
    args: &BenchArgs,
) -> anyhow::Result<String> {
    let (master, verp) = (dir.join("master.key"), dir.join("return-path.key"));
    secrets::ensure_key_file(&master)?;
    secrets::ensure_key_file(&verp)?;
    let quoted = |path: &Path| format!("{:?}", path.display().to_string());
    let redis = redis.map_or_else(String::new, |url| format!("[redis]\nurl = {url:?}\n"));
    Ok(format!(
        r#"[database]
url = {database:?}
{redis}[node]
state_dir = {state_dir}
name = "bench"
[api]
listen = "127.0.0.1:0"
[api.rate_limits]
account_per_second = 0
key_per_second = 0
[metrics]
listen = "127.0.0.1:0"
[sandbox]
listen = "127.0.0.1:0"
[mta]
ehlo = "mta.{SENDER_DOMAIN}"
routes = {{ "*" = "{sink}" }}
max_connections_per_site = {connections}
[return_path]
domain = "bounce.{SENDER_DOMAIN}"
keys_file = {verp}
[secrets]
master_key_file = {master}
[log]
format = "human"
filter = "warn"
"#,
        state_dir = quoted(&dir.join("node")),
        connections = args.connections,
        verp = quoted(&verp),
        master = quoted(&master),
    ))
}

async fn provision(config: &Config) -> anyhow::Result<(Store, String)> {
    let clock = config.open_clock(false)?;
    let foundation = Foundation::lay(config, clock, Shutdown::new()).await?;
    let Foundation {
        store,
        sealer,
        clock,
        ..
    } = foundation;
    let provisioner = Provisioner {
        store: &store,
        sealer: &sealer,
        clock: &clock,
    };
    let account = provisioner.account("bench").await?;
    provisioner
        .domain(account.no, &DomainName::parse(SENDER_DOMAIN)?)
        .await?;
    let key = provisioner.new_key(account.no, KeyMode::Live).await?;
    Ok((store, key))
}

/// The sink, its SMTP and its HTTP address.
async fn start_sink(
    args: &BenchArgs,
    record: &Path,
) -> anyhow::Result<(Child, SocketAddr, SocketAddr)> {
    let mut child = own_program()?
        .args(["sink", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"])
        .args([
            "--id-header",
            ID_HEADER,
            "--latency",
            &args.sink_latency.to_string(),
        ])
        .arg("--record")
        .arg(record)
        .stderr(Stdio::piped())
        .spawn()
        .context("could not start the sink")?;
    let stderr = child
        .stderr
        .take()
        .context("the sink has no standard error")?;
    let mut lines = BufReader::new(stderr);
    let mut smtp = None;
    let read = |line: &str| {
        if let Some(address) = line.strip_prefix("sink: SMTP on ") {
            smtp = address.parse().ok();
        }
        let http = line
            .strip_prefix("sink: HTTP on http://")?
            .strip_suffix("/stats")?;
        Some((smtp?, http.parse().ok()?))
    };
    let (smtp, http) = wait::for_line(&mut lines, READY_PATIENCE, "the sink", read).await?;
    // Its progress lines are ours to report; a full pipe would stop it.
    tokio::spawn(async move { tokio::io::copy(&mut lines, &mut tokio::io::sink()).await });
    Ok((child, smtp, http))
}

async fn start_serve(config: &Path, dir: &Path) -> anyhow::Result<(Child, SocketAddr)> {
    #[derive(Deserialize)]
    struct Ready {
        api: SocketAddr,
    }
    let log_path = dir.join("serve.log");
    let log = std::fs::File::create(&log_path).context("could not make the platform's log")?;
    let mut child = own_program()?
        .arg("serve")
        .arg("--config")
        .arg(config)
        .args(["--roles", "api,mta,worker", "--json"])
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .context("could not start the platform")?;
    let stdout = child
        .stdout
        .take()
        .context("the platform has no standard output")?;
    let mut lines = BufReader::new(stdout);
    let read = |line: &str| serde_json::from_str::<Ready>(line).ok();
    let ready = wait::for_line(&mut lines, READY_PATIENCE, "the platform", read).await;
    let ready = ready.map_err(|error| {
        let log = std::fs::read(&log_path).unwrap_or_default();
        let tail = &log[log.len().saturating_sub(LOG_TAIL_OCTETS)..];
        anyhow!(
            "{error}; the end of its log:\n{}",
            String::from_utf8_lossy(tail)
        )
    })?;
    Ok((child, ready.api))
}

fn own_program() -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("who am I?")?);
    command.stdin(Stdio::null()).kill_on_drop(true);
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command as Task};
    use clap::Parser;

    #[test]
    fn the_written_configuration_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let line = [
            "postrider",
            "bench",
            "--self-contained",
            "--connections",
            "7",
        ];
        let Task::Bench(args) = Cli::try_parse_from(line).unwrap().command else {
            panic!()
        };
        let sink = "127.0.0.1:2525".parse().unwrap();
        let url = "postgres://postgres@%2Frun%2Fpr-1:5432/postrider";
        let redis = Some("redis+unix:///run/r.sock");
        let text = configuration(dir.path(), url, redis, sink, &args).unwrap();
        let path = dir.path().join("postrider.toml");
        std::fs::write(&path, text).unwrap();
        let config = Config::check(Some(&path), false).unwrap();
        assert_eq!(config.database.url.with_password(), url);
        assert_eq!(config.mta.max_connections_per_site.get(), 7);
        let limits = &config.api.rate_limits;
        assert_eq!((limits.account_per_second, limits.key_per_second), (0, 0));
        assert!(config.redis.url.is_some());
    }
}
