//! Content of deliveries that are about to be sent.

use bytes::Bytes;
use mail::ids::MessageId;
use sqlx::FromRow;
use time::OffsetDateTime;
use tokio::task::spawn_blocking;
use uuid::Uuid;

use crate::codec::unpack;
use crate::connections::Connections;
use crate::database::Store;
use crate::decode::{sha256, unsigned};
use crate::error::{During, StoreError};
use crate::numbers::{AccountNo, DomainNo, MessageFlags, StreamNo};

/// More plain octets than this are unpacked on a thread that may be busy for a while.
const INLINE_MAX_OCTETS: usize = 64 * 1024;

/// A message with what goes on the wire.
#[derive(Debug, Clone)]
pub struct StoredMessage {
    /// Which.
    pub id: MessageId,
    /// Whose.
    pub account: AccountNo,
    /// Of which kind.
    pub stream: StreamNo,
    /// The sending domain.
    pub domain: DomainNo,
    /// What it asks of its transport.
    pub flags: MessageFlags,
    /// The From field as given.
    pub sender: String,
    /// Addresses, by recipient number.
    pub recipients: Vec<String>,
    /// The Message-ID field.
    pub rfc_message_id: String,
    /// Octets of `bytes` that are the header, without the empty line.
    pub header_len: usize,
    /// SHA-256 of the canonicalised body, for DKIM.
    pub body_hash: [u8; 32],
    /// Header and body.
    pub bytes: Bytes,
    /// Numbers of recipients that are suppressed, and until when if not for good.
    pub suppressed: Vec<(u16, Option<OffsetDateTime>)>,
}

impl StoredMessage {
    /// Whether this recipient must not be sent to at that time.
    pub fn is_suppressed(&self, rcpt: u16, now: OffsetDateTime) -> bool {
        self.suppressed
            .iter()
            .any(|(number, until)| *number == rcpt && until.is_none_or(|until| until > now))
    }
}

#[derive(FromRow)]
struct Row {
    id: Uuid,
    account: i32,
    stream: i32,
    domain: i32,
    flags: i16,
    sender: String,
    recipients: Vec<String>,
    rfc_message_id: String,
    codec: i16,
    seal_key: Option<i32>,
    header_octets: i32,
    octets: i32,
    body_hash: Vec<u8>,
    bytes: Vec<u8>,
    suppressed: Option<Vec<i16>>,
    suppressed_until: Option<Vec<Option<OffsetDateTime>>>,
}

impl Row {
    fn octets(&self) -> usize {
        usize::try_from(self.octets).unwrap_or(0)
    }

    fn unpack(self) -> Result<StoredMessage, StoreError> {
        if let Some(number) = self.seal_key {
            let detail = format!("sealed with key {number}, which this version does not do");
            return Err(StoreError::Corrupt {
                what: "content",
                detail,
            });
        }
        let octets = self.octets();
        let header_len = usize::try_from(self.header_octets)
            .ok()
            .filter(|length| *length <= octets)
            .ok_or_else(|| StoreError::corrupt("header length", self.header_octets))?;
        let numbers = self.suppressed.unwrap_or_default().into_iter();
        let suppressed = numbers
            .zip(self.suppressed_until.unwrap_or_default())
            .map(|(rcpt, until)| Ok((unsigned("recipient number", rcpt)?, until)))
            .collect::<Result<_, StoreError>>()?;
        Ok(StoredMessage {
            id: MessageId::from_uuid(self.id),
            account: AccountNo(self.account),
            stream: StreamNo(self.stream),
            domain: DomainNo(self.domain),
            flags: MessageFlags::from_bits(self.flags),
            sender: self.sender,
            recipients: self.recipients,
            rfc_message_id: self.rfc_message_id,
            header_len,
            body_hash: sha256("body hash", &self.body_hash)?,
            bytes: Bytes::from(unpack(self.codec, self.bytes, octets)?),
            suppressed,
        })
    }
}

impl Store {
    /// Messages and their content, in any order. One that is missing or cannot be read is left
    /// out (and logged): it must not keep the others back.
    ///
    /// # Errors
    /// Of the database.
    pub async fn contents(&self, ids: &[MessageId]) -> Result<Vec<StoredMessage>, StoreError> {
        self.contents_through(&self.queue, ids).await
    }

    /// A message and its content for a client: takes no connection from sending or searching.
    /// None when the content is not kept any more.
    ///
    /// # Errors
    /// Of the database.
    pub async fn content_to_show(
        &self,
        id: MessageId,
    ) -> Result<Option<StoredMessage>, StoreError> {
        Ok(self.contents_through(&self.content, &[id]).await?.pop())
    }

    /// Octets of a message's content, header and body; none when it is not kept any more.
    ///
    /// # Errors
    /// Of the database.
    pub async fn content_octets(&self, id: MessageId) -> Result<Option<usize>, StoreError> {
        let octets: Option<i32> = sqlx::query_scalar(
            "SELECT c.octets FROM (SELECT * FROM message WHERE id = $1 OFFSET 0) m
             CROSS JOIN LATERAL (
               SELECT * FROM content c
               WHERE c.class = m.content_class AND c.id = m.content_id OFFSET 0) c",
        )
        .bind(id.uuid())
        .fetch_optional(&self.content)
        .await
        .during("look how large content is")?;
        Ok(octets.map(|octets| usize::try_from(octets).unwrap_or_default()))
    }

    async fn contents_through(
        &self,
        connections: &Connections,
        ids: &[MessageId],
    ) -> Result<Vec<StoredMessage>, StoreError> {
        let rows: Vec<Row> = sqlx::query_as(include_str!("../queries/contents.sql"))
            .bind(ids.iter().map(|id| id.uuid()).collect::<Vec<Uuid>>())
            .fetch_all(connections)
            .await
            .during("read content")?;
        if rows.iter().map(Row::octets).sum::<usize>() <= INLINE_MAX_OCTETS {
            return Ok(unpack_all(rows));
        }
        spawn_blocking(|| unpack_all(rows))
            .await
            .map_err(|error| StoreError::Corrupt {
                what: "content",
                detail: error.to_string(),
            })
    }
}

fn unpack_all(rows: Vec<Row>) -> Vec<StoredMessage> {
    let readable = |row: Row| {
        let id = MessageId::from_uuid(row.id);
        row.unpack()
            .inspect_err(|error| tracing::error!(message = %id, %error, "content is unreadable"))
            .ok()
    };
    rows.into_iter().filter_map(readable).collect()
}
