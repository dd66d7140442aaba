//! A migrated database with an account, a stream and a domain, and short ways to send and settle.

use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use mail::event::EventType;
use mail::ids::*;
use mail::retry::StreamClass;
use service::pg_cluster::{Binaries, ClusterOptions, Durability, PgCluster};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use store::*;
use time::OffsetDateTime;
use time::macros::datetime;
use tokio_util::sync::CancellationToken;

pub(crate) const NOW: OffsetDateTime = datetime!(2026-03-10 12:00 UTC);
pub(crate) const TTL: Duration = Duration::from_secs(15);
/// Longer than anything here takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

static CLUSTER: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());
static COUNTER: AtomicU64 = AtomicU64::new(1);

/// Different in every call, also between processes on one server.
pub(crate) fn unique() -> u64 {
    COUNTER.fetch_add(1, Ordering::Relaxed)
}

fn bits() -> uuid::Uuid {
    uuid::Uuid::new_v4()
}

pub(crate) fn node() -> NodeId {
    NodeId::from_uuid(bits())
}

/// Stopped when the last test lets go of it.
struct Cluster {
    server: PgCluster,
    _dir: tempfile::TempDir,
}

impl Cluster {
    fn shared() -> Option<Arc<Self>> {
        let mut running = CLUSTER.lock().unwrap();
        if let Some(cluster) = running.upgrade() {
            return Some(cluster);
        }
        if let Err(error) = Binaries::find() {
            eprintln!("SKIPPED: {error}");
            return None;
        }
        // The server's user must be able to enter, also when root runs the tests.
        let dir = tempfile::tempdir_in("/tmp").unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let base_dir = dir.path().join("pg");
        let options = ClusterOptions {
            base_dir,
            durability: Durability::Fast,
            bin_dir: None,
        };
        let cluster = Arc::new(Self {
            server: PgCluster::start(options).unwrap(),
            _dir: dir,
        });
        *running = Arc::downgrade(&cluster);
        Some(cluster)
    }
}

pub(crate) struct World {
    pub(crate) store: Store,
    pub(crate) url: String,
    store_database: String,
    pub(crate) account: Account,
    pub(crate) stream: Stream,
    pub(crate) domain: SenderDomain,
    pub(crate) recipient_domain: RecipientDomainNo,
    pub(crate) sealer: Sealer,
    _cluster: Option<Arc<Cluster>>,
}

impl World {
    pub(crate) async fn start() -> Option<Self> {
        let (server, cluster) = match std::env::var("POSTRIDER_TEST_DATABASE_URL") {
            Ok(url) => (url, None),
            Err(_) => {
                let cluster = tokio::task::spawn_blocking(Cluster::shared)
                    .await
                    .unwrap()?;
                (cluster.server.url("postgres"), Some(cluster))
            }
        };
        let (url, store_database) = new_database(&server).await;
        Store::migrate(&url).await.unwrap();
        let store = Store::connect(StoreOptions::new(&url)).await.unwrap();
        let today = NOW.date();
        let days = [
            today.previous_day().unwrap(),
            today,
            today.next_day().unwrap(),
        ];
        store.make_partitions(days.into_iter()).await.unwrap();
        let account = store
            .create_account(AccountId::from_uuid(bits()), "acme", NOW)
            .await
            .unwrap();
        let stream = store
            .create_stream(
                StreamId::from_uuid(bits()),
                account.no,
                "transactional",
                StreamClass::Transactional,
            )
            .await
            .unwrap();
        let name = "acme.test".parse().unwrap();
        let domain_id = DomainId::from_uuid(bits());
        let domain = store
            .create_domain(domain_id, account.no, &name, NOW)
            .await
            .unwrap();
        let names = ["example.com".parse().unwrap()];
        let recipient_domain = store.recipient_domain_nos(&[&names[0]]).await.unwrap()[0];
        let sealer = Sealer::new(SealKey::new(1, [7; 32]), vec![]);
        let _cluster = cluster;
        Some(Self {
            store,
            url,
            store_database,
            account,
            stream,
            domain,
            recipient_domain,
            sealer,
            _cluster,
        })
    }

