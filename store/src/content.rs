//! Content of deliveries that are about to be sent.

use std::collections::HashMap;

use bytes::Bytes;
use mail::ids::MessageId;
use sqlx::FromRow;
use time::OffsetDateTime;
use tokio::task::spawn_blocking;
use uuid::Uuid;

use crate::accept::ContentKind;
use crate::codec::{kind_of, unpack};
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
    /// Goes before `bytes`: fields of its own, where `bytes` are shared; else empty.
    pub header: String,
    /// JSON of its variables, where `bytes` are a template.
    pub variables: Option<String>,
    /// The content; messages that share it have it in common.
    pub content_id: Uuid,
    /// What `bytes` are.
    pub kind: ContentKind,
    /// Octets of `bytes` that are header, the empty line included; 0 in a template.
    pub header_len: usize,
    /// SHA-256 of the canonicalised body, for DKIM; of no meaning in a template.
    pub body_hash: [u8; 32],
    /// Header and body, or what is shared of them.
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
    header: Option<String>,
    variables: Option<String>,
    content_id: Uuid,
    // The content comes with the first row of those that share it.
    codec: Option<i16>,
    seal_key: Option<i32>,
    header_octets: Option<i32>,
    octets: Option<i32>,
    body_hash: Option<Vec<u8>>,
    bytes: Option<Vec<u8>>,
    suppressed: Option<Vec<i16>>,
    suppressed_until: Option<Vec<Option<OffsetDateTime>>>,
}

struct ContentRow {
    codec: i16,
    seal_key: Option<i32>,
    header_octets: i32,
    octets: i32,
    body_hash: Vec<u8>,
    bytes: Vec<u8>,
}

/// Content, unpacked.
struct Content {
    kind: ContentKind,
    header_len: usize,
    body_hash: [u8; 32],
    bytes: Bytes,
}

impl ContentRow {
    fn unpack(self) -> Result<Content, StoreError> {
        if let Some(number) = self.seal_key {
            let detail = format!("sealed with key {number}, which this version does not do");
            return Err(StoreError::Corrupt {
                what: "content",
                detail,
            });
        }
        let octets = usize::try_from(self.octets)
            .map_err(|_| StoreError::corrupt("content length", self.octets))?;
        let header_len = usize::try_from(self.header_octets)
            .ok()
            .filter(|length| *length <= octets)
            .ok_or_else(|| StoreError::corrupt("header length", self.header_octets))?;
        Ok(Content {
            kind: kind_of(self.codec)?,
            header_len,
            body_hash: sha256("body hash", &self.body_hash)?,
            bytes: Bytes::from(unpack(self.codec, self.bytes, octets)?),
        })
    }
}

impl Row {
    /// Plain octets that came with this row.
    fn octets(&self) -> usize {
        self.octets
            .and_then(|octets| usize::try_from(octets).ok())
            .unwrap_or(0)
    }

    fn take_content(&mut self) -> Option<ContentRow> {
        Some(ContentRow {
            codec: self.codec?,
            seal_key: self.seal_key,
            header_octets: self.header_octets?,
            octets: self.octets?,
            body_hash: self.body_hash.take()?,
            bytes: self.bytes.take()?,
        })
    }

    fn with(self, content: &Content) -> Result<StoredMessage, StoreError> {
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
            header: self.header.unwrap_or_default(),
            variables: self.variables,
            content_id: self.content_id,
            kind: content.kind,
            header_len: content.header_len,
            body_hash: content.body_hash,
            bytes: content.bytes.clone(),
            suppressed,
        })
    }
}

impl Store {
    /// Messages and their content, in any order; shared content is fetched and held once. One that
    /// is missing or cannot be read is left out (and logged): it must not keep the others back.
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

fn unpack_all(mut rows: Vec<Row>) -> Vec<StoredMessage> {
    let mut contents: HashMap<Uuid, Content> = HashMap::new();
    for row in &mut rows {
        let id = MessageId::from_uuid(row.id);
        match row.take_content().map(ContentRow::unpack) {
            Some(Ok(content)) => {
                contents.insert(row.content_id, content);
            }
            Some(Err(error)) => {
                tracing::error!(message = %id, %error, "content is unreadable");
            }
            None => {}
        }
    }
    rows.into_iter()
        .filter_map(|row| {
            let content = contents.get(&row.content_id)?;
            let id = MessageId::from_uuid(row.id);
            row.with(content)
                .inspect_err(
                    |error| tracing::error!(message = %id, %error, "a message is unreadable"),
                )
                .ok()
        })
        .collect()
}
