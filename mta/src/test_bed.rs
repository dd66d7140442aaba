//! What tests of the queue's inner parts stand on: a PostgreSQL of their own, deliveries in it, and
//! nodes that are opened and not running, so that a test takes every step itself. Judges nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use mail::ids::{AccountId, MessageId, NodeId, StreamId};
use mail::reply::Reply;
use mail::retry::StreamClass;
use mail::verp::VerpKey;
use service::clock::Clock;
use service::metrics::Metrics;
use service::pg_cluster::{Binaries, ClusterOptions, Durability, PgCluster};
use service::shutdown::Shutdown;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use store::{Cursor, Epoch, QueueRow, SealKey, Sealer, ShardNo, Store, StoreOptions, Stream};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::config::{EgressSource, MtaConfig, MtaLimits, ReturnPath};
use crate::delivery::{Attempted, conclude};
use crate::journal::JournalConfig;
use crate::node::{Dependencies, Node};
use crate::queue::{Gate, Intent, Permit, Settler, Unsettled};
use crate::routing::RoutingConfig;
use crate::smtp::Deadlines;

/// Longer than a whole test takes on a busy machine.
const TEST_PATIENCE: Duration = Duration::from_secs(60);
/// Longer than any single step takes.
const PATIENCE: Duration = Duration::from_secs(30);
/// A hold that no test outlasts.
pub(crate) const LONG_HOLD: Duration = Duration::from_secs(86_400);
const POLL: Duration = Duration::from_millis(5);
const LEASE_TTL: Duration = Duration::from_secs(600);
const SEGMENT_BYTES: u64 = 1 << 20;

static SHARED: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());

/// Stops with the last test that uses it; the server goes before its directory.
struct Cluster {
    server: PgCluster,
    _dir: tempfile::TempDir,
}

impl Cluster {
    fn shared() -> Option<Arc<Self>> {
        let mut shared = crate::sync::lock(&SHARED);
        if let Some(running) = shared.upgrade() {
            return Some(running);
        }
        if let Err(error) = Binaries::find() {
            eprintln!("SKIPPED: {error}");
            return None;
        }
        let dir = directory();
        let options = ClusterOptions {
            base_dir: dir.path().join("pg"),
            durability: Durability::Fast,
            bin_dir: None,
        };
        let server = PgCluster::start(options).unwrap();
        let running = Arc::new(Self { server, _dir: dir });
        *shared = Arc::downgrade(&running);
        Some(running)
    }
}

/// Under /tmp and open to all, because the server may run as another user.
fn directory() -> tempfile::TempDir {
    let dir = tempfile::tempdir_in("/tmp").unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

/// Resolves when the condition holds; fails the test when that takes too long.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(POLL).await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, waiting).await;
    assert!(waited.is_ok(), "not within {PATIENCE:?}: {what}");
}

/// A database with an account and a stream.
pub(crate) struct TestBed {
    pub(crate) stream: Stream,
    url: String,
    store: Store,
    messages: Mutex<u64>,
    _cluster: Arc<Cluster>,
}

impl TestBed {
    /// Runs a test on a database of its own. It fails when it does not end in time, and is passed
    /// over with a loud line when this machine has no PostgreSQL.
    pub(crate) async fn run(test: impl AsyncFnOnce(Self)) {
        if let Some(bed) = Self::start().await {
            let ended = tokio::time::timeout(TEST_PATIENCE, test(bed)).await;
            assert!(ended.is_ok(), "the test did not end in {TEST_PATIENCE:?}");
        }
    }

