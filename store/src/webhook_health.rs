//! What the calls found out about an endpoint, written down: since when it fails, and that it is
//! called no more. When that is so is decided elsewhere.

use mail::event::EventType;
use mail::ids::{EventId, WebhookEndpointId};
use time::OffsetDateTime;

use crate::database::Store;
use crate::error::{During, StoreError};
use crate::numbers::{AccountNo, EndpointNo};
use crate::webhook_settings::DisabledReason;

/// Before every call that is due: a test is made first.
const FIRST_OF_ALL: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

impl Store {
    /// Notes since when endpoints fail; none: their last call was good. The beginning of a row of
    /// failures that is known stays as it is.
    ///
    /// # Errors
    /// Of the database.
    pub async fn note_failing(
        &self,
        endpoints: &[(EndpointNo, Option<OffsetDateTime>)],
    ) -> Result<(), StoreError> {
        let numbers: Vec<i32> = endpoints.iter().map(|(no, _)| no.0).collect();
        let since: Vec<Option<OffsetDateTime>> =
            endpoints.iter().map(|(_, since)| *since).collect();
        sqlx::query(
            "UPDATE webhook_endpoint w SET failing_since = u.since
             FROM unnest($1::int4[], $2::timestamptz[]) AS u (id, since)
             WHERE w.id = u.id AND (w.failing_since IS NULL) <> (u.since IS NULL)",
        )
        .bind(numbers)
        .bind(since)
        .execute(&self.general)
        .await
        .during("note failing webhook endpoints")?;
        for (no, _) in endpoints {
            self.cache.endpoints.invalidate(no).await;
        }
        Ok(())
    }

    /// Switches an enabled endpoint off and writes the event about it. With `failing_before`, only
    /// if it has failed since then or longer; with `called`, only if that is still its URL: what
    /// another one answered says nothing about it. False when nothing changed.
    ///
    /// # Errors
    /// Of the database.
    pub async fn disable_endpoint(
        &self,
        no: EndpointNo,
        reason: DisabledReason,
        failing_before: Option<OffsetDateTime>,
        called: Option<&str>,
        event: EventId,
        at: OffsetDateTime,
    ) -> Result<bool, StoreError> {
        let found: Option<i32> = sqlx::query_scalar(
            "WITH off AS (
               UPDATE webhook_endpoint SET enabled = false, disabled_at = $2, disabled_reason = $3
               WHERE id = $1 AND enabled AND ($4::timestamptz IS NULL OR failing_since <= $4)
                 AND ($8::text IS NULL OR url = $8)
               RETURNING id, public_id, account),
             told AS (
               INSERT INTO event (id, subject, account, type, sequence, attempt, flags, reply)
               SELECT $5, public_id, account, $6, 1, 0, 0, $7 FROM off)
             SELECT id FROM off",
        )
        .bind(no.0)
        .bind(at)
        .bind(reason.code())
        .bind(failing_before)
        .bind(event.uuid())
        .bind(EventType::WebhookDisabled.code())
        .bind(reason.as_str())
        .bind(called)
        .fetch_optional(&self.general)
        .await
        .during("disable a webhook endpoint")?;
        self.cache.endpoints.invalidate(&no).await;
        Ok(found.is_some())
    }

    /// Writes a `webhook.test` event and plans its call to the endpoint, before all others. False
    /// when the account has no such endpoint, or it is disabled.
    ///
    /// # Errors
    /// Of the database.
    pub async fn test_endpoint(
        &self,
        account: AccountNo,
        id: WebhookEndpointId,
        event: EventId,
    ) -> Result<bool, StoreError> {
        let found: Option<i32> = sqlx::query_scalar(
            "WITH w AS (
               SELECT id, public_id, account FROM webhook_endpoint
               WHERE account = $1 AND public_id = $2 AND enabled),
             told AS (
               INSERT INTO event (id, subject, account, type, sequence, attempt, flags)
               SELECT $3, public_id, account, $4, 1, 0, 0 FROM w),
             call AS (
               INSERT INTO webhook_pending (endpoint, next_at, event_id, subject, attempt)
               SELECT id, $5, $3, public_id, 0 FROM w)
             SELECT id FROM w",
        )
        .bind(account.0)
        .bind(id.uuid())
        .bind(event.uuid())
        .bind(EventType::WebhookTest.code())
        .bind(FIRST_OF_ALL)
        .fetch_optional(&self.general)
        .await
        .during("test a webhook endpoint")?;
        Ok(found.is_some())
    }

    /// Forgets pending calls of disabled endpoints about events before `event`, at most `limit`;
    /// those of replays wait, as they are about old events anyway. Returns their number.
    ///
    /// # Errors
    /// Of the database.
    pub async fn drop_calls_of_disabled(
        &self,
        event: EventId,
        limit: i64,
    ) -> Result<u64, StoreError> {
        let done = sqlx::query(
            "DELETE FROM webhook_pending p USING (
               SELECT q.endpoint, q.next_at, q.event_id FROM webhook_endpoint w
               CROSS JOIN LATERAL (
                 SELECT * FROM webhook_pending q
                 WHERE q.endpoint = w.id AND q.event_id < $1 AND q.replay IS NULL LIMIT $2) q
               WHERE NOT w.enabled LIMIT $2) old
             WHERE (p.endpoint, p.next_at, p.event_id) = (old.endpoint, old.next_at, old.event_id)",
        )
        .bind(event.uuid())
        .bind(limit)
        .execute(&self.general)
        .await
        .during("forget calls of disabled webhook endpoints")?;
        Ok(done.rows_affected())
    }
    /// Forgets pending calls that nobody will make: they were planned in the moment in which their
    /// endpoint was deleted or their replay cancelled. Returns their number.
    ///
    /// # Errors
    /// Of the database.
    pub async fn drop_orphaned_calls(&self) -> Result<u64, StoreError> {
        let operation = "forget orphaned webhook calls";
        // One look at each endpoint's first call, however many there are.
        let of_endpoints = sqlx::query(
            "WITH RECURSIVE e AS (
               SELECT min(endpoint) AS id FROM webhook_pending
               UNION ALL
               SELECT (SELECT min(p.endpoint) FROM webhook_pending p WHERE p.endpoint > e.id)
               FROM e WHERE e.id IS NOT NULL)
             DELETE FROM webhook_pending p USING e
             WHERE p.endpoint = e.id
               AND NOT EXISTS (SELECT FROM webhook_endpoint w WHERE w.id = e.id)",
        )
        .execute(&self.general)
        .await
        .during(operation)?;
        let of_replays = sqlx::query(
            "DELETE FROM webhook_pending p USING webhook_replay r
             WHERE p.replay = r.id AND r.state IN (2, 3)",
        )
        .execute(&self.general)
        .await
        .during(operation)?;
        Ok(of_endpoints.rows_affected() + of_replays.rows_affected())
    }
}
