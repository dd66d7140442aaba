//! Accepting mail: concurrent requests share one statement and one commit.
//!
//! An answer is given after the commit only. A request is never split; one that PostgreSQL refuses
//! fails alone. Nothing is decided here about the mail itself.

mod batch;
mod columns;
mod idempotency;
mod job;

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mail::address::EmailAddress;
use mail::ids::MessageId;
use mail::retry::StreamClass;
use time::OffsetDateTime;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::database::Store;
use crate::error::{During, StoreError};
use crate::hints::QueueHints;
use crate::numbers::{
    AccountNo, DomainNo, MessageFlags, PoolNo, RecipientDomainNo, ShardNo, StreamNo,
};
use crate::queue::DeliveryKey;
use batch::{Committer, run_lane};
use job::Job;

/// Batches that overlap: one commits while the other is filled and compressed.
const LANES: usize = 2;
/// Requests that may wait for a batch; more are refused at once.
const WAITING_MAX: usize = 4_096;
/// Octets of content that may wait or be on their way, in all.
const WAITING_MAX_KB: usize = 128 * 1024;
/// A request with more content than this would hold up a batch: it takes a connection of its own.
const BATCHED_MAX_OCTETS: usize = 256 * 1024;
/// And so does one with more deliveries.
const BATCHED_MAX_DELIVERIES: usize = 64;

/// One API request: one or more messages that are accepted together or not at all.
#[derive(Debug, Clone)]
pub struct AcceptRequest {
    /// Whose.
    pub account: AccountNo,
    /// The sender's key, if it gave one.
    pub idempotency: Option<IdempotencyKey>,
    /// What to send.
    pub messages: Vec<NewMessage>,
}

/// Makes a repeated request harmless for 24 hours.
#[derive(Debug, Clone)]
pub struct IdempotencyKey {
    /// SHA-256 of path and key.
    pub key_hash: [u8; 32],
    /// SHA-256 of the request's body.
    pub body_hash: [u8; 32],
    /// The answer a repetition gets.
    pub response: String,
}

/// One message to be accepted.
#[derive(Debug, Clone)]
pub struct NewMessage {
    /// Made by the caller, so that a repeated commit changes nothing.
    pub id: MessageId,
    /// Whose.
    pub account: AccountNo,
    /// Of which kind.
    pub stream: StreamNo,
    /// How urgent: chooses among the shards.
    pub class: StreamClass,
    /// The sending domain.
    pub domain: DomainNo,
    /// What it asks of its transport.
    pub flags: MessageFlags,
    /// The From field as given.
    pub sender: String,
    /// The Message-ID field.
    pub rfc_message_id: String,
    /// Decoded.
    pub subject: String,
    /// As given; without line ends.
    pub tags: Vec<String>,
    /// JSON, as given.
    pub metadata: Option<String>,
    /// The pool the request named.
    pub pool: Option<PoolNo>,
    /// Not before this time.
    pub due_at: OffsetDateTime,
    /// No attempt after this time.
    pub expires_at: OffsetDateTime,
    /// One delivery each, in this order.
    pub recipients: Vec<NewRecipient>,
    /// Messages of a request that share it store it once.
    pub content: Arc<NewContent>,
    /// The fields that are its own, each with its CRLF, where the content is not a whole message.
    pub header: Option<String>,
    /// JSON of its variables, where the content is a template.
    pub variables: Option<String>,
}

/// One recipient.
#[derive(Debug, Clone)]
pub struct NewRecipient {
    /// Where to.
    pub address: EmailAddress,
    /// Its domain, interned.
    pub domain: RecipientDomainNo,
}

/// What goes on the wire, but for the header block of each delivery.
#[derive(Debug, Clone)]
pub struct NewContent {
    /// What `bytes` are.
    pub kind: ContentKind,
    /// How long it is kept.
    pub class: RetentionClass,
    /// Octets of `bytes` that are the header; 0 in a template.
    pub header_len: usize,
    /// Header and body, plain.
    pub bytes: Bytes,
    /// SHA-256 of the canonicalised body, for DKIM; of no meaning in a template.
    pub body_hash: [u8; 32],
}

/// What the octets of a content row are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentKind {
    /// A whole message, of this message alone.
    Message,
    /// A MIME entity: the header of each message that shares it goes before it.
    Entity,
    /// A template: each message that shares it makes an entity of it with its variables.
    Template,
}

/// How many days content is kept after it was due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RetentionClass {
    /// One day.
    Day,
    /// Seven days.
    Week,
    /// Thirty days.
    Month,
}

