//! Messages as their senders look at them later.

use mail::ids::MessageId;

use crate::database::Store;
use crate::error::{During, StoreError};
use crate::numbers::{AccountNo, MessageFlags};

/// One send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageView {
    /// Carries the time.
    pub id: MessageId,
    /// The From field as given.
    pub sender: String,
    /// Decoded.
    pub subject: String,
    /// Name of the stream.
    pub stream: String,
    /// As given.
    pub tags: Vec<String>,
    /// JSON, as given.
    pub metadata: Option<String>,
    /// Addresses, by recipient number.
    pub recipients: Vec<String>,
    /// The Message-ID field.
    pub rfc_message_id: String,
    /// Sent with a test key.
    pub test: bool,
}

type Columns = (
    String,
    String,
    String,
    Option<Vec<String>>,
    Option<String>,
    Vec<String>,
    String,
    i16,
);

impl Store {
    /// Which of these messages the account sent, each with whether a test key did.
    ///
    /// # Errors
    /// Of the database.
    pub async fn sent_among(
        &self,
        account: AccountNo,
        ids: &[MessageId],
    ) -> Result<Vec<(MessageId, bool)>, StoreError> {
        let wanted: Vec<_> = ids.iter().map(|id| id.uuid()).collect();
        let rows: Vec<(uuid::Uuid, i16)> =
            sqlx::query_as(include_str!("../queries/sent_among.sql"))
                .bind(wanted)
                .bind(account.0)
                .fetch_all(&self.search)
                .await
                .during("find messages among others")?;
        let is_test = |flags| MessageFlags::from_bits(flags).contains(MessageFlags::TEST);
        Ok(rows
            .into_iter()
            .map(|(id, flags)| (MessageId::from_uuid(id), is_test(flags)))
            .collect())
    }

    /// The message, if this account sent it.
    ///
    /// # Errors
    /// Of the database.
    pub async fn message(
        &self,
        account: AccountNo,
        id: MessageId,
    ) -> Result<Option<MessageView>, StoreError> {
        let row: Option<Columns> = sqlx::query_as(
            "SELECT m.sender, m.subject, coalesce(s.name, ''), m.tags, m.metadata, m.recipients,
                    m.rfc_message_id, m.flags
             FROM message m LEFT JOIN stream s ON s.id = m.stream
             WHERE m.id = $1 AND m.account = $2",
        )
        .bind(id.uuid())
        .bind(account.0)
        .fetch_optional(&self.general)
        .await
        .during("read a message")?;
        Ok(row.map(
            |(sender, subject, stream, tags, metadata, recipients, rfc_message_id, flags)| {
                MessageView {
                    id,
                    sender,
                    subject,
                    stream,
                    tags: tags.unwrap_or_default(),
                    metadata,
                    recipients,
                    rfc_message_id,
                    test: MessageFlags::from_bits(flags).contains(MessageFlags::TEST),
                }
            },
        ))
    }
}
