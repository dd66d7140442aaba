//! Outcomes into the truth: the queue row leaves with its final event or comes back later with one
//! more attempt. Also moving rows without an attempt. All of it only under the fence.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::database::Store;
use crate::decode::{signed, without_nul};
use crate::error::{During, StoreError};
use crate::event::NewEvent;
use crate::numbers::{QueueFlags, ShardNo};
use crate::queue::{Fence, QueueRow, RowNames};

/// The next try of a deferred delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retry {
    /// Not before this time.
    #[serde(with = "time::serde::timestamp::microseconds")]
    pub next_at: OffsetDateTime,
    /// What the row remembers from now on.
    pub flags: QueueFlags,
}

/// What became of one attempt, or the end of a delivery without one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settlement {
    /// The row as it was read.
    pub row: QueueRow,
    /// When to try again; none ends the delivery.
    pub next: Option<Retry>,
    /// Written in the same statement.
    pub event: NewEvent,
}

impl Store {
    /// Settles outcomes; by position, whether the row was still there under that name and fence.
    /// False also means settled before: repeating a call is harmless.
    ///
    /// # Errors
    /// Of the database; then nothing of one delivery's outcomes was settled, or nobody knows.
    pub async fn settle(
        &self,
        fence: &Fence,
        settlements: &[Settlement],
    ) -> Result<Vec<bool>, StoreError> {
        let mut settled = vec![false; settlements.len()];
        for round in rounds(settlements.iter().map(|settlement| &settlement.row)) {
            let part: Vec<&Settlement> = round.iter().map(|index| &settlements[*index]).collect();
            for position in self.settle_round(fence, &part).await? {
                mark(&mut settled, &round, position);
            }
        }
        Ok(settled)
    }

    async fn settle_round(
        &self,
        fence: &Fence,
        part: &[&Settlement],
    ) -> Result<Vec<i64>, StoreError> {
        let names: RowNames = part.iter().map(|settlement| &settlement.row).collect();
        let next_ats: Vec<Option<OffsetDateTime>> = part
            .iter()
            .map(|settlement| settlement.next.map(|retry| retry.next_at))
            .collect();
        let flags: Vec<i16> = part
            .iter()
            .map(|settlement| settlement.next.map_or(0, |retry| retry.flags.bits()))
            .collect();
        let events = EventColumns::new(part);
        sqlx::query_scalar(include_str!("../queries/settle.sql"))
            .bind(fence.owner.uuid())
            .bind(fence.shards())
            .bind(fence.epochs())
            .bind(names.shards)
            .bind(names.next_ats)
            .bind(names.messages)
            .bind(names.rcpts)
            .bind(names.attempts)
            .bind(next_ats)
            .bind(flags)
            .bind(events.ids)
            .bind(events.types)
            .bind(events.sequences)
            .bind(events.flags)
            .bind(events.classes)
            .bind(events.codes)
            .bind(events.enhanced)
            .bind(events.sources)
            .bind(events.mxs)
            .bind(events.tls)
            .bind(events.replies)
            .bind(events.durations_ms)
            .bind(events.transcripts)
            .bind(events.attempts)
            .fetch_all(&self.queue)
            .await
            .during("settle outcomes")
    }

    /// Moves rows to a later time, perhaps to another shard; attempt unchanged, no event. By
    /// position, whether the row was moved.
    ///
    /// # Errors
    /// Of the database.
    pub async fn park(
        &self,
        fence: &Fence,
        moves: &[(QueueRow, ShardNo, OffsetDateTime)],
    ) -> Result<Vec<bool>, StoreError> {
        let mut moved = vec![false; moves.len()];
        for round in rounds(moves.iter().map(|(row, ..)| row)) {
            let part: Vec<_> = round.iter().map(|index| &moves[*index]).collect();
            let names: RowNames = part.iter().map(|(row, ..)| row).collect();
            let positions: Vec<i64> = sqlx::query_scalar(include_str!("../queries/park.sql"))
                .bind(fence.owner.uuid())
                .bind(fence.shards())
                .bind(fence.epochs())
                .bind(names.shards)
                .bind(names.next_ats)
                .bind(names.messages)
                .bind(names.rcpts)
                .bind(names.attempts)
                .bind(
                    part.iter()
                        .map(|(_, shard, _)| shard.0)
                        .collect::<Vec<i16>>(),
                )
                .bind(
                    part.iter()
                        .map(|(.., at)| *at)
                        .collect::<Vec<OffsetDateTime>>(),
                )
                .fetch_all(&self.queue)
                .await
                .during("park deliveries")?;
            for position in positions {
                mark(&mut moved, &round, position);
            }
        }
        Ok(moved)
    }
}