impl RetentionClass {
    /// Days, as stored.
    pub fn days(self) -> i16 {
        match self {
            Self::Day => 1,
            Self::Week => 7,
            Self::Month => 30,
        }
    }
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Accepted {
    /// Committed.
    Stored,
    /// Committed; these deliveries ended at once, because their recipients are suppressed.
    Screened {
        /// In no order; at least one.
        suppressed: HashSet<DeliveryKey>,
    },
    /// The same request was accepted before: nothing was stored.
    Replayed {
        /// What it was answered then.
        response: String,
    },
    /// The key was used for another request: nothing was stored.
    KeyConflict,
}

/// Watches the acceptor, for metrics. Called on its tasks: must not wait.
pub trait AcceptObserver: Send + Sync {
    /// A batch of so many deliveries and plain octets was committed in that time.
    fn committed(&self, deliveries: usize, octets: usize, took: Duration);

    /// A request was refused because too much was waiting.
    fn refused(&self);
}

/// Nobody watches.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoObserver;

impl AcceptObserver for NoObserver {
    fn committed(&self, _deliveries: usize, _octets: usize, _took: Duration) {}

    fn refused(&self) {}
}

/// Where the time comes from.
pub type ClockNow = Arc<dyn Fn() -> OffsetDateTime + Send + Sync>;

/// Accepts requests. Clones share the lanes.
#[derive(Clone)]
pub struct Acceptor {
    waiting: mpsc::Sender<Job>,
    budget_kb: Arc<Semaphore>,
    committer: Arc<Committer>,
    tracker: TaskTracker,
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptor").finish_non_exhaustive()
    }
}

impl Acceptor {
    /// Starts the lanes on the current tokio runtime. After `shutdown` new requests are refused
    /// and what waits is still committed; see [`Acceptor::drained`].
    pub fn start(
        store: Store,
        clock_now: ClockNow,
        hints: Arc<dyn QueueHints>,
        observer: Arc<dyn AcceptObserver>,
        shutdown: CancellationToken,
    ) -> Self {
        let (waiting, inbox) = mpsc::channel(WAITING_MAX);
        let committer = Arc::new(Committer::new(store, clock_now, hints, observer));
        let tracker = TaskTracker::new();
        let inbox = Arc::new(batch::Inbox::new(inbox, shutdown));
        for _ in 0..LANES {
            tracker.spawn(run_lane(committer.clone(), inbox.clone(), tracker.clone()));
        }
        tracker.close();
        let budget_kb = Arc::new(Semaphore::new(WAITING_MAX_KB));
        Self {
            waiting,
            budget_kb,
            committer,
            tracker,
        }
    }

    /// Stores a request durably. The caller may stop waiting: the request is then stored or not.
    ///
    /// # Errors
    /// `Unavailable` when too much is waiting or the database is not there, `CommitUnknown` when it
    /// went away twice in mid-commit: both may be tried again with the same ids. `Invalid` or
    /// `Database` when this request cannot be stored.
    pub async fn accept(&self, request: AcceptRequest) -> Result<Accepted, StoreError> {
        let (reply, answer) = oneshot::channel();
        let job = Job::new(request, (self.committer.clock_now)(), reply)?;
        let big = job.octets > BATCHED_MAX_OCTETS || job.deliveries() > BATCHED_MAX_DELIVERIES;
        let kilobytes = u32::try_from(job.octets / 1024 + 1).unwrap_or(u32::MAX);
        let Ok(permit) = self.budget_kb.clone().try_acquire_many_owned(kilobytes) else {
            return Err(self.refuse());
        };
        let job = job.holding(permit);
        if big {
            self.committer.clone().spawn_alone(job, &self.tracker);
        } else if self.waiting.try_send(job).is_err() {
            return Err(self.refuse());
        }
        answer.await.unwrap_or_else(|_| Err(self.refuse()))
    }

    /// Tells the owners of these shards that commands wait for them, if they can be told at once.
    pub fn tell_commanded(&self, shards: &[ShardNo]) {
        self.committer.hints.commanded(shards);
    }

    fn refuse(&self) -> StoreError {
        self.committer.observer.refused();
        StoreError::Unavailable {
            operation: "accept mail",
            source: None,
        }
    }

    /// Returns when all lanes have ended after shutdown, with nothing left on its way.
    pub async fn drained(&self) {
        self.tracker.wait().await;
    }
}

impl Store {
    /// Forgets idempotency keys made before a time, some thousands at a time; returns how many.
    ///
    /// # Errors
    /// Of the database; what was forgotten stays so.
    pub async fn age_out_idempotency(&self, before: OffsetDateTime) -> Result<u64, StoreError> {
        const CHUNK: u32 = 10_000;
        let mut gone = 0;
        loop {
            let done = sqlx::query(
                "DELETE FROM idempotency WHERE ctid = ANY (ARRAY(
                   SELECT ctid FROM idempotency WHERE created_at < $1 LIMIT $2))",
            )
            .bind(before)
            .bind(i64::from(CHUNK))
            .execute(&self.general)
            .await
            .during("age out idempotency keys")?;
            gone += done.rows_affected();
            if done.rows_affected() < u64::from(CHUNK) {
                return Ok(gone);
            }
        }
    }
}
