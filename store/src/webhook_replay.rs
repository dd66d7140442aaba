//! Replays: events that are told to an endpoint once more. Their calls are put among the pending
//! ones piece by piece, together with how far that got, so that a crash repeats and loses nothing.

use mail::event::EventType;
use mail::ids::{EventId, WebhookReplayId};
use sqlx::FromRow;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::database::Store;
use crate::error::{During, StoreError};
use crate::numbers::{AccountNo, EndpointNo};
use crate::webhook::{codes, types_from};
use crate::webhook_pending::{Columns as PendingColumns, PendingCall};

/// Messages looked at for one piece.
const MESSAGES_A_PIECE: i64 = 500;
/// Events of one piece; more than one message can have.
const EVENTS_A_PIECE: usize = 5_000;
/// Events about something else than mail, of one replay.
const OTHER_EVENTS_MAX: i64 = 5_000;
/// How long before an event its message may have been accepted: mail is sent up to 30 days after
/// it was given to us and tried for five more.
const MESSAGE_LEAD_MS: u128 = 36 * 86_400_000;

/// How far a replay is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplayState {
    /// Events are looked for.
    Reading,
    /// All events were found; some calls are still to be made.
    Calling,
    /// Every call was made or given up.
    Done,
    /// Ended by its owner.
    Cancelled,
}

impl ReplayState {
    fn from_code(code: i16) -> Result<Self, StoreError> {
        match code {
            0 => Ok(Self::Reading),
            1 => Ok(Self::Calling),
            2 => Ok(Self::Done),
            3 => Ok(Self::Cancelled),
            _ => Err(StoreError::corrupt("state of a webhook replay", code)),
        }
    }
}

/// Events to be told to an endpoint once more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replay {
    /// Carries the time at which it was asked for.
    pub id: WebhookReplayId,
    /// Whose.
    pub account: AccountNo,
    /// Who is told.
    pub endpoint: EndpointNo,
    /// The only event, for a replay of one.
    pub event: Option<EventId>,
    /// The lowest id an event of it may have.
    pub from: EventId,
    /// Above the highest one.
    pub to: EventId,
    /// What is told.
    pub types: Vec<EventType>,
    /// How far it is.
    pub state: ReplayState,
    /// Events found so far.
    pub events: u32,
    /// There were more events than a replay may have.
    pub is_cut: bool,
    /// Calls that are still to be made or repeated.
    pub waiting: u32,
    /// When it was done or cancelled.
    pub ended_at: Option<OffsetDateTime>,
    /// The last message that was looked at.
    cursor: Uuid,
}

/// A replay to be carried out.
#[derive(Debug, Clone)]
pub struct NewReplay<'a> {
    /// Carries the time.
    pub id: WebhookReplayId,
    /// Whose.
    pub account: AccountNo,
    /// Who is told.
    pub endpoint: EndpointNo,
    /// The lowest id an event of it may have.
    pub from: EventId,
    /// Above the highest one.
    pub to: EventId,
    /// What is told.
    pub types: &'a [EventType],
}

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

#[derive(FromRow)]
struct Columns {
    id: Uuid,
    account: i32,
    endpoint: i32,
    event_id: Option<Uuid>,
    from_id: Uuid,
    to_id: Uuid,
    types: Vec<i16>,
    cursor: Uuid,
    events: i32,
    is_cut: bool,
    state: i16,
    ended_at: Option<OffsetDateTime>,
    waiting: i64,
}

impl TryFrom<Columns> for Replay {
    type Error = StoreError;

    fn try_from(row: Columns) -> Result<Self, StoreError> {
        Ok(Self {
            id: WebhookReplayId::from_uuid(row.id),
            account: AccountNo(row.account),
            endpoint: EndpointNo(row.endpoint),
            event: row.event_id.map(EventId::from_uuid),
            from: EventId::from_uuid(row.from_id),
            to: EventId::from_uuid(row.to_id),
            types: types_from(row.types)?,
            state: ReplayState::from_code(row.state)?,
            events: u32::try_from(row.events).unwrap_or_default(),
            is_cut: row.is_cut,
            waiting: u32::try_from(row.waiting).unwrap_or(u32::MAX),
            ended_at: row.ended_at,
            cursor: row.cursor,
        })
    }
}

