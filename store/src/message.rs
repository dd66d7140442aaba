//! Messages as their senders look at them later.

use mail::domain_name::DomainName;
use mail::ids::MessageId;

use crate::database::Store;
use crate::decode::domain_name;
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
    /// The account's domain it was sent from; none when that was removed long ago.
    pub sender_domain: Option<DomainName>,
}

/// What decides about who may see a send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentMessage {
    /// Which.
    pub id: MessageId,
    /// Sent with a test key.
    pub test: bool,
    /// The account's domain it was sent from; none when that was removed long ago.
    pub sender_domain: Option<DomainName>,
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
    Option<String>,
);

impl Store {
    /// Which of these messages the account sent.
    ///
    /// # Errors
    /// Of the database.
    pub async fn sent_among(
        &self,
        account: AccountNo,
        ids: &[MessageId],
    ) -> Result<Vec<SentMessage>, StoreError> {
        let wanted: Vec<_> = ids.iter().map(|id| id.uuid()).collect();
        let rows: Vec<(uuid::Uuid, i16, Option<String>)> =
            sqlx::query_as(include_str!("../queries/sent_among.sql"))
                .bind(wanted)
                .bind(account.0)
                .fetch_all(&self.search)
                .await
                .during("find messages among others")?;
        let sent = |(id, flags, sender_domain): (_, _, Option<String>)| {
            Ok(SentMessage {
                id: MessageId::from_uuid(id),
                test: MessageFlags::from_bits(flags).contains(MessageFlags::TEST),
                sender_domain: sender_domain.as_deref().map(domain_name).transpose()?,
            })
        };
        rows.into_iter().map(sent).collect()
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
                    m.rfc_message_id, m.flags, d.name
             FROM message m LEFT JOIN stream s ON s.id = m.stream
                            LEFT JOIN domain d ON d.id = m.domain
             WHERE m.id = $1 AND m.account = $2",
        )
        .bind(id.uuid())
        .bind(account.0)
        .fetch_optional(&self.general)
        .await
        .during("read a message")?;
        let Some((
            sender,
            subject,
            stream,
            tags,
            metadata,
            recipients,
            rfc_message_id,
            flags,
            domain,
        )) = row
        else {
            return Ok(None);
        };
        Ok(Some(MessageView {
            id,
            sender,
            subject,
            stream,
            tags: tags.unwrap_or_default(),
            metadata,
            recipients,
            rfc_message_id,
            test: MessageFlags::from_bits(flags).contains(MessageFlags::TEST),
            sender_domain: domain.as_deref().map(domain_name).transpose()?,
        }))
    }
}
