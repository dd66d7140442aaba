//! What the sandbox MX received, for people to look at.

use mail::ids::InboxId;
use sqlx::FromRow;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::database::Store;
use crate::decode::without_nul;
use crate::error::{During, StoreError};

/// A message as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxMessage {
    /// Carries the time.
    pub id: InboxId,
    /// When the final dot was answered.
    pub received_at: OffsetDateTime,
    /// How the client called itself.
    pub helo: String,
    /// The reverse-path.
    pub mail_from: String,
    /// The forward-paths.
    pub recipients: Vec<String>,
    /// What SPF, DKIM and DMARC said (RFC 8601), without the field's name.
    pub authentication_results: String,
    /// Octets as received.
    pub raw: Vec<u8>,
}

/// A message in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxSummary {
    /// Carries the time.
    pub id: InboxId,
    /// When it arrived.
    pub received_at: OffsetDateTime,
    /// The reverse-path.
    pub mail_from: String,
    /// The forward-paths.
    pub recipients: Vec<String>,
    /// What SPF, DKIM and DMARC said.
    pub authentication_results: String,
    /// The first 8 KB, where the header is.
    pub head: Vec<u8>,
    /// Octets in all.
    pub octets: i32,
}

#[derive(FromRow)]
struct Row {
    id: Uuid,
    received_at: OffsetDateTime,
    helo: String,
    mail_from: String,
    recipients: Vec<String>,
    authentication_results: String,
    raw: Vec<u8>,
}

impl Store {
    /// Keeps a received message.
    ///
    /// # Errors
    /// Of the database.
    pub async fn add_sandbox_message(&self, message: &SandboxMessage) -> Result<(), StoreError> {
        let recipients: Vec<_> = message
            .recipients
            .iter()
            .map(|text| without_nul(text))
            .collect();
        sqlx::query(
            "INSERT INTO sandbox_message (id, received_at, helo, mail_from, recipients,
                                          authentication_results, raw)
             VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING",
        )
        .bind(message.id.uuid())
        .bind(message.received_at)
        .bind(without_nul(&message.helo))
        .bind(without_nul(&message.mail_from))
        .bind(recipients)
        .bind(without_nul(&message.authentication_results))
        .bind(&message.raw)
        .execute(&self.general)
        .await
        .during("keep a sandbox message")?;
        Ok(())
    }

    /// Newest first, continuing after the message `after`.
    ///
    /// # Errors
    /// Of the database.
    pub async fn sandbox_messages(
        &self,
        limit: i64,
        after: Option<InboxId>,
    ) -> Result<Vec<SandboxSummary>, StoreError> {
        type Columns = (
            Uuid,
            OffsetDateTime,
            String,
            Vec<String>,
            String,
            Vec<u8>,
            i32,
        );
        let rows: Vec<Columns> = sqlx::query_as(
            "SELECT id, received_at, mail_from, recipients, authentication_results,
                    substring(raw FOR 8192), octet_length(raw)
             FROM sandbox_message WHERE id < $1 ORDER BY id DESC LIMIT $2",
        )
        .bind(after.map_or(Uuid::max(), InboxId::uuid))
        .bind(limit)
        .fetch_all(&self.general)
        .await
        .during("list sandbox messages")?;
        let summary =
            |(id, received_at, mail_from, recipients, authentication_results, head, octets)| {
                SandboxSummary {
                    id: InboxId::from_uuid(id),
                    received_at,
                    mail_from,
                    recipients,
                    authentication_results,
                    head,
                    octets,
                }
            };
        Ok(rows.into_iter().map(summary).collect())
    }

    /// One message.
    ///
    /// # Errors
    /// Of the database.
    pub async fn sandbox_message(&self, id: InboxId) -> Result<Option<SandboxMessage>, StoreError> {
        let row: Option<Row> = sqlx::query_as(
            "SELECT id, received_at, helo, mail_from, recipients, authentication_results, raw
             FROM sandbox_message WHERE id = $1",
        )
        .bind(id.uuid())
        .fetch_optional(&self.general)
        .await
        .during("read a sandbox message")?;
        Ok(row.map(|row| SandboxMessage {
            id: InboxId::from_uuid(row.id),
            received_at: row.received_at,
            helo: row.helo,
            mail_from: row.mail_from,
            recipients: row.recipients,
            authentication_results: row.authentication_results,
            raw: row.raw,
        }))
    }

    /// Drops all but the newest `keep` messages; returns how many went.
    ///
    /// # Errors
    /// Of the database.
    pub async fn trim_sandbox(&self, keep: i64) -> Result<u64, StoreError> {
        let done = sqlx::query(
            "DELETE FROM sandbox_message WHERE id <= (
               SELECT id FROM sandbox_message ORDER BY id DESC OFFSET $1 LIMIT 1)",
        )
        .bind(keep)
        .execute(&self.general)
        .await
        .during("trim the sandbox")?;
        Ok(done.rows_affected())
    }
}
