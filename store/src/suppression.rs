//! The suppression list: whom an account does not send to. Entries are asked about in the
//! statements that accept mail and fetch content, and made by settling too; here is the rest.

use std::collections::HashSet;

use mail::address::EmailAddress;
use mail::event::EventType;
use mail::ids::{EventId, MessageId, SuppressionId};
use mail::suppression::{SuppressionReason, look_up_key};
use sqlx::FromRow;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::database::Store;
use crate::decode::unsigned;
use crate::error::{During, StoreError};
use crate::event::day_before;
use crate::numbers::{AccountNo, StreamNo};
use crate::queue::DeliveryKey;

/// An entry to be made.
#[derive(Debug, Clone)]
pub struct NewSuppression {
    /// Carries the time.
    pub id: SuppressionId,
    /// Whose.
    pub account: AccountNo,
    /// Who gets nothing.
    pub address: EmailAddress,
    /// Only mail of this stream; none means all of the account's.
    pub stream: Option<StreamNo>,
    /// Why.
    pub reason: SuppressionReason,
    /// None: for good.
    pub expires_at: Option<OffsetDateTime>,
}

/// An entry as its account sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suppression {
    /// Carries the time it was made.
    pub id: SuppressionId,
    /// As it was first given.
    pub address: String,
    /// Why.
    pub reason: SuppressionReason,
    /// Name of the stream; none means all mail of the account.
    pub stream: Option<String>,
    /// None: for good.
    pub expires_at: Option<OffsetDateTime>,
    /// The event that made it, if one did.
    pub source_event: Option<EventId>,
    /// The delivery that event is about.
    pub source_delivery: Option<DeliveryKey>,
}

/// Which entries are wanted: those for which all that is given holds.
#[derive(Debug, Clone, Default)]
pub struct SuppressionFilter {
    /// Of this recipient, whatever the case of its letters.
    pub address: Option<EmailAddress>,
    /// Made for this reason.
    pub reason: Option<SuppressionReason>,
    /// Of this stream only.
    pub stream: Option<StreamNo>,
}

#[derive(FromRow)]
struct Row {
    id: Uuid,
    address: String,
    reason: i16,
    stream: Option<String>,
    expires_at: Option<OffsetDateTime>,
    source_event: Option<Uuid>,
    source_message: Option<Uuid>,
    source_rcpt: Option<i16>,
}

impl TryFrom<Row> for Suppression {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        let source_delivery = match row.source_message.zip(row.source_rcpt) {
            Some((message, rcpt)) => Some(DeliveryKey {
                message: MessageId::from_uuid(message),
                rcpt: unsigned("recipient number", rcpt)?,
            }),
            None => None,
        };
        Ok(Self {
            id: SuppressionId::from_uuid(row.id),
            address: row.address,
            reason: SuppressionReason::from_code(row.reason)
                .ok_or_else(|| StoreError::corrupt("suppression reason", row.reason))?,
            stream: row.stream,
            expires_at: row.expires_at,
            source_event: row.source_event.map(EventId::from_uuid),
            source_delivery,
        })
    }
}

fn codes(reason: Option<SuppressionReason>) -> Vec<i16> {
    let all = SuppressionReason::ALL.iter().copied();
    all.filter(|one| reason.is_none_or(|wanted| wanted == *one))
        .map(SuppressionReason::code)
        .collect()
}