impl Store {
    /// Notes a replay of a range, for the workers to carry out.
    ///
    /// # Errors
    /// `Conflict` when one of this endpoint is not finished reading; of the database.
    pub async fn create_replay(
        &self,
        new: &NewReplay<'_>,
        at: OffsetDateTime,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO webhook_replay (id, account, endpoint, from_id, to_id, types, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(new.id.uuid())
        .bind(new.account.0)
        .bind(new.endpoint.0)
        .bind(new.from.uuid())
        .bind(new.to.uuid())
        .bind(codes(new.types))
        .bind(at)
        .execute(&self.general)
        .await
        .unless_taken("create a webhook replay", "the replay of this webhook")?;
        Ok(())
    }

    /// Plans one more call about one event of the account. False when it has no such event.
    ///
    /// # Errors
    /// Of the database.
    pub async fn replay_event(
        &self,
        id: WebhookReplayId,
        account: AccountNo,
        endpoint: EndpointNo,
        event: EventId,
        at: OffsetDateTime,
    ) -> Result<bool, StoreError> {
        // Planned each time: a plan made while a day's partition was empty would read all of it.
        let found: Option<Uuid> = sqlx::query_scalar(
            "WITH found AS MATERIALIZED (
               SELECT id, subject, type FROM event WHERE id = $4 AND account = $2 LIMIT 1),
             noted AS (
               INSERT INTO webhook_replay (id, account, endpoint, event_id, from_id, to_id, types,
                                           created_at, events, state)
               SELECT $1, $2, $3, id, id, id, ARRAY[type], $5, 1, 1 FROM found),
             call AS (
               INSERT INTO webhook_pending (endpoint, next_at, event_id, subject, attempt, replay)
               SELECT $3, $5, id, subject, 0, $1 FROM found)
             SELECT id FROM found",
        )
        .persistent(false)
        .bind(id.uuid())
        .bind(account.0)
        .bind(endpoint.0)
        .bind(event.uuid())
        .bind(at)
        .fetch_optional(&self.general)
        .await
        .during("replay an event")?;
        Ok(found.is_some())
    }

    /// Replays of an endpoint, the newest first, below `before`; or only the one named.
    ///
    /// # Errors
    /// Of the database.
    pub async fn replays(
        &self,
        endpoint: EndpointNo,
        only: Option<WebhookReplayId>,
        before: Option<WebhookReplayId>,
        limit: i64,
    ) -> Result<Vec<Replay>, StoreError> {
        let rows: Vec<Columns> = sqlx::query_as(
            "SELECT r.id, r.account, r.endpoint, r.event_id, r.from_id, r.to_id, r.types, r.cursor,
                    r.events, r.is_cut, r.state, r.ended_at,
                    (SELECT count(*) FROM webhook_pending p WHERE p.replay = r.id) AS waiting
             FROM webhook_replay r
             WHERE r.endpoint = $1 AND r.id < $3 AND ($2::uuid IS NULL OR r.id = $2)
             ORDER BY r.id DESC LIMIT $4",
        )
        .bind(endpoint.0)
        .bind(only.map(|only| only.uuid()))
        .bind(before.map_or(Uuid::max(), |before| before.uuid()))
        .bind(limit)
        .fetch_all(&self.general)
        .await
        .during("list webhook replays")?;
        rows.into_iter().map(TryInto::try_into).collect()
    }

