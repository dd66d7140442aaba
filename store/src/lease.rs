//! Leases: who owns which shard and which reader of the event log, and who is alive.
//! The only place whose statements use a clock of their own, the server's: it is the one that all
//! nodes share. Nothing else is decided by it.

mod search;

use std::time::Duration;

use mail::ids::NodeId;
use mail::retry::StreamClass;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::database::Store;
use crate::decode::stream_class;
use crate::error::{During, StoreError};
use crate::numbers::{Epoch, ShardNo};
use crate::queue::Fence;
use crate::webhook_log::LogCursor;

pub use search::SearchLease;

/// Renews what `$1` holds, at most `$3` of them, and takes what is free up to that number. Numbers
/// beyond are given back, for others to take. `$2` seconds.
const TAKE_DISPATCHERS: &str = "
WITH candidate AS MATERIALIZED (
  SELECT d.number, d.owner = $1::uuid AND d.expires_at >= now() AS mine
  FROM dispatcher_lease d
  WHERE d.owner = $1::uuid OR d.owner IS NULL OR d.expires_at < now()
  ORDER BY d.number
  FOR UPDATE OF d),
ranked AS (
  SELECT number, coalesce(mine, false) AS mine,
         row_number() OVER (ORDER BY coalesce(mine, false) DESC, number) AS rank
  FROM candidate),
given AS (
  UPDATE dispatcher_lease d SET owner = NULL, expires_at = '-infinity'
  FROM ranked r WHERE r.number = d.number AND r.rank > $3::int8 AND d.owner = $1::uuid)
UPDATE dispatcher_lease d
SET owner = $1::uuid, expires_at = now() + make_interval(secs => $2::float8),
    epoch = CASE WHEN r.mine THEN d.epoch ELSE d.epoch + 1 END
FROM ranked r WHERE r.number = d.number AND r.rank <= $3::int8
RETURNING d.number, d.epoch, d.cursor_xid::text, d.cursor_id";

/// A shard and who holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseRow {
    /// Which.
    pub shard: ShardNo,
    /// Whose mail it takes.
    pub class: StreamClass,
    /// Within group and class, from 0.
    pub number: i16,
    /// None when nobody has it.
    pub owner: Option<NodeId>,
    /// How often it was taken.
    pub epoch: Epoch,
    /// The owner has not renewed in time: anyone may take it.
    pub lapsed: bool,
}

/// What a renewal brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renewed {
    /// Shards not in this list are lost.
    pub still_held: Vec<ShardNo>,
    /// To compare one's own clock with.
    pub server_now: OffsetDateTime,
}

/// A reader of the event log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DispatcherLease {
    /// 0 to 15: the accounts whose number leaves this remainder.
    pub number: i16,
    /// How often it was taken.
    pub epoch: Epoch,
    /// How far its log was dealt with.
    pub cursor: LogCursor,
}

impl Store {
    /// Says that this node lives for `ttl`, and returns who else does, itself included. Group 0 is
    /// the default queue group; negative groups are for roles that own no shards.
    ///
    /// # Errors
    /// Of the database.
    pub async fn heartbeat(
        &self,
        node: NodeId,
        name: &str,
        group: i16,
        ttl: Duration,
    ) -> Result<Vec<NodeId>, StoreError> {
        let alive: Vec<Uuid> = sqlx::query_scalar(include_str!("../queries/lease_nodes.sql"))
            .bind(node.uuid())
            .bind(name)
            .bind(group)
            .bind(ttl.as_secs_f64())
            .fetch_all(&self.lease)
            .await
            .during("send a heartbeat")?;
        Ok(alive.into_iter().map(NodeId::from_uuid).collect())
    }

