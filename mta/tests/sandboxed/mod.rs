//! A running sandbox on a PostgreSQL of the tests, an account that signs, and our own client.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use mail::address::EmailAddress;
use mail::compose::{ComposeContext, compose};
use mail::dkim::{SigningKey, body_hash};
use mail::domain_name::DomainName;
use mail::envelope::{Envelope, ReversePath};
use mail::ids::{AccountId, DomainId, MessageId};
use mail::message::{Limits, Message};
use mta::sandbox::{self, SandboxConfig, SandboxError};
use mta::smtp::{
    ConnectConfig, Connection, Deadlines, TlsMode, WireContent, opportunistic_client_config,
};
use serde_json::json;
use service::clock::Clock;
use service::pg_cluster::{Binaries, ClusterOptions, Durability, PgCluster};
use service::shutdown::Shutdown;
use store::{DomainNo, SandboxMessage, SealKey, Sealer, Store, StoreOptions};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use uuid::Uuid;

/// How long a test waits for what must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
pub(crate) const REVERSE_PATH: &str = "b+1@bounce.acme.test";
pub(crate) const RECIPIENT: &str = "ana@example.test";

static SHARED: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());

/// Stops with the last test that uses it; the server goes before its directory.
struct Cluster {
    server: PgCluster,
    _dir: tempfile::TempDir,
}

pub(crate) struct Sandboxed {
    pub(crate) address: SocketAddr,
    pub(crate) store: Store,
    sealer: Sealer,
    domain: DomainNo,
    shutdown: Shutdown,
    running: JoinHandle<Result<(), SandboxError>>,
    _cluster: Arc<Cluster>,
}

impl Sandboxed {
    /// None, and a loud line, when this machine has no PostgreSQL.
    pub(crate) async fn start(adjust: impl FnOnce(&mut SandboxConfig)) -> Option<Self> {
        let cluster = tokio::task::spawn_blocking(cluster).await.unwrap()?;
        let name = format!("sandbox_{}", Uuid::new_v4().simple());
        cluster.server.create_database(&name).unwrap();
        let url = cluster.server.url(&name);
        Store::migrate(&url).await.unwrap();
        let store = Store::connect(StoreOptions::new(&url)).await.unwrap();
        let sealer = Sealer::new(SealKey::new(1, [7; 32]), Vec::new());
        let domain = signing_domain(&store, &sealer).await;

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut config = SandboxConfig {
            host_name: "sandbox.test".to_owned(),
            domain: "sandbox.test".parse().unwrap(),
            reports_to: None,
            domains: None,
            keep: 1_000,
        };
        adjust(&mut config);
        let shutdown = Shutdown::new();
        let (clock, serving) = (Clock::system(), store.clone());
        let running = tokio::spawn(sandbox::run(
            listener,
            config,
            serving,
            clock,
            shutdown.clone(),
        ));
        Some(Self {
            address,
            store,
            sealer,
            domain,
            shutdown,
            running,
            _cluster: cluster,
        })
    }

    /// A composed message of acme.test with its signature, as the platform sends it.
    pub(crate) async fn signed(&self, text: &str) -> Vec<u8> {
        let request = json!({
            "from": "Acme <hello@acme.test>", "to": RECIPIENT, "subject": "Your order", "text": text
        });
        let request = serde_json::from_value(request).unwrap();
        let message = Message::parse(request, &Limits::default()).unwrap();
        let now = Clock::system().now();
        let context = ComposeContext {
            message_id: MessageId::from_time_and_random(1_790_000_000_000, [7; 10]),
            date: now,
            message_id_domain: &"acme.test".parse().unwrap(),
        };
        let composed = compose(&message, &context).unwrap();
        let signers = self
            .store
            .dkim_signers(self.domain, &self.sealer)
            .await
            .unwrap();
        let (hash, at) = (body_hash(composed.body()), now.unix_timestamp());
        let field = signers[0]
            .sign(composed.header_block(), &hash, at, Some(at + 86_400))
            .unwrap();
        [field.as_bytes(), &composed.bytes].concat()
    }