    async fn start() -> Option<Self> {
        let starting = tokio::task::spawn_blocking(Cluster::shared);
        let cluster = starting.await.unwrap()?;
        let name = format!("queue_{}", Uuid::new_v4().simple());
        cluster.server.create_database(&name).unwrap();
        let url = cluster.server.url(&name);
        Store::migrate(&url).await.unwrap();
        let store = Store::connect(StoreOptions::new(&url)).await.unwrap();
        let account = AccountId::from_uuid(Uuid::new_v4());
        let now = Clock::system().now();
        let account = store.create_account(account, "acme", now).await.unwrap();
        let id = StreamId::from_uuid(Uuid::new_v4());
        let class = StreamClass::Transactional;
        let stream = store.create_stream(id, account.no, "receipts", class);
        let stream = stream.await.unwrap();
        Some(Self {
            stream,
            url,
            store,
            messages: Mutex::default(),
            _cluster: cluster,
        })
    }

    /// A node of its own; the same number is always the same node id.
    pub(crate) async fn node(&self, number: u128, hold: Duration) -> TestNode {
        let state_dir = directory();
        let id = NodeId::from_uuid(Uuid::from_u128(number));
        fs::write(state_dir.path().join("node_id"), id.to_string()).unwrap();
        // A store of its own too: nodes share no cache.
        let store = Store::connect(StoreOptions::new(&self.url)).await.unwrap();
        TestNode::open(state_dir, store, hold)
    }

    /// Puts `count` deliveries that are due into a shard.
    pub(crate) async fn send(&self, shard: ShardNo, count: usize) -> Vec<QueueRow> {
        let messages: Vec<String> = std::iter::repeat_with(|| self.next_message())
            .map(|message| format!("'{}'", message.uuid()))
            .take(count)
            .collect();
        self.execute(&format!(
            "INSERT INTO queue (shard, next_at, message_id, rcpt, account, stream, domain,
                                first_at, expires_at)
             SELECT {}, due.at, message, 0, {}, {}, 1, due.at, due.at + interval '5 days'
             FROM unnest(ARRAY[{}]::uuid[]) AS message,
                  (SELECT clock_timestamp() - interval '1 minute' AS at) due",
            shard.0,
            self.stream.account.0,
            self.stream.no.0,
            messages.join(", "),
        ))
        .await;
        self.queued(shard).await
    }

    fn next_message(&self) -> MessageId {
        let mut messages = crate::sync::lock(&self.messages);
        *messages += 1;
        let unix_ms = u64::try_from(Clock::system().unix_ms()).unwrap();
        let mut random = [0; 10];
        random[..8].copy_from_slice(&(*messages << 12).to_be_bytes());
        MessageId::from_time_and_random(unix_ms, random)
    }

    /// What is due in a shard, as a node reads it.
    pub(crate) async fn queued(&self, shard: ShardNo) -> Vec<QueueRow> {
        let cursors = [(shard, Cursor::START)];
        let now = Clock::system().now();
        self.store.poll(&cursors, now, 1_000).await.unwrap()
    }

    /// Deliveries in the queue, due or not.
    pub(crate) async fn left(&self) -> i64 {
        self.count("SELECT count(*) FROM queue").await
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// Nobody has renewed in time: every lease and every node has lapsed.
    pub(crate) async fn let_leases_lapse(&self) {
        self.execute("UPDATE shard_lease SET expires_at = '-infinity'")
            .await;
        self.execute("UPDATE node SET alive_until = '-infinity'")
            .await;
    }

    /// Runs a statement.
    pub(crate) async fn execute(&self, statement: &str) {
        let mut connection = PgConnection::connect(&self.url).await.unwrap();
        sqlx::query(AssertSqlSafe(statement.to_owned()))
            .execute(&mut connection)
            .await
            .unwrap();
        connection.close().await.unwrap();
    }

    /// One number out of the database.
    pub(crate) async fn count(&self, statement: &str) -> i64 {
        let mut connection = PgConnection::connect(&self.url).await.unwrap();
        let count = sqlx::query_scalar(AssertSqlSafe(statement.to_owned()))
            .fetch_one(&mut connection)
            .await
            .unwrap();
        connection.close().await.unwrap();
        count
    }

    /// Events of the delivery with these bits among their flags, of one type.
    pub(crate) async fn events(&self, row: &QueueRow, kind: i16, flags: i16) -> i64 {
        self.count(&format!(
            "SELECT count(*) FROM event
             WHERE subject = '{}' AND type = {kind} AND flags & {flags} = {flags}",
            row.key.message.uuid()
        ))
        .await
    }
}

