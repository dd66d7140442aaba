//! Replays: events that are told to an endpoint once more. How their calls get among the pending
//! ones is the matter of `piece`.

mod piece;

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

pub use piece::ReplayPiece;

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
