//! The sandbox MX: takes all mail for its domains, shows it to people, and behaves like receivers
//! of many kinds by the local part of the recipient (see `behaviour`).
//!
//! Sends nothing, forwards nothing and asks no DNS: what it verifies, it verifies with the DKIM
//! keys that the platform itself would publish.

mod auth_results;
mod behaviour;
mod greylist;
mod handler;
mod verify;

use hickory_resolver::net::NetError;
use mail::domain_name::DomainName;
use service::clock::Clock;
use service::shutdown::Shutdown;
use store::Store;
use thiserror::Error;
use tokio::net::TcpListener;

use crate::listener::{ListenerConfig, ServerTlsError, serve, server_tls_self_signed};
use handler::{Sandbox, SandboxHandler};

/// Connections at once: each may hold a message of 50 MB in memory.
const CONNECTIONS_MAX: usize = 256;

/// What the sandbox is called and for whom it takes mail.
#[derive(Debug, Clone)]
pub struct SandboxConfig {
    /// The name in the greeting, the certificate and the Authentication-Results.
    pub host_name: String,
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
    /// The verifier cannot be set up.
    #[error("the sandbox cannot set up the verification of signatures")]
    Verifier(#[from] NetError),
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
    let sandbox = Sandbox::new(config, store, clock)?;
    let serving = serve(
        listener,
        listening,
        |_| SandboxHandler::new(sandbox.clone()),
        shutdown.token(),
    );
    tokio::join!(serving, sandbox.keep_trimmed(&shutdown));
    Ok(())
}