/// Positions of one statement each: the statements join by delivery, so a delivery may stand in
/// one only once (a replayed journal can hold several attempts of it). Almost always one round.
fn rounds<'a>(rows: impl Iterator<Item = &'a QueueRow>) -> Vec<Vec<usize>> {
    let mut left: Vec<(usize, &QueueRow)> = rows.enumerate().collect();
    let mut rounds = Vec::new();
    while !left.is_empty() {
        let mut seen = HashSet::new();
        let (now, later): (Vec<_>, Vec<_>) =
            left.into_iter().partition(|(_, row)| seen.insert(row.key));
        rounds.push(now.into_iter().map(|(index, _)| index).collect());
        left = later;
    }
    rounds
}

/// Statements count positions from one.
fn mark(done: &mut [bool], round: &[usize], position: i64) {
    let index = usize::try_from(position - 1)
        .ok()
        .and_then(|index| round.get(index));
    if let Some(slot) = index.and_then(|index| done.get_mut(*index)) {
        *slot = true;
    }
}

#[derive(Default)]
struct EventColumns {
    ids: Vec<Uuid>,
    types: Vec<i16>,
    sequences: Vec<i16>,
    attempts: Vec<i16>,
    flags: Vec<i16>,
    classes: Vec<Option<i16>>,
    codes: Vec<Option<i16>>,
    enhanced: Vec<Option<String>>,
    sources: Vec<Option<i32>>,
    mxs: Vec<Option<String>>,
    tls: Vec<Option<String>>,
    replies: Vec<Option<String>>,
    durations_ms: Vec<Option<i32>>,
    transcripts: Vec<Option<String>>,
}

impl EventColumns {
    fn new(part: &[&Settlement]) -> Self {
        let clean = |text: &Option<String>| text.as_deref().map(|text| without_nul(text).into());
        let mut columns = Self::default();
        for NewEvent {
            id,
            kind,
            sequence,
            attempt,
            flags,
            class,
            code,
            enhanced,
            source,
            mx,
            tls,
            reply,
            duration_ms,
            transcript,
        } in part.iter().map(|settlement| &settlement.event)
        {
            columns.ids.push(id.uuid());
            columns.types.push(kind.code());
            columns.sequences.push(signed(*sequence));
            columns.attempts.push(signed(*attempt));
            columns.flags.push(flags.bits());
            columns.classes.push(class.map(|class| class.code()));
            columns.codes.push(code.map(signed));
            columns.enhanced.push(clean(enhanced));
            columns.sources.push(*source);
            columns.mxs.push(clean(mx));
            columns.tls.push(clean(tls));
            columns
                .replies
                .push(reply.as_ref().map(|text| text.as_str().to_owned()));
            columns.durations_ms.push(*duration_ms);
            columns
                .transcripts
                .push(transcript.as_ref().map(|text| text.as_str().to_owned()));
        }
        columns
    }
}

#[cfg(test)]
mod tests {
    use mail::ids::MessageId;
    use time::macros::datetime;

    use super::*;
    use crate::numbers::{AccountNo, RecipientDomainNo, StreamNo};
    use crate::queue::DeliveryKey;

    fn row(message: u64, attempt: u16) -> QueueRow {
        let at = datetime!(2026-11-22 09:00 UTC);
        QueueRow {
            shard: ShardNo(0),
            next_at: at,
            key: DeliveryKey {
                message: MessageId::from_time_and_random(message, [0; 10]),
                rcpt: 0,
            },
            account: AccountNo(1),
            stream: StreamNo(1),
            domain: RecipientDomainNo(1),
            pool: None,
            attempt,
            flags: QueueFlags::NONE,
            first_at: at,
            expires_at: at,
        }
    }

    #[test]
    fn attempts_of_one_delivery_go_into_statements_of_their_own_in_order() {
        let rows = [row(1, 0), row(2, 0), row(1, 1), row(1, 2), row(3, 0)];
        assert_eq!(rounds(rows.iter()), [vec![0, 1, 4], vec![2], vec![3]]);
        assert!(rounds([].iter()).is_empty());
    }
}
