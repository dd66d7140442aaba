//! Pieces of a replay: some of its events, and how far it is once their calls are planned. Both are
//! noted by one statement, so that a crash repeats and loses nothing.

use mail::ids::EventId;
use time::OffsetDateTime;
use uuid::Uuid;

use super::Replay;
use crate::database::Store;
use crate::error::{During, StoreError};
use crate::webhook::codes;

/// Messages looked at for one piece.
const MESSAGES_A_PIECE: i64 = 500;
/// Events of one piece; more than one message can have.
const EVENTS_A_PIECE: usize = 5_000;
/// Events about something else than mail, of one replay.
const OTHER_EVENTS_MAX: i64 = 5_000;
/// How long before an event its message may have been accepted: mail is sent up to 30 days after
/// it was given to us and tried for five more.
const MESSAGE_LEAD_MS: u128 = 36 * 86_400_000;

/// A piece of a replay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayPiece {
    /// Each with what it is about.
    pub events: Vec<(EventId, Uuid)>,
    /// The last message whose events are all in this piece or before it.
    next: Uuid,
    /// There is nothing after it.
    pub is_last: bool,
}

impl Store {
    /// The next events of a replay. Nothing is changed by reading them.
    ///
    /// # Errors
    /// Of the database.
    pub async fn replay_piece(&self, replay: &Replay) -> Result<ReplayPiece, StoreError> {
        if replay.cursor.is_nil() {
            return self.events_beside_mail(replay).await;
        }
        // The account's messages in order, and of each what happened in the wanted time.
        let rows: Vec<(Uuid, Option<Uuid>)> = sqlx::query_as(
            "WITH m AS MATERIALIZED (
               SELECT id FROM message
               WHERE account = $1 AND uuid_send(id) > uuid_send($2) AND id > $2 AND id < $4
               ORDER BY uuid_send(id) LIMIT $6)
             SELECT m.id, e.id FROM m
             LEFT JOIN LATERAL (
               SELECT e.id FROM event e
               WHERE e.subject = m.id AND e.id >= $3 AND e.id < $4 AND e.type = ANY ($5)
               OFFSET 0) e ON true
             ORDER BY m.id, e.id LIMIT $7",
        )
        .bind(replay.account.0)
        .bind(replay.cursor)
        .bind(replay.from.uuid())
        .bind(replay.to.uuid())
        .bind(codes(&replay.types))
        .bind(MESSAGES_A_PIECE)
        .bind(i64::try_from(EVENTS_A_PIECE).unwrap_or(i64::MAX))
        .fetch_all(&self.general)
        .await
        .during("read the events of a webhook replay")?;
        Ok(piece(rows, replay.cursor))
    }

    /// Events about the account, its domains and its endpoints: they come before all others.
    async fn events_beside_mail(&self, replay: &Replay) -> Result<ReplayPiece, StoreError> {
        let rows: Vec<(Uuid, Uuid)> = sqlx::query_as(
            "SELECT e.id, e.subject FROM (
               SELECT public_id FROM account WHERE id = $1
               UNION ALL SELECT public_id FROM domain WHERE account = $1
               UNION ALL SELECT public_id FROM webhook_endpoint WHERE account = $1) s
             CROSS JOIN LATERAL (
               SELECT e.id, e.subject FROM event e
               WHERE e.subject = s.public_id AND e.account = $1 AND e.id >= $2 AND e.id < $3
                 AND e.type = ANY ($4)
               OFFSET 0) e
             ORDER BY e.id LIMIT $5",
        )
        .bind(replay.account.0)
        .bind(replay.from.uuid())
        .bind(replay.to.uuid())
        .bind(codes(&replay.types))
        .bind(OTHER_EVENTS_MAX)
        .fetch_all(&self.general)
        .await
        .during("read the other events of a webhook replay")?;
        let from_ms = replay.from.uuid().as_u128() >> 80;
        let first_ms = from_ms.saturating_sub(MESSAGE_LEAD_MS).max(1);
        Ok(ReplayPiece {
            events: rows
                .into_iter()
                .map(|(id, subject)| (EventId::from_uuid(id), subject))
                .collect(),
            next: Uuid::from_u128(first_ms << 80),
            is_last: false,
        })
    }

    /// Plans the calls of a piece and notes that it is done, both or neither. At most `most`
    /// events are told of the whole replay. Returns what goes on, and none when the replay has
    /// ended, was ended, or somebody else has done the piece.
    ///
    /// # Errors
    /// Of the database.
    pub async fn plan_replay(
        &self,
        replay: &Replay,
        piece: &ReplayPiece,
        most: u32,
        at: OffsetDateTime,
    ) -> Result<Option<Replay>, StoreError> {
        let room = usize::try_from(most.saturating_sub(replay.events)).unwrap_or(usize::MAX);
        let is_cut = piece.events.len() > room;
        let events = &piece.events[..piece.events.len().min(room)];
        let moved: Option<i32> = sqlx::query_scalar(
            "WITH moved AS (
               UPDATE webhook_replay
               SET cursor = $3, events = events + $4, is_cut = $5,
                   state = CASE WHEN $5 OR $6 THEN 1 ELSE 0 END
               WHERE id = $1 AND state = 0 AND cursor = $2
               RETURNING endpoint),
             calls AS (
               INSERT INTO webhook_pending (endpoint, next_at, event_id, subject, attempt, replay)
               SELECT moved.endpoint, $7, u.event_id, u.subject, 0, $1
               FROM moved, unnest($8::uuid[], $9::uuid[]) AS u (event_id, subject)
               ON CONFLICT DO NOTHING)
             SELECT endpoint FROM moved",
        )
        .bind(replay.id.uuid())
        .bind(replay.cursor)
        .bind(piece.next)
        .bind(i32::try_from(events.len()).unwrap_or(i32::MAX))
        .bind(is_cut)
        .bind(piece.is_last)
        .bind(at)
        .bind(
            events
                .iter()
                .map(|(id, _)| id.uuid())
                .collect::<Vec<Uuid>>(),
        )
        .bind(
            events
                .iter()
                .map(|(_, subject)| *subject)
                .collect::<Vec<Uuid>>(),
        )
        .fetch_optional(&self.general)
        .await
        .during("plan the calls of a webhook replay")?;
        Ok(moved.filter(|_| !is_cut && !piece.is_last).map(|_| Replay {
            cursor: piece.next,
            events: replay.events + u32::try_from(events.len()).unwrap_or(u32::MAX),
            ..replay.clone()
        }))
    }
}

