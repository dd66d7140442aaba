//! The programs a benchmark starts: the sink, the receiver of webhooks and the platform itself,
//! each a process of its own so that its cost can be told apart. Killed when they are dropped.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, anyhow};
use hyper::Uri;
use reqwest::Url;
use serde::Deserialize;
use tokio::io::BufReader;
use tokio::process::{Child, Command};

use super::connection::{Connection, Target};
use super::content::ID_HEADER;
use crate::wait;

const READY_PATIENCE: Duration = Duration::from_secs(60);
const LOG_TAIL_OCTETS: usize = 2_000;

/// A running sink.
pub(super) struct SinkProcess {
    pub(super) child: Child,
    pub(super) smtp: SocketAddr,
    /// Base URL of its HTTP side.
    pub(super) http: Url,
}

impl SinkProcess {
    /// Starts one on free ports; `options` are those of `postrider sink`.
    ///
    /// # Errors
    /// It does not start.
    pub(super) async fn start(options: &[String]) -> anyhow::Result<Self> {
        let mut child = own_program()?
            .args(["sink", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"])
            .args(["--id-header", ID_HEADER])
            .args(options)
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
                .strip_prefix("sink: HTTP on ")?
                .strip_suffix("/stats")?;
            Some((smtp?, Url::parse(http).ok()?))
        };
        let (smtp, http) = wait::for_line(&mut lines, READY_PATIENCE, "the sink", read).await?;
        // Its progress lines are ours to report; a full pipe would stop it.
        tokio::spawn(async move { tokio::io::copy(&mut lines, &mut tokio::io::sink()).await });
        Ok(Self { child, smtp, http })
    }

    /// Asks it what it has counted.
    ///
    /// # Errors
    /// Never, with a URL that it printed.
    pub(super) fn watch(&self) -> anyhow::Result<SinkWatch> {
        let target = Target::new(&self.http)?;
        let (stats, series) = (target.path("/stats")?, target.path("/series")?);
        Ok(SinkWatch {
            connection: Connection::new(target),
            stats,
            series,
        })
    }
}

/// The sink's counters we need.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
pub(super) struct SinkStats {
    pub(super) received: u64,
    pub(super) without_id: u64,
    pub(super) webhook_calls: u64,
}

/// Asks a sink what it has counted.
pub(super) struct SinkWatch {
    connection: Connection,
    stats: Uri,
    series: Uri,
}

impl SinkWatch {
    /// # Errors
    /// The sink does not answer.
    pub(super) async fn stats(&mut self) -> anyhow::Result<SinkStats> {
        let answer = self.connection.get(&self.stats).await;
        answer.context("the sink is gone")
    }

    /// How many different messages of a series have come.
    ///
    /// # Errors
    /// The sink does not answer.
    pub(super) async fn came(&mut self, series: &str) -> anyhow::Result<u64> {
        #[derive(Deserialize)]
        struct Series {
            came: u64,
        }
        let answer = self.connection.get(&self.series).await;
        let all: HashMap<String, Series> = answer.context("the sink is gone")?;
        Ok(all.get(series).map_or(0, |series| series.came))
    }
}

/// Starts the platform with these roles; its process and where its interface listens.
///
/// # Errors
/// It does not start; the end of its log is in the message.
pub(super) async fn start_serve(
    config: &Path,
    log_path: &Path,
    roles: &str,
) -> anyhow::Result<(Child, SocketAddr)> {
    #[derive(Deserialize)]
    struct Ready {
        api: SocketAddr,
    }
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(log_path)
        .context("could not make the platform's log")?;
    let mut child = own_program()?
        .arg("serve")
        .arg("--config")
        .arg(config)
        .args(["--roles", roles, "--json"])
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
    let ready =
        ready.map_err(|error| anyhow!("{error}; the end of its log:\n{}", log_tail(log_path)))?;
    Ok((child, ready.api))
}

/// The end of a log.
pub(super) fn log_tail(path: &Path) -> String {
    let log = std::fs::read(path).unwrap_or_default();
    let tail = &log[log.len().saturating_sub(LOG_TAIL_OCTETS)..];
    String::from_utf8_lossy(tail).into_owned()
}

fn own_program() -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("who am I?")?);
    command.stdin(Stdio::null()).kill_on_drop(true);
    Ok(command)
}
