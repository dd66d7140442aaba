//! The configuration file of a node under test. Defaults are impatient, so that tests are short.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::path::PathBuf;

/// What a node is told. Everything not here has the program's own default.
#[derive(Clone, Debug)]
pub struct NodeFile {
    /// Said in EHLO too, so that a sink knows the nodes apart.
    pub name: String,
    /// `[database] url`.
    pub database_url: String,
    /// `[redis] url`.
    pub redis_url: Option<String>,
    /// `[node] state_dir`.
    pub state_dir: PathBuf,
    /// `[api] listen`.
    pub api: SocketAddr,
    /// `[metrics] listen`.
    pub metrics: SocketAddr,
    /// `[sandbox] listen`.
    pub sandbox: SocketAddr,
    /// `[mta] routes`.
    pub routes: BTreeMap<String, SocketAddr>,
    /// `[dns] nameservers`.
    pub nameservers: Vec<SocketAddr>,
    /// `[mta] smtp_port`.
    pub smtp_port: u16,
    /// `[mta] lease_ttl_secs`.
    pub lease_ttl_secs: u64,
    /// `[mta] ambiguous_hold_secs`.
    pub ambiguous_hold_secs: u64,
    /// Every key of `[mta.deadlines]`, except the last two.
    pub deadline_secs: u64,
    /// `[mta] max_connections_per_site`.
    pub connections_per_site: u32,
    /// Whether webhooks may be called on this machine, over plain HTTP.
    pub local_webhooks: bool,
    /// `[secrets] master_key_file`.
    pub master_key_file: PathBuf,
    /// `[return_path] keys_file`.
    pub return_path_keys_file: PathBuf,
    /// `[test] clock_file`.
    pub clock_file: Option<PathBuf>,
}

/// The steps of a conversation that have a deadline.
const STEPS: [&str; 9] = [
    "connect",
    "greeting",
    "ehlo",
    "starttls",
    "mail",
    "rcpt",
    "data",
    "data_block",
    "final_dot",
];

impl NodeFile {
    /// The file's text.
    pub fn render(&self) -> String {
        let mut text = String::new();
        let mut add = |line: String| writeln!(text, "{line}").unwrap();
        add(format!("[database]\nurl = {:?}", self.database_url));
        if let Some(url) = &self.redis_url {
            add(format!("[redis]\nurl = {url:?}"));
        }
        add(format!(
            "[node]\nstate_dir = {:?}\nname = {:?}",
            self.state_dir, self.name
        ));
        add(format!(
            "[api]\nlisten = \"{0}\"\npublic_url = \"http://{0}\"",
            self.api
        ));
        // Loads come from one key.
        add("[api.rate_limits]\naccount_per_second = 0\nkey_per_second = 0".to_owned());
        let routes: Vec<String> = self
            .routes
            .iter()
            .map(|(domain, to)| format!("{domain:?} = \"{to}\""))
            .collect();
        add(format!(
            "[mta]\nehlo = \"{}.test\"\nroutes = {{ {} }}",
            self.name,
            routes.join(", ")
        ));
        add("allow_private_destinations = true".to_owned());
        add(format!("smtp_port = {}", self.smtp_port));
        add(format!("lease_ttl_secs = {}", self.lease_ttl_secs));
        add(format!(
            "ambiguous_hold_secs = {}",
            self.ambiguous_hold_secs
        ));
        add(format!(
            "max_connections_per_site = {}",
            self.connections_per_site
        ));
        add("[mta.deadlines]\nquit_secs = 1\nidle_secs = 2".to_owned());
        for step in STEPS {
            add(format!("{step}_secs = {}", self.deadline_secs));
        }
        add(format!("[sandbox]\nlisten = \"{}\"", self.sandbox));
        if self.local_webhooks {
            add("[worker]\nwebhook_allowed_networks = [\"127.0.0.0/8\"]".to_owned());
            add("allow_insecure_webhooks = true".to_owned());
        }
        add(format!("[metrics]\nlisten = \"{}\"", self.metrics));
        add(format!(
            "[return_path]\ndomain = \"bounce.test\"\nkeys_file = {:?}",
            self.return_path_keys_file
        ));
        add(format!(
            "[dns]\nnameservers = {:?}",
            self.nameservers
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        ));
        add(format!(
            "[secrets]\nmaster_key_file = {:?}",
            self.master_key_file
        ));
        add("[log]\nformat = \"human\"\nfilter = \"info\"".to_owned());
        if let Some(path) = &self.clock_file {
            add(format!("[test]\nclock_file = {path:?}"));
        }
        text
    }
}
