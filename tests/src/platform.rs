//! An installation: PostgreSQL, perhaps Redis, and one or several processes of the program, with
//! an account that can send. Put together by a builder, taken down when dropped.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use service::clock::ClockFile;
use service::redis_server::RedisServer;
use sqlx::PgPool;
use tempfile::TempDir;

use crate::api::Api;
use crate::cluster::Cluster;
use crate::node::Node;
use crate::node_file::NodeFile;
use crate::place;
use crate::proxy::TcpProxy;
use crate::tenant::{self, Tenant};

/// What stored secrets are sealed with.
pub const MASTER_KEY: [u8; 32] = [0x5a; 32];
/// All roles in one process.
pub const ALL_ROLES: &str = "api,mta,worker";

struct NodePlan {
    name: String,
    roles: String,
    behind_proxy: bool,
}

/// What to start.
pub struct PlatformBuilder {
    nodes: Vec<NodePlan>,
    routes: BTreeMap<String, SocketAddr>,
    nameservers: Vec<SocketAddr>,
    smtp_port: u16,
    redis: bool,
    clock: bool,
    lease_ttl_secs: u64,
    ambiguous_hold_secs: u64,
    deadline_secs: u64,
    connections_per_site: u32,
    local_webhooks: bool,
}

impl PlatformBuilder {
    /// Adds a process; without any there is one with all roles.
    pub fn node(mut self, name: &str, roles: &str) -> Self {
        let (name, roles) = (name.to_owned(), roles.to_owned());
        self.nodes.push(NodePlan {
            name,
            roles,
            behind_proxy: false,
        });
        self
    }

    /// Adds a process whose connections to PostgreSQL can be cut.
    pub fn node_behind_proxy(mut self, name: &str, roles: &str) -> Self {
        let (name, roles) = (name.to_owned(), roles.to_owned());
        self.nodes.push(NodePlan {
            name,
            roles,
            behind_proxy: true,
        });
        self
    }

    /// Mail for this domain (`*`: all others) goes there.
    pub fn route(mut self, domain: &str, to: SocketAddr) -> Self {
        self.routes.insert(domain.to_owned(), to);
        self
    }

    /// What DNS says is asked there.
    pub fn nameserver(mut self, address: SocketAddr) -> Self {
        self.nameservers.push(address);
        self
    }

    /// Hosts found in DNS are reached on this port.
    pub fn smtp_port(self, smtp_port: u16) -> Self {
        Self { smtp_port, ..self }
    }

    /// With Redis.
    pub fn redis(self) -> Self {
        Self {
            redis: true,
            ..self
        }
    }

    /// With a clock that the test moves.
    pub fn clock(self) -> Self {
        Self {
            clock: true,
            ..self
        }
    }

    /// Life of a lease, and how long a take-over waits for outcomes.
    pub fn leases(self, lease_ttl_secs: u64, ambiguous_hold_secs: u64) -> Self {
        Self {
            lease_ttl_secs,
            ambiguous_hold_secs,
            ..self
        }
    }

    /// Patience with each step of an SMTP dialogue.
    pub fn deadline_secs(self, deadline_secs: u64) -> Self {
        Self {
            deadline_secs,
            ..self
        }
    }

    /// Connections to one site at most.
    pub fn connections_per_site(self, connections_per_site: u32) -> Self {
        Self {
            connections_per_site,
            ..self
        }
    }

    /// Webhooks go where they may without configuration: over HTTPS to the public Internet.
    pub fn only_public_webhooks(self) -> Self {
        Self {
            local_webhooks: false,
            ..self
        }
    }

