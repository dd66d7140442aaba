//! The ports of a process, bound before any role starts: a port that is taken is an error at the
//! start and not in the middle.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context;
use service::config::Config;
use tokio::net::TcpListener;

use super::Roles;

/// What to do when a port is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BusyPort {
    /// Fail and say which key to change.
    Fail,
    /// Take any free one: for secondary ports of `dev`, of which there may be several.
    TakeAnother,
}

/// The bound ports.
pub(crate) struct Listeners {
    pub(crate) api: Option<TcpListener>,
    pub(crate) sandbox: Option<TcpListener>,
    pub(crate) metrics: TcpListener,
}

impl Listeners {
    /// Binds what the roles need. `secondary` is about the sandbox and metrics ports; the API's
    /// port is always the one that was asked for, by `api_setting`.
    ///
    /// # Errors
    /// A port is taken or not ours to take; the error names what to change.
    pub(crate) async fn bind(
        config: &Config,
        roles: Roles,
        secondary: BusyPort,
        api_setting: &str,
    ) -> anyhow::Result<Self> {
        let api = match roles.api {
            true => Some(bind(config.api.listen, api_setting, BusyPort::Fail).await?),
            false => None,
        };
        let sandbox = match roles.mta {
            true => Some(bind(config.sandbox.listen, "[sandbox] listen", secondary).await?),
            false => None,
        };
        let metrics = bind(config.metrics.listen, "[metrics] listen", secondary).await?;
        Ok(Self {
            api,
            sandbox,
            metrics,
        })
    }

    /// Where they are.
    ///
    /// # Errors
    /// The system does not say.
    pub(crate) fn addresses(&self) -> anyhow::Result<Addresses> {
        let of = |listener: &Option<TcpListener>| {
            listener.as_ref().map(TcpListener::local_addr).transpose()
        };
        Ok(Addresses {
            api: of(&self.api)?,
            sandbox_smtp: of(&self.sandbox)?,
            metrics: self.metrics.local_addr()?,
        })
    }
}

/// Where a process listens.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub(crate) struct Addresses {
    /// HTTP.
    pub(crate) api: Option<SocketAddr>,
    /// SMTP of the sandbox.
    pub(crate) sandbox_smtp: Option<SocketAddr>,
    /// `/metrics`, `/healthz`, `/readyz`.
    pub(crate) metrics: SocketAddr,
}

/// `setting` is what decides about the address, for people.
async fn bind(address: SocketAddr, setting: &str, busy: BusyPort) -> anyhow::Result<TcpListener> {
    match TcpListener::bind(address).await {
        Err(error)
            if busy == BusyPort::TakeAnother && error.kind() == std::io::ErrorKind::AddrInUse =>
        {
            let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            tracing::info!(wanted = %address, "the port is taken, another one is used");
            TcpListener::bind(any)
                .await
                .context("could not listen on any port of loopback")
        }
        bound => bound.with_context(|| {
            format!("could not listen on {address}: stop what uses it, or choose another {setting}")
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_that_is_taken_names_its_key_or_is_evaded() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap();
        let error = bind(address, "[api] listen", BusyPort::Fail)
            .await
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("[api] listen") && error.contains(&address.to_string()),
            "{error}"
        );
        let other = bind(address, "[api] listen", BusyPort::TakeAnother)
            .await
            .unwrap();
        assert_ne!(other.local_addr().unwrap(), address);
    }
}
