//! Intents: "the final dot of these may be sent", noted before it is, so that after any crash the
//! deliveries that may have arrived unnoticed are a list and not a guess.

use mail::ids::{MessageId, NodeId};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::database::Store;
use crate::decode::unsigned;
use crate::error::{During, StoreError};
use crate::numbers::{Epoch, ShardNo};
use crate::queue::{DeliveryKey, Fence, RowNames, RowRef};

/// An attempt whose final dot was allowed under an older epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenIntent {
    /// Where.
    pub shard: ShardNo,
    /// Under which epoch it was noted.
    pub epoch: Epoch,
    /// Who noted it.
    pub owner: NodeId,
    /// When, by that node's clock.
    pub noted_at: OffsetDateTime,
    /// Which delivery.
    pub key: DeliveryKey,
    /// Attempts finished before.
    pub attempt: u16,
}

type OpenColumns = (i16, i64, Uuid, OffsetDateTime, Uuid, i16, i16);

impl Store {
    /// Notes intents and says by position which final dots may be sent: only of rows that are
    /// still queued with that attempt number in shards still held.
    ///
    /// `batch` must be new for these shards under their epochs.
    ///
    /// # Errors
    /// Of the database; then no dot may be sent.
    pub async fn note_intents(
        &self,
        fence: &Fence,
        rows: &[RowRef<'_>],
        batch: i64,
        at: OffsetDateTime,
    ) -> Result<Vec<bool>, StoreError> {
        let names: RowNames = rows.iter().copied().collect();
        let positions: Vec<i64> = sqlx::query_scalar(include_str!("../queries/intent.sql"))
            .bind(fence.owner.uuid())
            .bind(fence.shards())
            .bind(fence.epochs())
            .bind(names.shards)
            .bind(names.next_ats)
            .bind(names.messages)
            .bind(names.rcpts)
            .bind(names.attempts)
            .bind(batch)
            .bind(at)
            .fetch_all(&self.queue)
            .await
            .during("note intents")?;
        let mut granted = vec![false; rows.len()];
        for position in positions {
            if let Some(slot) = usize::try_from(position - 1)
                .ok()
                .and_then(|index| granted.get_mut(index))
            {
                *slot = true;
            }
        }
        Ok(granted)
    }

    /// Intents of these shards under epochs before the given ones. Those settled since are not in
    /// the queue with that attempt number any more.
    ///
    /// # Errors
    /// Of the database.
    pub async fn open_intents(
        &self,
        held: &[(ShardNo, Epoch)],
    ) -> Result<Vec<OpenIntent>, StoreError> {
        let rows: Vec<OpenColumns> = sqlx::query_as(include_str!("../queries/intents_open.sql"))
            .bind(held.iter().map(|(shard, _)| shard.0).collect::<Vec<i16>>())
            .bind(held.iter().map(|(_, epoch)| epoch.0).collect::<Vec<i64>>())
            .fetch_all(&self.queue)
            .await
            .during("read open intents")?;
        rows.into_iter()
            .map(|(shard, epoch, owner, noted_at, message, rcpt, attempt)| {
                Ok(OpenIntent {
                    shard: ShardNo(shard),
                    epoch: Epoch(epoch),
                    owner: NodeId::from_uuid(owner),
                    noted_at,
                    key: DeliveryKey {
                        message: MessageId::from_uuid(message),
                        rcpt: unsigned("recipient number", rcpt)?,
                    },
                    attempt: unsigned("attempt number", attempt)?,
                })
            })
            .collect()
    }

    /// Forgets the batches of a shard and epoch before the first one still open.
    ///
    /// # Errors
    /// Of the database.
    pub async fn retire_intents(
        &self,
        fence: &Fence,
        first_open: &[(ShardNo, Epoch, i64)],
    ) -> Result<(), StoreError> {
        sqlx::query(include_str!("../queries/intents_retire.sql"))
            .bind(fence.owner.uuid())
            .bind(fence.shards())
            .bind(fence.epochs())
            .bind(
                first_open
                    .iter()
                    .map(|(shard, ..)| shard.0)
                    .collect::<Vec<i16>>(),
            )
            .bind(
                first_open
                    .iter()
                    .map(|(_, epoch, _)| epoch.0)
                    .collect::<Vec<i64>>(),
            )
            .bind(
                first_open
                    .iter()
                    .map(|(.., batch)| *batch)
                    .collect::<Vec<i64>>(),
            )
            .execute(&self.queue)
            .await
            .during("retire intents")?;
        Ok(())
    }
}
