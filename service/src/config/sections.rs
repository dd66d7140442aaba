//! The sections of the configuration file and their defaults: a process started with none of
//! them sends to nobody but itself and listens on loopback only.
//! `deploy/config/default.toml` explains every key to operators; a test holds the two together.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::{NonZeroU16, NonZeroU32, NonZeroUsize};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::error::Problem;
use super::urls::{DatabaseUrl, PublicUrl, RedisUrl};
use super::values::{HostName, HostPort, Network, RouteDomain, Seconds};
use crate::telemetry::LogFormat;

/// Declares a section: unknown keys refused, missing keys from `Default`.
macro_rules! sections {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty = $default:expr,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $type,)*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }
    )*};
}

sections! {
    /// `[database]`: PostgreSQL, the truth.
    DatabaseConfig {
        /// How to reach it.
        url: DatabaseUrl = parsed("postgres://postrider@localhost:5432/postrider"),
        /// File of the password, in place of the one in the URL. Already read: `url` has it.
        password_file: Option<PathBuf> = None,
        /// Most connections of this process, all roles together.
        max_connections: NonZeroU32 = nonzero_u32(32),
    }

    /// `[redis]`: limits shared by nodes, wake-ups. Optional.
    RedisConfig {
        /// How to reach it; without it every node keeps to its own conservative share.
        url: Option<RedisUrl> = None,
    }

    /// `[node]`: this process among others.
    NodeConfig {
        /// Directory of the node's identity and its journal; one process each.
        state_dir: PathBuf = PathBuf::from("/var/lib/postrider"),
        /// Shown in logs and the dashboard; the host's name if absent.
        name: Option<HostName> = None,
        /// Queue group whose mail this node sends.
        group: String = "default".to_owned(),
    }

    /// `[api]`: the HTTP interface.
    ApiConfig {
        /// Where it listens.
        listen: SocketAddr = loopback(8080),
        /// How people reach it.
        public_url: PublicUrl = parsed("http://127.0.0.1:8080"),
        /// Largest request body after decompression, bytes.
        max_body_bytes: NonZeroUsize = nonzero_usize(52_428_800),
        /// Whether the reference of the interface is served at `/docs`.
        docs: bool = true,
        /// Proxies whose `X-Forwarded-For` is believed.
        trusted_proxies: Vec<Network> = Vec::new(),
        /// Processes with this role: each one's share of the limits while Redis is away.
        nodes_expected: NonZeroU32 = nonzero_u32(1),
        /// How often callers may ask.
        rate_limits: RateLimitsConfig = RateLimitsConfig::default(),
    }

    /// `[api.rate_limits]`: token buckets; 0 a second is no limit.
    RateLimitsConfig {
        /// Requests of one account.
        account_per_second: u32 = 500,
        /// Requests an account may make at once after a rest.
        account_burst: NonZeroU32 = nonzero_u32(1_000),
        /// Requests with one key.
        key_per_second: u32 = 500,
        /// Requests a key may make at once after a rest.
        key_burst: NonZeroU32 = nonzero_u32(1_000),
        /// Requests with wrong keys from one client address.
        wrong_keys_per_second: u32 = 10,
        /// Requests with wrong keys a client address may make at once after a rest.
        wrong_keys_burst: NonZeroU32 = nonzero_u32(100),
    }

    /// `[mta]`: sending.
    MtaConfig {
        /// Name said in EHLO where a source has none of its own; the host's name if absent.
        ehlo: Option<HostName> = None,
        /// Addresses this node sends from; empty: the system chooses.
        sources: Vec<SourceConfig> = Vec::new(),
        /// Most connections to one site from one source, whatever its profile allows.
        max_connections_per_site: NonZeroU32 = nonzero_u32(20),
        /// Most outgoing connections of this node.
        max_connections: NonZeroU32 = nonzero_u32(1_000),
        /// Static routes that take the place of MX lookups.
        routes: BTreeMap<RouteDomain, HostPort> = BTreeMap::new(),
        /// Whether mail may go to loopback, private and link-local addresses.
        allow_private_destinations: bool = false,
        /// Port of the mail hosts that DNS names; other than 25 in closed networks and tests only.
        smtp_port: NonZeroU16 = nonzero_u16(25),
        /// How long a delivery of a lost node waits for that node's journal.
        ambiguous_hold_secs: Seconds = Seconds::constant(600),
        /// How long a shard stays with a node that is not heard of.
        lease_ttl_secs: Seconds = Seconds::constant(15),
        /// Patience with each step of a conversation.
        deadlines: DeadlinesConfig = DeadlinesConfig::default(),
    }

    /// `[mta.deadlines]`: absolute limits for each reply (RFC 5321 section 4.5.3.2).
    DeadlinesConfig {
        /// TCP connection.
        connect_secs: Seconds = Seconds::constant(30),
        /// Greeting, 4.5.3.2.1.
        greeting_secs: Seconds = Seconds::constant(300),
        /// EHLO or HELO.
        ehlo_secs: Seconds = Seconds::constant(300),
        /// STARTTLS and the handshake.
        starttls_secs: Seconds = Seconds::constant(180),
        /// MAIL, 4.5.3.2.2.
        mail_secs: Seconds = Seconds::constant(300),
        /// RCPT, 4.5.3.2.3.
        rcpt_secs: Seconds = Seconds::constant(300),
        /// DATA until 354, 4.5.3.2.4.
        data_secs: Seconds = Seconds::constant(120),
        /// Writing one block of content, 4.5.3.2.5.
        data_block_secs: Seconds = Seconds::constant(180),
        /// Final dot until its reply, 4.5.3.2.6.
        final_dot_secs: Seconds = Seconds::constant(600),
        /// QUIT.
        quit_secs: Seconds = Seconds::constant(10),
        /// How long an unused connection is kept for the next delivery.
        idle_secs: Seconds = Seconds::constant(5),
    }

    /// `[sandbox]`: the MX that test keys reach, which behaves as the local part says.
    SandboxConfig {
        /// Where its SMTP listens.
        listen: SocketAddr = loopback(2526),
        /// Its domain; reserved for tests (RFC 2606).
        domain: HostName = parsed("sandbox.test"),
        /// SMTP server that gets the reports of bounce-later@ and complaint@; none: the sandbox.
        reports_to: Option<SocketAddr> = None,
    }

    /// `[worker]`: webhooks and other background duties.
    WorkerConfig {
        /// Most webhook calls under way at once.
        max_webhook_calls: NonZeroU32 = nonzero_u32(256),
        /// Private networks that webhooks may call; all others are refused.
        webhook_allowed_networks: Vec<Network> = Vec::new(),
        /// Ports that webhooks may call on the public Internet.
        webhook_ports: Vec<u16> = vec![80, 443, 8080, 8443],
        /// Whether webhooks may be registered with plain HTTP.
        allow_insecure_webhooks: bool = false,
    }

    /// `[metrics]`: `/metrics`, `/healthz` and `/readyz`.
    MetricsConfig {
        /// Where they listen.
        listen: SocketAddr = loopback(9464),
    }

    /// `[return_path]`: where bounces come back to.
    ReturnPathConfig {
        /// Platform-wide bounce domain, for senders that have none of their own.
        domain: Option<HostName> = None,
        /// File of the keys that authenticate return paths, newest first, one a line.
        keys_file: Option<PathBuf> = None,
    }

    /// `[dns]`: whom to ask.
    DnsConfig {
        /// Name servers; empty: those of the system.
        nameservers: Vec<SocketAddr> = Vec::new(),
    }

    /// `[secrets]`: encryption of what is stored.
    SecretsConfig {
        /// File of the key that stored secrets are encrypted with: 32 bytes in base64.
        master_key_file: Option<PathBuf> = None,
    }

    /// `[log]`: logs on standard error.
    LogConfig {
        /// Shape of a line.
        format: LogFormat = LogFormat::Auto,
        /// Which lines: a level, and levels by module.
        filter: String = "info,sqlx=warn".to_owned(),
    }

    /// `[test]`: refused unless the process is started with `--test-clock`.
    TestConfig {
        /// File of the offset that moves domain time.
        clock_file: Option<PathBuf> = None,
    }
}