/// A node that was opened: only its gate works by itself.
pub(crate) struct TestNode {
    pub(crate) node: Arc<Node>,
    outcomes: tokio::sync::Mutex<mpsc::UnboundedReceiver<Unsettled>>,
    _gate: JoinSet<()>,
    _state_dir: tempfile::TempDir,
}

impl TestNode {
    fn open(state_dir: tempfile::TempDir, store: Store, hold: Duration) -> Self {
        let given = Dependencies {
            store,
            sealer: Arc::new(Sealer::new(SealKey::new(1, [7; 32]), Vec::new())),
            clock: Clock::system(),
            metrics: Arc::new(Metrics::new()),
            shutdown: Shutdown::new(),
            wake: None,
            events_committed: Arc::new(Notify::new()),
        };
        let (node, queues) = Node::open(config(&state_dir, hold), given).unwrap();
        let mut gate = JoinSet::new();
        gate.spawn({
            let node = node.clone();
            async move { Gate::work(&node, &queues.intents).await }
        });
        Self {
            node,
            outcomes: queues.outcomes,
            _gate: gate,
            _state_dir: state_dir,
        }
    }

    /// Renews, and takes what is this node's by now.
    pub(crate) async fn lease(&self) -> Vec<(ShardNo, Epoch)> {
        let node = &self.node;
        let floor = node.state_dir.epoch_floor();
        let round = node.ownership.round(&node.store, floor, node.clock.now());
        let taken = round.await.unwrap();
        if let Some(highest) = taken.iter().map(|(_, epoch)| epoch.0).max() {
            node.state_dir.raise_epoch_floor(highest).unwrap();
        }
        taken
    }

    /// What this node does not know yet of rows that were read.
    pub(crate) fn admit(&self, rows: &[QueueRow]) -> Vec<QueueRow> {
        self.node.memory.read_begins();
        self.node.memory.admit(rows.to_vec())
    }

    /// A permit for the final dot.
    pub(crate) async fn permit(&self, row: &QueueRow) -> Intent {
        match self.node.gate.ask(row).await {
            Permit::Granted(intent) => intent,
            no => panic!("the final dot was not allowed: {no:?}"),
        }
    }

    /// The receiver's 250 was read: journaled when this returns.
    pub(crate) async fn delivered(&self, row: &QueueRow, intent: Intent, reply: &str) {
        let reply = Reply::from_diagnostic(reply).unwrap();
        let attempted = Attempted::delivered(row.clone(), reply);
        conclude(&self.node, attempted, Some(intent)).await;
    }

    /// Lets a settler work until nothing waits for it.
    pub(crate) async fn settle(&self) {
        tokio::select! {
            () = Settler::work(&self.node, &self.outcomes) => {}
            () = until("all outcomes are dealt with", || self.node.settler.unsettled() == 0) => {}
        }
    }
}

fn config(state_dir: &tempfile::TempDir, hold: Duration) -> MtaConfig {
    MtaConfig {
        node_name: "bedded".to_owned(),
        queue_group: 0,
        state_dir: state_dir.path().to_owned(),
        journal: JournalConfig {
            segment_bytes: SEGMENT_BYTES,
            sync: false,
        },
        lease_ttl: LEASE_TTL,
        ambiguous_hold: hold,
        sources: vec![EgressSource {
            number: 0,
            address: None,
            ehlo: "bedded.test".to_owned(),
        }],
        routing: RoutingConfig {
            offline: true,
            ..RoutingConfig::default()
        },
        sandbox: None,
        return_path: ReturnPath {
            domain: "bounce.test".parse().unwrap(),
            key: Arc::new(VerpKey::new(1, &[7; 32])),
        },
        deadlines: Deadlines::uniform(PATIENCE),
        limits: MtaLimits::default(),
        real_time: true,
    }
}
