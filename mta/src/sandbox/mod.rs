//! The sandbox MX: takes all mail for its domains, shows it to people, and behaves like receivers
//! of many kinds by the recipient (see `behaviour`).
//!
//! Forwards nothing and asks no DNS: what it verifies, it verifies with the DKIM keys that the
//! platform itself would publish. All it sends are reports about mail it took, to one server.

mod auth_results;
mod behaviour;
mod greylist;
mod handler;
mod report;
mod reporter;
mod verify;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use hickory_resolver::net::NetError;
use mail::domain_name::DomainName;
use service::clock::Clock;
use service::shutdown::Shutdown;
use store::Store;
use thiserror::Error;
use tokio::net::TcpListener;

use crate::listener::{ListenerConfig, ServerTlsError, serve, server_tls_self_signed};
use handler::{Sandbox, SandboxHandler};
use reporter::reporter;

/// Connections at once: each may hold a message of 50 MB in memory.
const CONNECTIONS_MAX: usize = 256;

/// What the sandbox is called and for whom it takes mail.
#[derive(Debug, Clone)]
pub struct SandboxConfig {
    /// The name in the greeting, the certificate and the Authentication-Results.
    pub host_name: String,
    /// Its own domain: mail for the domain `unknown.<domain>` is treated as that for `unknown@`.
    pub domain: DomainName,
    /// The SMTP server that gets the reports of `bounce-later` and `complaint`; `None` is the
    /// sandbox itself, which shows them beside the mail they are about.
    pub reports_to: Option<SocketAddr>,
    /// The recipient domains; `None` takes every domain, as test keys need it, whose mail all
    /// comes here.
    pub domains: Option<Vec<DomainName>>,
    /// Messages that are kept, the newest; older ones go within about a second.
    pub keep: usize,
}

/// Why the sandbox cannot run.
#[derive(Debug, Error)]
pub enum SandboxError {
    /// No certificate can be made for the host name.
    #[error("the sandbox cannot offer STARTTLS under its host name")]
    Tls(#[from] ServerTlsError),
    /// No reports can be sent.
    #[error("the sandbox cannot send reports over TLS")]
    Reports(#[from] rustls::Error),
    /// The listener does not tell where it listens.
    #[error("the sandbox does not know where it listens")]
    Address(#[source] std::io::Error),
    /// The verifier cannot be set up.
    #[error("the sandbox cannot set up the verification of signatures")]
    Verifier(#[from] NetError),
}

/// The first words of local parts, and domains below the sandbox's own, that it treats specially.
pub fn behaviours() -> impl Iterator<Item = &'static str> {
    behaviour::words()
}

/// Serves `listener` until shutdown is requested and the open sessions have ended, for which they
/// have ten seconds.
///
/// # Errors
/// [`SandboxError`], before the first connection is taken.
pub async fn run(
    listener: TcpListener,
    config: SandboxConfig,
    store: Store,
    clock: Clock,
    shutdown: Shutdown,
) -> Result<(), SandboxError> {
    let listening = ListenerConfig {
        tls: Some(server_tls_self_signed(&config.host_name)?),
        max_connections: CONNECTIONS_MAX,
        ..ListenerConfig::new(config.host_name.clone())
    };
    let own = reachable(listener.local_addr().map_err(SandboxError::Address)?);
    let (reporter, reports) = reporter(config.reports_to.unwrap_or(own), &config.host_name)?;
    let sandbox = Sandbox::new(config, store, clock, reporter)?;
    let serving = serve(
        listener,
        listening,
        |_| SandboxHandler::new(sandbox.clone()),
        shutdown.token(),
    );
    tokio::join!(
        serving,
        sandbox.keep_trimmed(&shutdown),
        reports.run(&shutdown)
    );
    Ok(())
}

/// Where a listener on all addresses is reached from here.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}