/// Limits beyond this are none: a token lasts ten microseconds, the grain of the counting.
const PER_SECOND_MAX: u32 = 100_000;

impl RateLimitsConfig {
    /// Rates that cannot be counted.
    pub(super) fn problems(&self) -> Vec<Problem> {
        [
            ("account_per_second", self.account_per_second),
            ("key_per_second", self.key_per_second),
            ("wrong_keys_per_second", self.wrong_keys_per_second),
        ]
        .into_iter()
        .filter(|(_, rate)| *rate > PER_SECOND_MAX)
        .map(|(key, _)| {
            let wrong = format!("is too high: write at most {PER_SECOND_MAX}, or 0 for no limit");
            Problem::new(&format!("api.rate_limits.{key}"), wrong)
        })
        .collect()
    }
}

/// One address to send from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceConfig {
    /// Bound on this machine.
    pub address: IpAddr,
    /// Name said in EHLO; its A/AAAA and the address's PTR should match it.
    pub ehlo: HostName,
}

impl DatabaseConfig {
    /// Puts the password of the file into the URL. The password is in no error.
    pub(super) fn read_password(&mut self) -> Result<(), Problem> {
        let Some(path) = &self.password_file else {
            return Ok(());
        };
        let file = path.display();
        let problem = |wrong: String| Problem::new("database.password_file", wrong);
        let text = std::fs::read_to_string(path).map_err(|wrong| {
            problem(format!(
                "{file} cannot be read ({wrong}): create it with the password in it, readable \
                 by this user, or correct the path"
            ))
        })?;
        let password = text.trim_end_matches(['\r', '\n']);
        if password.is_empty() || password.contains(['\r', '\n', '\0']) {
            return Err(problem(format!(
                "{file} is not one line: write the password into it, and nothing else"
            )));
        }
        self.url = self.url.replace_password(password).ok_or_else(|| {
            let url = &self.url;
            problem(format!(
                "cannot be used with {url}: name user and host there, postgres://user@host/database"
            ))
        })?;
        Ok(())
    }
}

fn parsed<T: std::str::FromStr<Err = String>>(default: &'static str) -> T {
    default.parse().expect("a default, parsed by a test")
}

fn nonzero_u16(default: u16) -> NonZeroU16 {
    NonZeroU16::new(default).expect("a default, made by a test")
}

fn nonzero_u32(default: u32) -> NonZeroU32 {
    NonZeroU32::new(default).expect("a default, made by a test")
}

fn nonzero_usize(default: usize) -> NonZeroUsize {
    NonZeroUsize::new(default).expect("a default, made by a test")
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}
