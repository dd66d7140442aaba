//! Outcomes of a node that lost a shard before it could settle them: handed to the new owner.

use mail::ids::NodeId;
use uuid::Uuid;

use crate::database::Store;
use crate::decode::signed;
use crate::error::{During, StoreError};
use crate::numbers::{Epoch, ShardNo};
use crate::settle::Settlement;

/// One outcome, or the word that there are no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandIn {
    /// The lost shard.
    pub shard: ShardNo,
    /// The epoch under which the attempt was made.
    pub epoch: Epoch,
    /// None: this node has nothing more of that shard and epoch.
    pub settlement: Option<Settlement>,
}

impl Store {
    /// Leaves outcomes for the new owners. Repeating it leaves them twice, which is harmless: the
    /// second settles nothing.
    ///
    /// # Errors
    /// Of the database.
    pub async fn hand_in(&self, node: NodeId, outcomes: &[HandIn]) -> Result<(), StoreError> {
        let mut ids = Vec::with_capacity(outcomes.len());
        let (mut messages, mut rcpts, mut attempts, mut texts) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for outcome in outcomes {
            let row = outcome
                .settlement
                .as_ref()
                .map(|settlement| &settlement.row);
            ids.push(Uuid::new_v4());
            messages.push(row.map(|row| row.key.message.uuid()));
            rcpts.push(row.map(|row| signed(row.key.rcpt)));
            attempts.push(row.map(|row| signed(row.attempt)));
            texts.push(outcome.settlement.as_ref().map(to_text).transpose()?);
        }
        sqlx::query(
            "INSERT INTO hand_in (id, node, shard, epoch, message_id, rcpt, attempt, outcome)
             SELECT u.id, $1, u.shard, u.epoch, u.message_id, u.rcpt, u.attempt, u.outcome
             FROM unnest($2::uuid[], $3::int2[], $4::int8[], $5::uuid[], $6::int2[], $7::int2[],
                         $8::text[]) AS u (id, shard, epoch, message_id, rcpt, attempt, outcome)",
        )
        .bind(node.uuid())
        .bind(ids)
        .bind(
            outcomes
                .iter()
                .map(|outcome| outcome.shard.0)
                .collect::<Vec<i16>>(),
        )
        .bind(
            outcomes
                .iter()
                .map(|outcome| outcome.epoch.0)
                .collect::<Vec<i64>>(),
        )
        .bind(messages)
        .bind(rcpts)
        .bind(attempts)
        .bind(texts)
        .execute(&self.queue)
        .await
        .during("hand outcomes in")?;
        Ok(())
    }

    /// What was left for these shards, at most `limit` entries, with the id to drop each by and the
    /// node it is from. Outcomes come before marks, so that a mark is never seen before what it ends.
    /// An outcome that is not one of ours is left out, dropped and logged: its delivery is ambiguous.
    ///
    /// # Errors
    /// Of the database.
    pub async fn handed_in(
        &self,
        shards: &[ShardNo],
        limit: i64,
    ) -> Result<Vec<(Uuid, NodeId, HandIn)>, StoreError> {
        let rows: Vec<(Uuid, Uuid, i16, i64, Option<String>)> = sqlx::query_as(
            "SELECT h.id, h.node, h.shard, h.epoch, h.outcome
             FROM unnest($1::int2[]) AS u (shard)
             CROSS JOIN LATERAL (SELECT * FROM hand_in h WHERE h.shard = u.shard OFFSET 0) h
             ORDER BY h.message_id IS NULL LIMIT $2",
        )
        .bind(shards.iter().map(|shard| shard.0).collect::<Vec<i16>>())
        .bind(limit)
        .fetch_all(&self.queue)
        .await
        .during("read handed-in outcomes")?;
        let mut unreadable = Vec::new();
        let mut entries = Vec::with_capacity(rows.len());
        for (id, node, shard, epoch, outcome) in rows {
            match outcome.as_deref().map(from_text).transpose() {
                Ok(settlement) => {
                    let (shard, epoch) = (ShardNo(shard), Epoch(epoch));
                    let handed = HandIn {
                        shard,
                        epoch,
                        settlement,
                    };
                    entries.push((id, NodeId::from_uuid(node), handed));
                }
                Err(error) => {
                    tracing::error!(%error, %id, "an outcome that was handed in cannot be read");
                    unreadable.push(id);
                }
            }
        }
        if !unreadable.is_empty() {
            self.drop_handed_in(&unreadable).await?;
        }
        Ok(entries)
    }

    /// Forgets outcomes that were settled.
    ///
    /// # Errors
    /// Of the database.
    pub async fn drop_handed_in(&self, ids: &[Uuid]) -> Result<(), StoreError> {
        sqlx::query(
            "DELETE FROM hand_in WHERE ctid = ANY (ARRAY(
               SELECT h.c FROM unnest($1::uuid[]) AS u (id)
               CROSS JOIN LATERAL (
                 SELECT h.ctid AS c FROM hand_in h WHERE h.id = u.id OFFSET 0) h))",
        )
        .bind(ids)
        .execute(&self.queue)
        .await
        .during("drop handed-in outcomes")?;
        Ok(())
    }
}

fn to_text(settlement: &Settlement) -> Result<String, StoreError> {
    serde_json::to_string(settlement).map_err(|error| StoreError::Invalid {
        what: "outcome",
        detail: error.to_string(),
    })
}

fn from_text(text: &str) -> Result<Settlement, StoreError> {
    serde_json::from_str(text).map_err(|error| StoreError::corrupt("handed-in outcome", error))
}