    /// Starts it; none, and a loud line, where PostgreSQL or Redis is missing.
    pub async fn start(mut self) -> Option<Platform> {
        let redis_dir = place::directory();
        let redis = if self.redis {
            Some(start_redis(redis_dir.path())?)
        } else {
            None
        };
        let cluster = Cluster::start().await?;
        let proxy = if self.nodes.iter().any(|plan| plan.behind_proxy) {
            Some(TcpProxy::start(cluster.socket()).await)
        } else {
            None
        };
        let dir = place::directory();
        let clock = self
            .clock
            .then(|| ClockFile::create(dir.path().join("clock")).unwrap());
        write_keys(dir.path());
        if self.nodes.is_empty() {
            self = self.node("one", ALL_ROLES);
        }
        let mut nodes = Vec::new();
        for plan in std::mem::take(&mut self.nodes) {
            let database_url = match &proxy {
                Some(proxy) if plan.behind_proxy => cluster.url_through(proxy.address),
                _ => cluster.url(),
            };
            let redis_url = redis.as_ref().map(RedisServer::url);
            let file = self.file(
                &plan.name,
                database_url,
                redis_url,
                dir.path(),
                clock.as_ref(),
            );
            nodes.push(Node::prepare(file, &plan.roles, dir.path()));
        }
        let admin_config = dir.path().join("admin.toml");
        let admin_file = NodeFile {
            clock_file: None,
            ..nodes[0].file.clone()
        };
        fs::write(&admin_config, admin_file.render()).unwrap();
        tenant::migrate(&admin_config);
        let tenant = Tenant::create(&admin_config, "acme");
        let pool = cluster.pool().await;
        for node in &mut nodes {
            node.restart().await;
        }
        let _dirs = [dir, redis_dir];
        Some(Platform {
            nodes,
            tenant,
            admin_config,
            clock,
            redis,
            proxy,
            pool,
            cluster,
            _dirs,
        })
    }

    fn file(
        &self,
        name: &str,
        database_url: String,
        redis_url: Option<String>,
        dir: &Path,
        clock: Option<&ClockFile>,
    ) -> NodeFile {
        NodeFile {
            name: name.to_owned(),
            database_url,
            redis_url,
            state_dir: dir.join(format!("{name}-state")),
            api: place::free_address(),
            metrics: place::free_address(),
            sandbox: place::free_address(),
            routes: self.routes.clone(),
            nameservers: self.nameservers.clone(),
            smtp_port: self.smtp_port,
            lease_ttl_secs: self.lease_ttl_secs,
            ambiguous_hold_secs: self.ambiguous_hold_secs,
            deadline_secs: self.deadline_secs,
            connections_per_site: self.connections_per_site,
            local_webhooks: self.local_webhooks,
            master_key_file: dir.join("master.key"),
            return_path_keys_file: dir.join("return-path.keys"),
            clock_file: clock.map(|clock| clock.path().to_owned()),
        }
    }
}

fn start_redis(dir: &Path) -> Option<RedisServer> {
    if RedisServer::find().is_none() {
        eprintln!("SKIPPED: this scenario needs redis-server");
        return None;
    }
    Some(RedisServer::start(dir).unwrap())
}

fn write_keys(dir: &Path) {
    for (name, key) in [("master.key", MASTER_KEY), ("return-path.keys", [0x33; 32])] {
        fs::write(dir.join(name), format!("{}\n", STANDARD.encode(key))).unwrap();
    }
}

/// A running installation. Fields are dropped in this order: processes before their PostgreSQL.
pub struct Platform {
    /// The processes, in the order of the builder.
    pub nodes: Vec<Node>,
    /// An account that can send from `acme.test`.
    pub tenant: Tenant,
    /// Configuration file for the program's other commands.
    pub admin_config: PathBuf,
    /// The clock all processes follow.
    pub clock: Option<ClockFile>,
    /// The Redis all processes use.
    pub redis: Option<RedisServer>,
    /// The wire that can be cut.
    pub proxy: Option<TcpProxy>,
    /// Connections for the test's own questions.
    pub pool: PgPool,
    /// PostgreSQL.
    pub cluster: Cluster,
    _dirs: [TempDir; 2],
}

impl Platform {
    /// A builder with impatient defaults.
    pub fn builder() -> PlatformBuilder {
        PlatformBuilder {
            nodes: Vec::new(),
            routes: BTreeMap::new(),
            nameservers: Vec::new(),
            smtp_port: 25,
            redis: false,
            clock: false,
            lease_ttl_secs: 15,
            ambiguous_hold_secs: 600,
            deadline_secs: 30,
            connections_per_site: 20,
            local_webhooks: true,
        }
    }

    /// The interface of a process with the API role, used by the account.
    pub fn api(&self, node: usize) -> Api {
        Api::new(self.nodes[node].file.api, &self.tenant.key)
    }

    /// The node of that name.
    pub fn node(&mut self, name: &str) -> &mut Node {
        self.nodes
            .iter_mut()
            .find(|node| node.file.name == name)
            .unwrap()
    }
}