    /// All shards of a queue group.
    ///
    /// # Errors
    /// Of the database.
    pub async fn shards(&self, group: i16) -> Result<Vec<LeaseRow>, StoreError> {
        let rows: Vec<(i16, i16, i16, Option<Uuid>, i64, bool)> = sqlx::query_as(
            "SELECT shard, class, number, owner, epoch, expires_at < now()
             FROM shard_lease WHERE queue_group = $1 ORDER BY shard",
        )
        .bind(group)
        .fetch_all(&self.lease)
        .await
        .during("read the shards")?;
        rows.into_iter()
            .map(|(shard, class, number, owner, epoch, lapsed)| {
                Ok(LeaseRow {
                    shard: ShardNo(shard),
                    class: stream_class(class)?,
                    number,
                    owner: owner.map(NodeId::from_uuid),
                    epoch: Epoch(epoch),
                    lapsed,
                })
            })
            .collect()
    }

    /// Keeps what is held for `ttl` from now. Does not wait for running settles.
    ///
    /// # Errors
    /// Of the database; the caller's deadline counts from before the last call that succeeded.
    pub async fn renew(&self, fence: &Fence, ttl: Duration) -> Result<Renewed, StoreError> {
        let operation = "renew leases";
        let held: Vec<i16> = sqlx::query_scalar(include_str!("../queries/lease_renew.sql"))
            .bind(fence.owner.uuid())
            .bind(fence.shards())
            .bind(fence.epochs())
            .bind(ttl.as_secs_f64())
            .fetch_all(&self.lease)
            .await
            .during(operation)?;
        let server_now = sqlx::query_scalar("SELECT clock_timestamp()")
            .fetch_one(&self.lease)
            .await
            .during(operation)?;
        Ok(Renewed {
            still_held: held.into_iter().map(ShardNo).collect(),
            server_now,
        })
    }

    /// Takes those of the shards that are free, lapsed or the owner's own from an earlier life,
    /// each under a new epoch above `epoch_floor`. Waits for settles running under the old epoch.
    ///
    /// # Errors
    /// Of the database.
    pub async fn take(
        &self,
        owner: NodeId,
        shards: &[ShardNo],
        ttl: Duration,
        epoch_floor: i64,
    ) -> Result<Vec<(ShardNo, Epoch)>, StoreError> {
        let rows: Vec<(i16, i64)> = sqlx::query_as(include_str!("../queries/lease_take.sql"))
            .bind(owner.uuid())
            .bind(shards.iter().map(|shard| shard.0).collect::<Vec<i16>>())
            .bind(ttl.as_secs_f64())
            .bind(epoch_floor)
            .fetch_all(&self.lease)
            .await
            .during("take shards")?;
        Ok(rows
            .into_iter()
            .map(|(shard, epoch)| (ShardNo(shard), Epoch(epoch)))
            .collect())
    }

    /// Gives shards back after draining.
    ///
    /// # Errors
    /// Of the database; then they lapse by themselves.
    pub async fn release(&self, fence: &Fence) -> Result<(), StoreError> {
        sqlx::query(include_str!("../queries/lease_release.sql"))
            .bind(fence.owner.uuid())
            .bind(fence.shards())
            .bind(fence.epochs())
            .execute(&self.lease)
            .await
            .during("release shards")?;
        Ok(())
    }

    /// Renews the readers of the event log that `owner` holds and takes free ones, `max` in all;
    /// those it holds beyond `max` are given back. A fair share is 16 divided by the workers alive
    /// (see [`Store::heartbeat`]), rounded up.
    ///
    /// # Errors
    /// Of the database.
    pub async fn dispatchers_take(
        &self,
        owner: Uuid,
        ttl: Duration,
        max: usize,
    ) -> Result<Vec<DispatcherLease>, StoreError> {
        let rows: Vec<(i16, i64, String, Uuid)> = sqlx::query_as(TAKE_DISPATCHERS)
            .bind(owner)
            .bind(ttl.as_secs_f64())
            .bind(i64::try_from(max).unwrap_or(i64::MAX))
            .fetch_all(&self.general)
            .await
            .during("take readers of the event log")?;
        rows.into_iter()
            .map(|(number, epoch, xid, id)| {
                let cursor = LogCursor::from_columns(&xid, id)?;
                Ok(DispatcherLease {
                    number,
                    epoch: Epoch(epoch),
                    cursor,
                })
            })
            .collect()
    }