    /// Ends a replay of the endpoint that is not done; calls not made by then are not made. False
    /// when there is none to end.
    ///
    /// # Errors
    /// Of the database.
    pub async fn cancel_replay(
        &self,
        endpoint: EndpointNo,
        id: WebhookReplayId,
        at: OffsetDateTime,
    ) -> Result<bool, StoreError> {
        let ended: Option<Uuid> = sqlx::query_scalar(
            "WITH ended AS (
               UPDATE webhook_replay SET state = 3, ended_at = $3
               WHERE id = $2 AND endpoint = $1 AND state IN (0, 1) RETURNING id),
             calls AS (
               DELETE FROM webhook_pending WHERE replay = (SELECT id FROM ended))
             SELECT id FROM ended",
        )
        .bind(endpoint.0)
        .bind(id.uuid())
        .bind(at)
        .fetch_optional(&self.general)
        .await
        .during("cancel a webhook replay")?;
        Ok(ended.is_some())
    }

    /// Replays that read, of enabled endpoints of these dispatchers' accounts with fewer than
    /// `waiting_max` calls planned.
    ///
    /// # Errors
    /// Of the database.
    pub async fn replays_to_read(
        &self,
        dispatchers: &[i16],
        waiting_max: i64,
    ) -> Result<Vec<Replay>, StoreError> {
        let rows: Vec<Columns> = sqlx::query_as(
            "SELECT * FROM (
               SELECT r.id, r.account, r.endpoint, r.event_id, r.from_id, r.to_id, r.types,
                      r.cursor, r.events, r.is_cut, r.state, r.ended_at,
                      (SELECT count(*) FROM webhook_pending p WHERE p.replay = r.id) AS waiting
               FROM webhook_replay r JOIN webhook_endpoint w ON w.id = r.endpoint
               WHERE r.state IN (0, 1) AND r.state = 0 AND r.account % 16 = ANY ($1::int2[])
                 AND w.enabled) r
             WHERE r.waiting < $2 ORDER BY r.id",
        )
        .bind(dispatchers)
        .bind(waiting_max)
        .fetch_all(&self.general)
        .await
        .during("find webhook replays to read")?;
        rows.into_iter().map(TryInto::try_into).collect()
    }

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

    /// Closes the replays whose calls were all made or given up. Returns how many are open still.
    ///
    /// # Errors
    /// Of the database.
    pub async fn close_replays(&self, at: OffsetDateTime) -> Result<i64, StoreError> {
        sqlx::query_scalar(
            "WITH done AS (
               UPDATE webhook_replay r SET state = 2, ended_at = $1
               WHERE r.state IN (0, 1) AND r.state = 1
                 AND NOT EXISTS (SELECT FROM webhook_pending p WHERE p.replay = r.id)
               RETURNING r.id)
             SELECT (SELECT count(*) FROM webhook_replay WHERE state IN (0, 1))
                  - (SELECT count(*) FROM done)",
        )
        .bind(at)
        .fetch_one(&self.general)
        .await
        .during("close webhook replays")
    }

    /// Calls of replays due by `now`, at most so many of each replay.
    ///
    /// # Errors
    /// Of the database.
    pub async fn due_replay_calls(
        &self,
        dispatchers: &[i16],
        now: OffsetDateTime,
        per_replay_limit: i64,
    ) -> Result<Vec<PendingCall>, StoreError> {
        let rows: Vec<PendingColumns> = sqlx::query_as(
            "SELECT p.endpoint, p.next_at, p.event_id, p.subject, p.attempt, p.replay
             FROM webhook_replay r
             JOIN webhook_endpoint w ON w.id = r.endpoint
             CROSS JOIN LATERAL (
               SELECT * FROM webhook_pending p WHERE p.replay = r.id AND p.next_at <= $2
               ORDER BY p.next_at LIMIT $3) p
             WHERE r.state IN (0, 1) AND r.account % 16 = ANY ($1::int2[]) AND w.enabled
             ORDER BY p.next_at, p.event_id",
        )
        .bind(dispatchers)
        .bind(now)
        .bind(per_replay_limit)
        .fetch_all(&self.general)
        .await
        .during("read due calls of webhook replays")?;
        rows.into_iter().map(PendingCall::from_columns).collect()
    }

    /// Forgets replays that ended before this time. Returns their number.
    ///
    /// # Errors
    /// Of the database.
    pub async fn forget_replays(&self, before: OffsetDateTime) -> Result<u64, StoreError> {
        let done = sqlx::query("DELETE FROM webhook_replay WHERE ended_at < $1")
            .bind(before)
            .execute(&self.general)
            .await
            .during("forget webhook replays")?;
        Ok(done.rows_affected())
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