impl Store {
    /// Puts a recipient on the list, with true, or finds it there already for the same reason and
    /// stream. An entry that is there stays, and lasts as long as the longer of the two.
    ///
    /// # Errors
    /// Of the database.
    pub async fn suppress(&self, new: &NewSuppression) -> Result<(Suppression, bool), StoreError> {
        let row: Row = sqlx::query_as(
            "WITH s AS (
               INSERT INTO suppression (id, account, address, stream, reason, expires_at)
               VALUES ($1, $2, $3, $4, $5, $6)
               ON CONFLICT (account, lower(address COLLATE \"C\"), stream, reason) DO UPDATE
               SET expires_at = CASE
                 WHEN suppression.expires_at IS NULL OR excluded.expires_at IS NULL THEN NULL
                 ELSE greatest(suppression.expires_at, excluded.expires_at) END
               RETURNING *)
             SELECT s.id, s.address, s.reason, t.name AS stream, s.expires_at, s.source_event,
                    s.source_message, s.source_rcpt
             FROM s LEFT JOIN stream t ON t.id = s.stream",
        )
        .bind(new.id.uuid())
        .bind(new.account.0)
        .bind(new.address.to_string())
        .bind(new.stream.map(|stream| stream.0))
        .bind(new.reason.code())
        .bind(new.expires_at)
        .fetch_one(&self.general)
        .await
        .during("suppress a recipient")?;
        let made = row.id == new.id.uuid();
        Ok((row.try_into()?, made))
    }

    /// One entry of the account.
    ///
    /// # Errors
    /// Of the database.
    pub async fn suppression(
        &self,
        account: AccountNo,
        id: SuppressionId,
    ) -> Result<Option<Suppression>, StoreError> {
        let row: Option<Row> = sqlx::query_as(
            "SELECT s.id, s.address, s.reason, t.name AS stream, s.expires_at, s.source_event,
                    s.source_message, s.source_rcpt
             FROM suppression s LEFT JOIN stream t ON t.id = s.stream
             WHERE s.id = $1 AND s.account + 0 = $2",
        )
        .bind(id.uuid())
        .bind(account.0)
        .fetch_optional(&self.general)
        .await
        .during("read a suppression")?;
        row.map(Suppression::try_from).transpose()
    }

    /// Entries of the account, newest first, from the one before `before` on.
    ///
    /// # Errors
    /// Of the database.
    pub async fn suppressions(
        &self,
        account: AccountNo,
        filter: &SuppressionFilter,
        before: Option<SuppressionId>,
        limit: i64,
    ) -> Result<Vec<Suppression>, StoreError> {
        let statement = match (&filter.address, filter.stream) {
            // The few entries of one address, whatever the planner thinks of the order.
            (Some(_), _) => {
                "WITH s AS MATERIALIZED (
                   SELECT * FROM suppression
                   WHERE account = $1 AND lower(address COLLATE \"C\") = $6)
                 SELECT s.id, s.address, s.reason, t.name AS stream, s.expires_at, s.source_event,
                        s.source_message, s.source_rcpt
                 FROM s LEFT JOIN stream t ON t.id = s.stream
                 WHERE s.reason = ANY ($2::int2[]) AND s.id < $3
                   AND ($5::int4 IS NULL OR s.stream = $5)
                 ORDER BY s.id DESC LIMIT $4"
            }
            // The first of each reason, in the order of an index that begins with account + 0 and it.
            (None, Some(_)) => {
                "SELECT s.id, s.address, s.reason, t.name AS stream, s.expires_at, s.source_event,
                        s.source_message, s.source_rcpt
                 FROM unnest($2::int2[]) AS r (reason)
                 CROSS JOIN LATERAL (
                   SELECT * FROM suppression s
                   WHERE s.account + 0 = $1 AND s.stream = $5 AND s.reason = r.reason AND s.id < $3
                   ORDER BY s.id DESC LIMIT $4) s
                 LEFT JOIN stream t ON t.id = s.stream
                 WHERE $6::text IS NULL
                 ORDER BY s.id DESC LIMIT $4"
            }
            (None, None) => {
                "SELECT s.id, s.address, s.reason, t.name AS stream, s.expires_at, s.source_event,
                        s.source_message, s.source_rcpt
                 FROM unnest($2::int2[]) AS r (reason)
                 CROSS JOIN LATERAL (
                   SELECT * FROM suppression s
                   WHERE s.account + 0 = $1 AND s.reason = r.reason AND s.id < $3
                   ORDER BY s.id DESC LIMIT $4) s
                 LEFT JOIN stream t ON t.id = s.stream
                 WHERE $5::int4 IS NULL AND $6::text IS NULL
                 ORDER BY s.id DESC LIMIT $4"
            }
        };
        let rows: Vec<Row> = sqlx::query_as(statement)
            .bind(account.0)
            .bind(codes(filter.reason))
            .bind(before.map_or(Uuid::max(), SuppressionId::uuid))
            .bind(limit)
            .bind(filter.stream.map(|stream| stream.0))
            .bind(filter.address.as_ref().map(look_up_key))
            .fetch_all(&self.general)
            .await
            .during("list suppressions")?;
        rows.into_iter().map(Suppression::try_from).collect()
    }

    /// Takes an entry off the account's list. False when there is none.
    ///
    /// # Errors
    /// Of the database.
    pub async fn unsuppress(
        &self,
        account: AccountNo,
        id: SuppressionId,
    ) -> Result<bool, StoreError> {
        let done = sqlx::query("DELETE FROM suppression WHERE id = $1 AND account + 0 = $2")
            .bind(id.uuid())
            .bind(account.0)
            .execute(&self.general)
            .await
            .during("delete a suppression")?;
        Ok(done.rows_affected() > 0)
    }

    /// Which deliveries of these messages ended when they were accepted, because their recipients
    /// were suppressed then. The events say it, whatever became of the list since.
    ///
    /// # Errors
    /// Of the database.
    pub async fn suppressed_at_accept(
        &self,
        messages: &[MessageId],
    ) -> Result<HashSet<DeliveryKey>, StoreError> {
        let ids: Vec<Uuid> = messages.iter().map(|id| id.uuid()).collect();
        let Some(oldest) = ids.iter().min() else {
            return Ok(HashSet::new());
        };
        let rows: Vec<(Uuid, i16)> = sqlx::query_as(
            "SELECT subject, rcpt FROM event
             WHERE subject = ANY ($1) AND id >= $2 AND type = $3 AND sequence = 1
               AND rcpt IS NOT NULL",
        )
        .bind(&ids)
        .bind(day_before(*oldest))
        .bind(EventType::EmailSuppressed.code())
        .fetch_all(&self.general)
        .await
        .during("read who was suppressed")?;
        let key = |(message, rcpt)| {
            Ok(DeliveryKey {
                message: MessageId::from_uuid(message),
                rcpt: unsigned("recipient number", rcpt)?,
            })
        };
        rows.into_iter().map(key).collect()
    }
}
