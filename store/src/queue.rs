//! The queue as its owner reads it: forward, keys only, no row written to claim.
//! What takes rows out or moves them stands in `settle.rs`.

use mail::ids::{MessageId, NodeId};
use serde::{Deserialize, Serialize};
use sqlx::FromRow;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::database::Store;
use crate::decode::{signed, unsigned};
use crate::error::{During, StoreError};
use crate::numbers::{AccountNo, Epoch, PoolNo, QueueFlags, RecipientDomainNo, ShardNo, StreamNo};

/// Shards of each class in the default queue group, as the first migration makes them.
pub const SHARDS_A_CLASS: i16 = 8;

/// One recipient's copy of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DeliveryKey {
    /// The send.
    pub message: MessageId,
    /// Which recipient of it, from 0.
    pub rcpt: u16,
}

/// An unfinished delivery. `(shard, next_at, key, attempt)` names one state of it: a settle removes
/// that name for ever.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueRow {
    /// Who owns it.
    pub shard: ShardNo,
    /// Not before this time.
    #[serde(with = "time::serde::timestamp::microseconds")]
    pub next_at: OffsetDateTime,
    /// Which delivery.
    pub key: DeliveryKey,
    /// Whose.
    pub account: AccountNo,
    /// Of which kind.
    pub stream: StreamNo,
    /// Where to.
    pub domain: RecipientDomainNo,
    /// The pool the request named, if it named one.
    pub pool: Option<PoolNo>,
    /// Attempts finished.
    pub attempt: u16,
    /// What earlier attempts left behind.
    pub flags: QueueFlags,
    /// When the first attempt was due.
    #[serde(with = "time::serde::timestamp::microseconds")]
    pub first_at: OffsetDateTime,
    /// No attempt after this time.
    #[serde(with = "time::serde::timestamp::microseconds")]
    pub expires_at: OffsetDateTime,
}

/// A row as a statement names it.
pub type RowRef<'a> = &'a QueueRow;

/// How far a shard was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    /// Of the last row read.
    pub next_at: OffsetDateTime,
    /// Of the last row read.
    pub message: Uuid,
    /// Of the last row read; -1 is before all.
    pub rcpt: i16,
}

impl Cursor {
    /// Before every row.
    pub const START: Self = Self {
        next_at: OffsetDateTime::UNIX_EPOCH,
        message: Uuid::nil(),
        rcpt: -1,
    };

    /// Just after this row.
    pub fn after(row: &QueueRow) -> Self {
        Self {
            next_at: row.next_at,
            message: row.key.message.uuid(),
            rcpt: signed(row.key.rcpt),
        }
    }
}

/// What a node believes to own. Every write about a shard is made under it and changes nothing
/// where it is out of date.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fence {
    /// The node.
    pub owner: NodeId,
    /// Its shards and under which epoch it took them.
    pub held: Vec<(ShardNo, Epoch)>,
}

impl Fence {
    pub(crate) fn shards(&self) -> Vec<i16> {
        self.held.iter().map(|(shard, _)| shard.0).collect()
    }

    pub(crate) fn epochs(&self) -> Vec<i64> {
        self.held.iter().map(|(_, epoch)| epoch.0).collect()
    }
}

/// How much of a shard is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueDepth {
    /// Which.
    pub shard: ShardNo,
    /// Rows due; counting stops at 100,000.
    pub due: i64,
    /// When the oldest of them was due.
    pub oldest_due: Option<OffsetDateTime>,
}

#[derive(FromRow)]
struct Row {
    shard: i16,
    next_at: OffsetDateTime,
    message_id: Uuid,
    rcpt: i16,
    account: i32,
    stream: i32,
    domain: i32,
    pool: Option<i32>,
    attempt: i16,
    flags: i16,
    first_at: OffsetDateTime,
    expires_at: OffsetDateTime,
}

