//! Opens a connection to one of a route's hosts.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use mail::judge::{Failure, Outcome, Stage, judge_failure};

use super::outcome::judge;
use crate::lanes::Path;
use crate::node::Node;
use crate::routing::{Route, RouteFailure, RouteHost};
use crate::smtp::{ConnectConfig, Connection, SmtpFailure, TlsMode};

/// Addresses tried for one connection at most (RFC 5321 section 5.1 asks for two at least).
const ADDRESSES_MAX: usize = 5;

/// An open connection and where it leads.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) connection: Connection,
    pub(crate) mx: String,
    /// TLS with a verified name: fit for mail that requires it.
    pub(crate) verified: bool,
}

/// Why there is no connection.
#[derive(Debug)]
pub(crate) enum NoLine {
    Route(RouteFailure),
    Smtp(SmtpFailure, String),
}

impl NoLine {
    /// The domain itself refuses (RFC 7504): no other host will do better.
    fn is_final(&self) -> bool {
        matches!(self, Self::Smtp(failure, _) if matches!(judge(failure), Outcome::Bounced { .. }))
    }

    pub(crate) fn outcome(&self) -> Outcome {
        match self {
            Self::Route(failure) => judge_failure(Stage::Resolve, failure.failure),
            Self::Smtp(failure, _) => judge(failure),
        }
    }
}

/// Tries the hosts by preference until one greets us; those that were silent lately come last.
pub(crate) async fn connect(node: &Node, path: &Path, verified: bool) -> Result<Line, NoLine> {
    let route = path.route();
    let mut tried = 0;
    let mut last = None;
    let mut silent = Vec::new();
    for host in route.order(rand::random()) {
        let addresses = match node.router.addresses(host).await {
            Ok(addresses) => addresses,
            Err(failure) => {
                last = Some(weightier(last, failure));
                continue;
            }
        };
        for address in addresses {
            let (source, now) = (path.source.address, Instant::now());
            if node.silent_hosts.holds(source, address, now) {
                silent.push((host, address));
                continue;
            }
            if tried == ADDRESSES_MAX {
                break;
            }
            tried += 1;
            match call(node, path, verified, host, address).await {
                Ok(line) => return Ok(line),
                Err(failure) if failure.is_final() => return Err(failure),
                Err(failure) => last = Some(failure),
            }
        }
    }
    for (host, address) in silent.into_iter().take(ADDRESSES_MAX - tried) {
        match call(node, path, verified, host, address).await {
            Ok(line) => return Ok(line),
            Err(failure) if failure.is_final() => return Err(failure),
            Err(failure) => last = Some(failure),
        }
    }
    Err(last.unwrap_or_else(|| NoLine::Route(no_hosts(&route))))
}

/// One address.
async fn call(
    node: &Node,
    path: &Path,
    verified: bool,
    host: &RouteHost,
    address: SocketAddr,
) -> Result<Line, NoLine> {
    let source = path.source.address;
    let config = ConnectConfig {
        remote: address,
        host_name: host.name.clone(),
        source,
        ehlo: path.source.ehlo.clone(),
        tls: node.tls_mode(verified),
        deadlines: node.config.deadlines,
    };
    let opened = open(config).await;
    let failure = opened.as_ref().err();
    node.silent_hosts
        .note(source, address, failure, Instant::now());
    match opened {
        Ok(connection) => Ok(Line {
            connection,
            mx: host.name.clone(),
            verified,
        }),
        Err(failure) => Err(NoLine::Smtp(failure, host.name.clone())),
    }
}

/// Opportunistic TLS that cannot be set up is tried once more in clear: encryption was a bonus.
async fn open(config: ConnectConfig) -> Result<Connection, SmtpFailure> {
    match Connection::open(&config).await {
        Err(failure) if failure.retry_in_clear => {
            Connection::open(&ConnectConfig {
                tls: TlsMode::Clear,
                ..config
            })
            .await
        }
        result => result,
    }
}

/// One host that cannot be looked up proves nothing about the others, so trouble that may pass
/// outweighs a host that is not there, and what a server said outweighs both.
fn weightier(last: Option<NoLine>, failure: RouteFailure) -> NoLine {
    match last {
        Some(NoLine::Route(earlier)) if failure.failure != Failure::DnsTrouble => {
            NoLine::Route(earlier)
        }
        Some(said @ NoLine::Smtp(..)) => said,
        _ => NoLine::Route(failure),
    }
}

fn no_hosts(route: &Arc<Route>) -> RouteFailure {
    RouteFailure {
        failure: Failure::DnsTrouble,
        detail: format!("no host of {} has a usable address", route.site),
    }
}