    /// Notes how far logs were dealt with; returns the numbers still held under their epochs.
    ///
    /// # Errors
    /// Of the database; a cursor that was not saved means calls made twice, none lost.
    pub async fn dispatchers_save(
        &self,
        owner: Uuid,
        cursors: &[(i16, Epoch, LogCursor)],
    ) -> Result<Vec<i16>, StoreError> {
        let xids: Vec<String> = cursors.iter().map(|(.., at)| at.xid.to_string()).collect();
        sqlx::query_scalar(
            "WITH mine AS MATERIALIZED (
               SELECT d.number, u.xid::xid8 AS xid, u.id
               FROM unnest($2::int2[], $3::int8[], $4::text[], $5::uuid[])
                    AS u (number, epoch, xid, id)
               JOIN dispatcher_lease d ON d.number = u.number AND d.epoch = u.epoch
               WHERE d.owner = $1
               ORDER BY d.number
               FOR NO KEY UPDATE OF d)
             UPDATE dispatcher_lease d SET cursor_xid = mine.xid, cursor_id = mine.id
             FROM mine WHERE d.number = mine.number
             RETURNING d.number",
        )
        .bind(owner)
        .bind(
            cursors
                .iter()
                .map(|(number, ..)| *number)
                .collect::<Vec<i16>>(),
        )
        .bind(
            cursors
                .iter()
                .map(|(_, epoch, _)| epoch.0)
                .collect::<Vec<i64>>(),
        )
        .bind(xids)
        .bind(cursors.iter().map(|(.., at)| at.id).collect::<Vec<Uuid>>())
        .fetch_all(&self.general)
        .await
        .during("save cursors of the event log")
    }

    /// Gives readers back, of those still held under their epochs: one that was taken anew by a
    /// successor of the same name is not this holder's to give.
    ///
    /// # Errors
    /// Of the database; then they lapse by themselves.
    pub async fn dispatchers_release(
        &self,
        owner: Uuid,
        held: &[(i16, Epoch)],
    ) -> Result<(), StoreError> {
        sqlx::query(
            "WITH mine AS MATERIALIZED (
               SELECT d.number
               FROM unnest($2::int2[], $3::int8[]) AS u (number, epoch)
               JOIN dispatcher_lease d ON d.number = u.number AND d.epoch = u.epoch
               WHERE d.owner = $1
               ORDER BY d.number
               FOR NO KEY UPDATE OF d)
             UPDATE dispatcher_lease d SET owner = NULL, expires_at = '-infinity'
             FROM mine WHERE d.number = mine.number",
        )
        .bind(owner)
        .bind(held.iter().map(|(number, _)| *number).collect::<Vec<i16>>())
        .bind(held.iter().map(|(_, epoch)| epoch.0).collect::<Vec<i64>>())
        .execute(&self.general)
        .await
        .during("release readers of the event log")?;
        Ok(())
    }

    /// How long the oldest transaction of the whole server that has written something is running:
    /// webhooks wait for it, whatever database it is in. None when there is none.
    ///
    /// # Errors
    /// Of the database.
    pub async fn oldest_write_transaction_age(&self) -> Result<Option<Duration>, StoreError> {
        let age_secs: Option<f64> = sqlx::query_scalar(
            "SELECT max(extract(epoch FROM clock_timestamp() - xact_start))::float8
             FROM pg_stat_activity
             WHERE backend_xid IS NOT NULL",
        )
        .fetch_one(&self.general)
        .await
        .during("look for old transactions")?;
        Ok(age_secs.map(|age_secs| Duration::from_secs_f64(age_secs.max(0.0))))
    }
}
