//! What the tests of the worker stand on: a real database of their own, a clock they move, and a
//! real HTTP receiver.

mod database;
mod receiver;

use std::sync::Arc;
use std::time::Duration;

use mail::domain_name::DomainName;
use mail::event::EventType;
use mail::ids::{
    AccountId, DomainId, EventId, MessageId, NodeId, StreamId, WebhookEndpointId, uuid_v7,
};
use mail::retry::StreamClass;
use service::clock::{Clock, ClockFile};
use service::metrics::Metrics;
use service::resolver::Resolver;
use service::shutdown::Shutdown;
use sqlx::PgPool;
use store::{Account, EndpointNo, NewEndpoint, SealKey, Sealer, Store, StoreOptions, Stream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use uuid::Uuid;
use worker::{WorkerConfig, WorkerError};

pub(crate) use receiver::{Received, Receiver, Reply};

/// How long a test waits for what must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) const SECRET: &[u8; 32] = b"a secret of thirty-two octets!!!";

/// One account on an installation of its own.
pub(crate) struct Platform {
    pub(crate) store: Store,
    pub(crate) account: Account,
    clock_file: ClockFile,
    pub(crate) pool: PgPool,
    pub(crate) sealer: Sealer,
    pub(crate) clock: Clock,
    stream: Stream,
    node: NodeId,
    /// Where the worker looks at records of domains; nowhere unless a test says so.
    pub(crate) resolver: Resolver,
    _clock_dir: tempfile::TempDir,
    _database: database::Database,
}

impl Platform {
    /// None, and a loud line, when this machine has no PostgreSQL.
    pub(crate) async fn start() -> Option<Self> {
        let database = database::Database::create().await?;
        Store::migrate(&database.url).await.unwrap();
        let store = Store::connect(StoreOptions::new(&database.url))
            .await
            .unwrap();
        let clock_dir = tempfile::tempdir().unwrap();
        let clock_file = ClockFile::create(clock_dir.path().join("clock")).unwrap();
        let clock = Clock::from_file(clock_file.path()).unwrap();
        let now = clock.now();
        store
            .make_partitions(std::iter::once(now.date()))
            .await
            .unwrap();
        let account = AccountId::from_uuid(Uuid::new_v4());
        let account = store.create_account(account, "Acme", now).await.unwrap();
        let stream = StreamId::from_uuid(Uuid::new_v4());
        let class = StreamClass::Transactional;
        let stream = store
            .create_stream(stream, account.no, "receipts", class)
            .await
            .unwrap();
        let domain: DomainName = "acme.test".parse().unwrap();
        let domain_id = DomainId::from_uuid(Uuid::new_v4());
        store
            .create_domain(domain_id, account.no, &domain, now)
            .await
            .unwrap();
        Some(Self {
            pool: PgPool::connect(&database.url).await.unwrap(),
            store,
            account,
            clock_file,
            sealer: Sealer::new(SealKey::new(1, [7; 32]), Vec::new()),
            clock,
            stream,
            node: NodeId::from_uuid(Uuid::new_v4()),
            resolver: Resolver::offline(),
            _clock_dir: clock_dir,
            _database: database,
        })
    }

    /// Starts the worker of the installation's first node.
    pub(crate) fn worker(&self) -> Worker {
        self.worker_of(self.node)
    }

    pub(crate) fn worker_of(&self, node: NodeId) -> Worker {
        let (metrics, shutdown) = (Arc::new(Metrics::new()), Shutdown::new());
        let loopback = ["127.0.0.0/8".parse().unwrap()];
        let config = WorkerConfig {
            node,
            name: "test".into(),
            max_webhook_calls: 64.try_into().unwrap(),
            webhook_allowed_networks: loopback.to_vec(),
            resolver: self.resolver.clone(),
            return_path_domain: Some("bounces.test".parse().unwrap()),
            webhook_ports: vec![80, 443],
            events_committed: Arc::new(Notify::new()),
        };
        let (store, sealer, clock) = (self.store.clone(), self.sealer.clone(), self.clock.clone());
        let task = tokio::spawn(worker::run(
            config,
            store,
            sealer,
            clock,
            Arc::clone(&metrics),
            shutdown.clone(),
        ));
        Worker {
            task,
            shutdown,
            metrics,
        }
    }

    /// Registers the receiver for `email.queued`.
    pub(crate) async fn endpoint(&self, receiver: &Receiver) -> (EndpointNo, WebhookEndpointId) {
        self.endpoint_for(&self.account, &receiver.url, &[EventType::EmailQueued])
            .await
    }

    pub(crate) async fn endpoint_for(
        &self,
        account: &Account,
        url: &str,
        types: &[EventType],
    ) -> (EndpointNo, WebhookEndpointId) {
        let id = WebhookEndpointId::from_uuid(Uuid::new_v4());
        let new = NewEndpoint {
            id,
            account: account.no,
            url,
            types,
            secret: SECRET,
        };
        let made = self
            .store
            .create_endpoint(&new, 50, &self.sealer, self.clock.now());
        (made.await.unwrap().unwrap(), id)
    }

    /// Another account.
    pub(crate) async fn other_account(&self) -> Account {
        let id = AccountId::from_uuid(Uuid::new_v4());
        let made = self.store.create_account(id, "Other", self.clock.now());
        made.await.unwrap()
    }

    /// Writes messages to one recipient each, with their `email.queued` events, in one
    /// transaction, as accepting does.
    pub(crate) async fn send(&self, count: usize) -> Vec<EventId> {
        self.send_for(&self.account, count).await
    }

    pub(crate) async fn send_for(&self, account: &Account, count: usize) -> Vec<EventId> {
        let unix_ms = self.clock.unix_ms() as u64;
        let random = || rand_bytes(Uuid::new_v4());
        let messages: Vec<Uuid> = (0..count)
            .map(|_| MessageId::from_time_and_random(unix_ms, random()).uuid())
            .collect();
        let events: Vec<Uuid> = (0..count).map(|_| uuid_v7(unix_ms, random())).collect();
        sqlx::query(
            "WITH m AS (
               INSERT INTO message (id, content_id, account, stream, domain, content_class, shard,
                                    flags, sender, rfc_message_id, subject, recipients, tags,
                                    metadata)
               SELECT id, id, $3, $4, 1, 1, 0, 0, 'Acme <hello@acme.test>', '<1@acme.test>', 'Hi',
                      ARRAY['ana@example.com'], ARRAY['receipt'], '{\"order\":\"7\"}'
               FROM unnest($1::uuid[]) AS u (id))
             INSERT INTO event (id, subject, account, type, rcpt, sequence, attempt, flags)
             SELECT e, m, $3, $5, 0, 1, 0, 0 FROM unnest($1::uuid[], $2::uuid[]) AS u (m, e)",
        )
        .bind(&messages)
        .bind(&events)
        .bind(account.no.0)
        .bind(self.stream.no.0)
        .bind(EventType::EmailQueued.code())
        .execute(&self.pool)
        .await
        .unwrap();
        events.into_iter().map(EventId::from_uuid).collect()
    }

    /// Moves time, and returns when this process's clock shows it.
    pub(crate) async fn advance(&self, step: Duration) {
        let then = self.clock.now() + step;
        self.clock_file.advance(step).unwrap();
        while self.clock.now() < then {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Partitions of the day it is by now.
    pub(crate) async fn make_partitions(&self) {
        let today = self.clock.now().date();
        self.store
            .make_partitions(std::iter::once(today))
            .await
            .unwrap();
    }

    /// For an id of this moment.
    pub(crate) fn fresh_uuid(&self) -> Uuid {
        uuid_v7(self.clock.unix_ms() as u64, rand_bytes(Uuid::new_v4()))
    }

    /// Calls that are set aside, by how often they were made.
    pub(crate) async fn pending(&self) -> Vec<i16> {
        sqlx::query_scalar("SELECT attempt FROM webhook_pending ORDER BY attempt")
            .fetch_all(&self.pool)
            .await
            .unwrap()
    }

    /// Waits until the calls that are set aside were made that often.
    pub(crate) async fn pending_becomes(&self, expected: &[i16]) {
        let reached = async {
            while self.pending().await != expected {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, reached).await;
        assert!(
            waited.is_ok(),
            "pending: {:?}, not {expected:?}",
            self.pending().await
        );
    }
}

fn rand_bytes(random: Uuid) -> [u8; 10] {
    let mut bytes = [0; 10];
    bytes.copy_from_slice(&random.as_bytes()[6..]);
    bytes
}

/// A running worker.
pub(crate) struct Worker {
    pub(crate) metrics: Arc<Metrics>,
    task: JoinHandle<Result<(), WorkerError>>,
    shutdown: Shutdown,
}

impl Worker {
    /// Ends it in good order.
    pub(crate) async fn stop(self) {
        self.shutdown.request();
        tokio::time::timeout(PATIENCE, self.task)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
    }

    /// Ends it as `kill -9` would: nothing it holds gets a chance to finish.
    pub(crate) async fn kill(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }

    /// Waits until a line of the metrics is there.
    pub(crate) async fn shows(&self, line: &str) {
        let shown = async {
            while !self.metrics.render().lines().any(|found| found == line) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, shown).await;
        assert!(
            waited.is_ok(),
            "{line} is not in\n{}",
            self.metrics.render()
        );
    }
}