/// A full read may have cut the events of its last message off: that one is left for the next.
fn piece(mut rows: Vec<(Uuid, Option<Uuid>)>, cursor: Uuid) -> ReplayPiece {
    let is_full = rows.len() >= EVENTS_A_PIECE;
    if is_full && let Some((last, _)) = rows.last().copied() {
        let whole = rows.partition_point(|(message, _)| *message < last);
        // A message with that many events alone would never get done: what is there goes.
        if whole > 0 {
            rows.truncate(whole);
        }
    }
    let next = rows.last().map_or(cursor, |(message, _)| *message);
    ReplayPiece {
        is_last: rows.is_empty(),
        events: rows
            .into_iter()
            .filter_map(|(message, event)| Some((EventId::from_uuid(event?), message)))
            .collect(),
        next,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(bits: u128) -> Uuid {
        Uuid::from_u128(bits)
    }

    #[test]
    fn a_piece_ends_with_a_whole_message() {
        let short = piece(vec![(id(1), Some(id(7))), (id(2), None)], id(0));
        let events = vec![(EventId::from_uuid(id(7)), id(1))];
        assert_eq!(
            (short.events, short.next, short.is_last),
            (events, id(2), false)
        );

        let mut rows: Vec<_> = (0..EVENTS_A_PIECE as u128 - 2)
            .map(|event| (id(1), Some(id(event))))
            .collect();
        rows.extend([(id(2), Some(id(1))), (id(2), Some(id(2)))]);
        let full = piece(rows, id(0));
        assert_eq!((full.events.len(), full.next), (EVENTS_A_PIECE - 2, id(1)));

        let endless = vec![(id(3), Some(id(9))); EVENTS_A_PIECE];
        assert_eq!(piece(endless, id(0)).next, id(3));
        let end = piece(Vec::new(), id(5));
        assert_eq!((end.next, end.is_last), (id(5), true));
    }
}
