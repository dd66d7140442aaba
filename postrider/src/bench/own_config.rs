//! How the platform of a benchmark is configured, and what is made in its database before it
//! starts: an account, a verified domain, a key.

use std::net::SocketAddr;
use std::path::Path;

use api::keys::KeyMode;
use mail::dkim_key::SigningKey;
use mail::domain_name::DomainName;
use mail::ids::DomainId;
use service::config::Config;
use service::shutdown::Shutdown;
use store::Store;

use super::connection::Authorization;
use super::content::Correspondence;
use crate::provision::Provisioner;
use crate::wiring::{Foundation, new_uuid, secrets};

/// Where its mail is from, and where it goes.
pub(super) const SENDER_DOMAIN: &str = "bench.test";
pub(super) const RECIPIENT_DOMAIN: &str = "sink.test";
pub(super) const ACCOUNT: &str = "bench";
/// Selector of the DKIM keys of the other accounts.
const SELECTOR: &str = "pr1";

/// What the configuration of a platform depends on.
pub(super) struct Surroundings<'a> {
    pub(super) dir: &'a Path,
    pub(super) database: &'a str,
    pub(super) redis: Option<&'a str>,
    /// Where mail goes, by recipient domain.
    pub(super) routes: &'a [(&'a str, SocketAddr)],
    /// Connections to one host at most.
    pub(super) connections: u32,
}

impl Surroundings<'_> {
    /// The configuration file's text; makes the keys it names.
    ///
    /// # Errors
    /// A key cannot be written.
    pub(super) fn configuration(&self) -> anyhow::Result<String> {
        let (master, verp) = (
            self.dir.join("master.key"),
            self.dir.join("return-path.key"),
        );
        secrets::ensure_key_file(&master)?;
        secrets::ensure_key_file(&verp)?;
        let quoted = |path: &Path| format!("{:?}", path.display().to_string());
        let redis = self
            .redis
            .map_or_else(String::new, |url| format!("[redis]\nurl = {url:?}\n"));
        let route = |(domain, host): &(&str, SocketAddr)| format!("{domain:?} = \"{host}\"");
        let routes: Vec<_> = self.routes.iter().map(route).collect();
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
routes = {{ {routes} }}
max_connections_per_site = {connections}
[worker]
webhook_allowed_networks = ["127.0.0.0/8"]
allow_insecure_webhooks = true
[return_path]
domain = "bounce.{SENDER_DOMAIN}"
keys_file = {verp}
[secrets]
master_key_file = {master}
[log]
format = "human"
filter = "warn"
"#,
            database = self.database,
            routes = routes.join(", "),
            state_dir = quoted(&self.dir.join("node")),
            connections = self.connections,
            verp = quoted(&verp),
            master = quoted(&master),
        ))
    }
}

/// Who the messages are from and to.
pub(super) fn correspondence(domains: u32) -> Correspondence {
    Correspondence {
        from: format!("bench@{SENDER_DOMAIN}"),
        to_domain: RECIPIENT_DOMAIN.to_owned(),
        domains,
        senders: 1,
    }
}

/// What was made in the database.
pub(super) struct Provisioned {
    pub(super) store: Store,
    pub(super) key: Authorization,
    /// Of the other accounts, in the order of the senders.
    pub(super) others: Vec<Authorization>,
}

/// Makes the account, its domain and its key, and as many more accounts.
///
/// # Errors
/// Of the database.
pub(super) async fn provision(config: &Config, others: u32) -> anyhow::Result<Provisioned> {
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
    let account = provisioner.account(ACCOUNT).await?;
    let domain = DomainName::parse(SENDER_DOMAIN)?;
    provisioner.domain(account.no, &domain).await?;
    let key = provisioner.new_key(account.no, KeyMode::Live).await?;
    let mut keys = Vec::new();
    // Making a key for DKIM takes a tenth of a second: the others share one.
    let signing_key = SigningKey::generate_rsa_2048()?;
    for number in 0..others {
        let account = provisioner.account(&format!("{ACCOUNT}-{number}")).await?;
        let name = DomainName::parse(&format!("s{number:05}.{SENDER_DOMAIN}"))?;
        let id = DomainId::from_uuid(new_uuid(&clock));
        let now = clock.now();
        let domain = store.create_domain(id, account.no, &name, now).await?;
        store
            .add_dkim_key(domain.no, SELECTOR, &signing_key, &sealer, now)
            .await?;
        store.verify_domain(domain.no, now).await?;
        let key = provisioner.new_key(account.no, KeyMode::Live).await?;
        keys.push(Authorization::new(&key)?);
    }
    Ok(Provisioned {
        store,
        key: Authorization::new(&key)?,
        others: keys,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_written_configuration_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let url = "postgres://postgres@%2Frun%2Fpr-1:5432/postrider";
        let around = Surroundings {
            dir: dir.path(),
            database: url,
            redis: Some("redis+unix:///run/r.sock"),
            routes: &[
                ("*", "127.0.0.1:2525".parse().unwrap()),
                ("slow.test", "127.0.0.1:2526".parse().unwrap()),
            ],
            connections: 7,
        };
        let path = dir.path().join("postrider.toml");
        std::fs::write(&path, around.configuration().unwrap()).unwrap();
        let config = Config::check(Some(&path), false).unwrap();
        assert_eq!(config.database.url.with_password(), url);
        assert_eq!(config.mta.max_connections_per_site.get(), 7);
        assert_eq!(config.mta.routes.len(), 2);
        let limits = &config.api.rate_limits;
        assert_eq!((limits.account_per_second, limits.key_per_second), (0, 0));
        assert!(config.redis.url.is_some() && config.worker.allow_insecure_webhooks);
    }
}