impl TryFrom<Row> for QueueRow {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        Ok(Self {
            shard: ShardNo(row.shard),
            next_at: row.next_at,
            key: DeliveryKey {
                message: MessageId::from_uuid(row.message_id),
                rcpt: unsigned("recipient number", row.rcpt)?,
            },
            account: AccountNo(row.account),
            stream: StreamNo(row.stream),
            domain: RecipientDomainNo(row.domain),
            pool: row.pool.map(PoolNo),
            attempt: unsigned("attempt number", row.attempt)?,
            flags: QueueFlags::from_bits(row.flags),
            first_at: row.first_at,
            expires_at: row.expires_at,
        })
    }
}

/// The five arrays that name queue rows in a statement.
#[derive(Default)]
pub(crate) struct RowNames {
    pub(crate) shards: Vec<i16>,
    pub(crate) next_ats: Vec<OffsetDateTime>,
    pub(crate) messages: Vec<Uuid>,
    pub(crate) rcpts: Vec<i16>,
    pub(crate) attempts: Vec<i16>,
}

impl<'a> FromIterator<RowRef<'a>> for RowNames {
    fn from_iter<I: IntoIterator<Item = RowRef<'a>>>(rows: I) -> Self {
        let mut names = Self::default();
        for row in rows {
            names.shards.push(row.shard.0);
            names.next_ats.push(row.next_at);
            names.messages.push(row.key.message.uuid());
            names.rcpts.push(signed(row.key.rcpt));
            names.attempts.push(signed(row.attempt));
        }
        names
    }
}

impl Store {
    /// Rows due by `now` after each shard's cursor, in the order of each shard.
    ///
    /// # Errors
    /// Of the database.
    pub async fn poll(
        &self,
        cursors: &[(ShardNo, Cursor)],
        now: OffsetDateTime,
        limit_per_shard: i64,
    ) -> Result<Vec<QueueRow>, StoreError> {
        let rows: Vec<Row> = sqlx::query_as(include_str!("../queries/poll.sql"))
            .bind(
                cursors
                    .iter()
                    .map(|(shard, _)| shard.0)
                    .collect::<Vec<i16>>(),
            )
            .bind(
                cursors
                    .iter()
                    .map(|(_, at)| at.next_at)
                    .collect::<Vec<OffsetDateTime>>(),
            )
            .bind(
                cursors
                    .iter()
                    .map(|(_, at)| at.message)
                    .collect::<Vec<Uuid>>(),
            )
            .bind(cursors.iter().map(|(_, at)| at.rcpt).collect::<Vec<i16>>())
            .bind(now)
            .bind(limit_per_shard)
            .fetch_all(&self.queue)
            .await
            .during("read the queue forward")?;
        rows.into_iter().map(QueueRow::try_from).collect()
    }

    /// How much is due in each shard; for a metric every few seconds, not for decisions.
    ///
    /// # Errors
    /// Of the database.
    pub async fn queue_depths(&self, now: OffsetDateTime) -> Result<Vec<QueueDepth>, StoreError> {
        let rows: Vec<(i16, i64, Option<OffsetDateTime>)> = sqlx::query_as(
            "SELECT l.shard, d.due, o.next_at
             FROM shard_lease l
             CROSS JOIN LATERAL (
               SELECT count(*) AS due FROM (
                 SELECT FROM queue q WHERE q.shard = l.shard AND q.next_at <= $1 LIMIT 100000) t) d
             LEFT JOIN LATERAL (
               SELECT q.next_at FROM queue q WHERE q.shard = l.shard AND q.next_at <= $1
               ORDER BY q.next_at LIMIT 1) o ON true
             ORDER BY l.shard",
        )
        .bind(now)
        .fetch_all(&self.general)
        .await
        .during("measure the queue")?;
        let depth = |(shard, due, oldest_due)| QueueDepth {
            shard: ShardNo(shard),
            due,
            oldest_due,
        };
        Ok(rows.into_iter().map(depth).collect())
    }
}