    /// One transaction on a connection of its own; the reply that decided it, without its text.
    pub(crate) async fn send(&self, reverse_path: &str, recipient: &str, mail: &[u8]) -> String {
        let config = ConnectConfig {
            remote: self.address,
            host_name: "sandbox.test".to_owned(),
            source: None,
            ehlo: "out.acme.test".to_owned(),
            tls: TlsMode::Opportunistic(opportunistic_client_config().unwrap()),
            deadlines: Deadlines::uniform(PATIENCE),
        };
        let mut connection = Connection::open(&config).await.unwrap();
        assert!(connection.tls_version().is_some());
        let envelope = Envelope::new(
            ReversePath::Address(EmailAddress::parse(reverse_path).unwrap()),
            EmailAddress::parse(recipient).unwrap(),
        );
        let parts = [mail];
        let content = WireContent::parse(&parts).unwrap();
        let ended = match connection.begin(&envelope, &content).await {
            Ok(transaction) => transaction.finish().await,
            Err(refused) => Err(refused),
        };
        let reply = match &ended {
            Ok(reply) => reply,
            Err(failure) => failure.reply().unwrap(),
        };
        let heard = reply
            .to_string()
            .split(' ')
            .take(2)
            .collect::<Vec<_>>()
            .join(" ");
        connection.quit().await;
        heard
    }

    /// All that is kept, newest first.
    pub(crate) async fn kept(&self) -> Vec<SandboxMessage> {
        let mut kept = Vec::new();
        for summary in self.store.sandbox_messages(1_000, None).await.unwrap() {
            // Gone if it was trimmed since it was listed.
            kept.extend(self.store.sandbox_message(summary.id).await.unwrap());
        }
        kept
    }

    /// All that is kept, newest first, once these many are.
    pub(crate) async fn kept_are(&self, count: usize) -> Vec<SandboxMessage> {
        let begun = Instant::now();
        loop {
            let kept = self.kept().await;
            if kept.len() == count {
                return kept;
            }
            assert!(begun.elapsed() < PATIENCE, "{} are kept", kept.len());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Sends `mail` and returns what is found about it, without the parts on SPF and DMARC.
    pub(crate) async fn dkim_of(&self, mail: &[u8]) -> String {
        assert_eq!(self.send(REVERSE_PATH, RECIPIENT, mail).await, "250 2.0.0");
        let results = self.kept().await[0].authentication_results.clone();
        let (_, dkim) = results.split_once("; ").unwrap();
        dkim.split_once("; spf=").unwrap().0.to_owned()
    }

    pub(crate) async fn stop(self) {
        self.shutdown.request();
        tokio::time::timeout(PATIENCE, self.running)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
    }
}

/// acme.test with a key `k1`; another account has registered the name with a key of its own.
async fn signing_domain(store: &Store, sealer: &Sealer) -> DomainNo {
    let now = Clock::system().now();
    let name: DomainName = "acme.test".parse().unwrap();
    let mut numbers = Vec::new();
    for account in ["Acme", "Squatter"] {
        let id = AccountId::from_uuid(Uuid::new_v4());
        let account = store.create_account(id, account, now).await.unwrap();
        let id = DomainId::from_uuid(Uuid::new_v4());
        let domain = store
            .create_domain(id, account.no, &name, now)
            .await
            .unwrap();
        let key = SigningKey::generate_rsa_2048().unwrap();
        store
            .add_dkim_key(domain.no, "k1", &key, sealer, now)
            .await
            .unwrap();
        numbers.push(domain.no);
    }
    store.verify_domain(numbers[0], now).await.unwrap();
    numbers[0]
}

fn cluster() -> Option<Arc<Cluster>> {
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(running) = shared.upgrade() {
        return Some(running);
    }
    if let Err(error) = Binaries::find() {
        eprintln!("SKIPPED: {error}");
        return None;
    }
    // Under /tmp and open to all, because the server may run as another user.
    let dir = tempfile::tempdir_in("/tmp").unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let options = ClusterOptions {
        base_dir: dir.path().join("pg"),
        durability: Durability::Fast,
        bin_dir: None,
    };
    let running = Arc::new(Cluster {
        server: PgCluster::start(options).unwrap(),
        _dir: dir,
    });
    *shared = Arc::downgrade(&running);
    Some(running)
}