    /// A message to one recipient, due now.
    pub(crate) fn message(&self) -> NewMessage {
        let number = unique();
        let mut random = [0; 10];
        random[..8].copy_from_slice(&(number << 12).to_be_bytes());
        let body = format!("Message {number}. {}", "All work and no play. ".repeat(20));
        let header = "From: hello@acme.test\r\nSubject: Hi\r\n";
        NewMessage {
            id: MessageId::from_time_and_random(unix_ms(NOW), random),
            account: self.account.no,
            stream: self.stream.no,
            class: StreamClass::Transactional,
            domain: self.domain.no,
            flags: MessageFlags::SMTPUTF8,
            sender: "Acme <hello@acme.test>".into(),
            rfc_message_id: format!("<{number}@acme.test>"),
            subject: "Hi".into(),
            tags: vec!["receipt".into(), "two words".into()],
            metadata: Some(r#"{"order":"7"}"#.into()),
            pool: None,
            due_at: NOW,
            expires_at: NOW + Duration::from_secs(432_000),
            recipients: vec![self.recipient("ana@example.com")],
            header: None,
            variables: None,
            content: Arc::new(NewContent {
                kind: ContentKind::Message,
                class: RetentionClass::Week,
                header_len: header.len(),
                bytes: format!("{header}\r\n{body}").into_bytes().into(),
                body_hash: [9; 32],
            }),
        }
    }

    pub(crate) fn recipient(&self, address: &str) -> NewRecipient {
        NewRecipient {
            address: address.parse().unwrap(),
            domain: self.recipient_domain,
        }
    }

    pub(crate) fn request(&self, messages: Vec<NewMessage>) -> AcceptRequest {
        AcceptRequest {
            account: self.account.no,
            idempotency: None,
            messages,
        }
    }

    pub(crate) fn acceptor(&self) -> Acceptor {
        self.acceptor_with(Arc::new(NoHints), Arc::new(NoObserver), || NOW)
    }

    pub(crate) fn acceptor_with(
        &self,
        hints: Arc<dyn QueueHints>,
        observer: Arc<dyn AcceptObserver>,
        clock: impl Fn() -> OffsetDateTime + Send + Sync + 'static,
    ) -> Acceptor {
        let shutdown = CancellationToken::new();
        Acceptor::start(
            self.store.clone(),
            Arc::new(clock),
            hints,
            observer,
            shutdown,
        )
    }

    /// Accepts one message and returns its queue row.
    pub(crate) async fn send(&self) -> QueueRow {
        let message = self.message();
        let id = message.id;
        let accepted = self
            .acceptor()
            .accept(self.request(vec![message]))
            .await
            .unwrap();
        assert_eq!(accepted, Accepted::Stored);
        self.queued()
            .await
            .into_iter()
            .find(|row| row.key.message == id)
            .unwrap()
    }

    /// Every row due within a day of the tests' time.
    pub(crate) async fn queued(&self) -> Vec<QueueRow> {
        let cursors: Vec<_> = (0..16)
            .map(|shard| (ShardNo(shard), Cursor::START))
            .collect();
        self.store
            .poll(&cursors, NOW + Duration::from_secs(86_400), 10_000)
            .await
            .unwrap()
    }

    /// Takes all shards.
    pub(crate) async fn own(&self, owner: NodeId) -> Fence {
        let shards: Vec<ShardNo> = (0..16).map(ShardNo).collect();
        let held = self.store.take(owner, &shards, TTL, 0).await.unwrap();
        assert_eq!(held.len(), 16);
        Fence { owner, held }
    }

    pub(crate) async fn connection(&self) -> PgConnection {
        PgConnection::connect(&self.url).await.unwrap()
    }

    /// One number out of the database.
    pub(crate) async fn count(&self, statement: &'static str) -> i64 {
        sqlx::query_scalar(statement)
            .fetch_one(&mut self.connection().await)
            .await
            .unwrap()
    }
}

/// What became of one attempt at `row`.
pub(crate) fn outcome(row: &QueueRow, kind: EventType, next: Option<Retry>) -> Settlement {
    let flags = if next.is_none() {
        EventFlags::FINAL
    } else {
        EventFlags::NONE
    };
    let event = NewEvent {
        id: EventId::from_uuid(uuid_v7(unix_ms(NOW), rand::random())),
        kind,
        sequence: row.attempt + 2,
        attempt: row.attempt + 1,
        flags,
        class: None,
        code: Some(250),
        enhanced: Some("2.0.0".into()),
        source: Some(1),
        mx: Some("mx.example.com".into()),
        tls: Some("TLSv1.3".into()),
        reply: Some(mail::text::DbText::from_remote(b"250 2.0.0 OK", 100)),
        duration_ms: Some(12),
        transcript: None,
    };
    Settlement {
        row: row.clone(),
        next,
        event,
    }
}

/// On a server that is not ours to stop, nothing is left behind.
impl Drop for World {
    fn drop(&mut self) {
        let Ok(server) = std::env::var("POSTRIDER_TEST_DATABASE_URL") else {
            return;
        };
        let name = self.store_database.clone();
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.unwrap().block_on(async {
                let mut connection = PgConnection::connect(&server).await.unwrap();
                let statement = AssertSqlSafe(format!("DROP DATABASE {name} WITH (FORCE)"));
                sqlx::query(statement)
                    .execute(&mut connection)
                    .await
                    .unwrap();
            });
        });
        if dropping.join().is_err() {
            eprintln!("a test database could not be dropped");
        }
    }
}

pub(crate) fn unix_ms(at: OffsetDateTime) -> u64 {
    u64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap()
}

async fn new_database(server: &str) -> (String, String) {
    let name = format!("store_{}", bits().simple());
    let mut connection = PgConnection::connect(server).await.unwrap();
    let statement = AssertSqlSafe(format!("CREATE DATABASE {name}"));
    sqlx::query(statement)
        .execute(&mut connection)
        .await
        .unwrap();
    let (address, query) = server.split_once('?').unwrap_or((server, ""));
    let (host, _) = address.rsplit_once('/').unwrap();
    let query = if query.is_empty() {
        String::new()
    } else {
        format!("?{query}")
    };
    (format!("{host}/{name}{query}"), name)
}
