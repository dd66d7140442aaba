//! One request on its way into the database: its ids are fixed here, before the first try, so that
//! a second try of the same commit changes nothing.

use std::collections::HashMap;
use std::sync::Arc;

use mail::ids::{DELIVERIES_MAX, uuid_v7};
use mail::retry::StreamClass;
use time::OffsetDateTime;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use uuid::Uuid;

use super::{AcceptRequest, Accepted, ContentKind, NewContent, NewMessage};
use crate::codec::{Packed, pack};
use crate::content::StoredMessage;
use crate::decode::signed;
use crate::error::StoreError;
use crate::numbers::{QueueFlags, ShardNo, micros};
use crate::queue::{DeliveryKey, QueueRow};

/// A shard for each class.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shards {
    pub(super) transactional: ShardNo,
    pub(super) broadcast: ShardNo,
}

impl Shards {
    pub(super) fn of(self, class: StreamClass) -> ShardNo {
        match class {
            StreamClass::Transactional => self.transactional,
            StreamClass::Broadcast => self.broadcast,
        }
    }
}

/// Content to be stored once, however many messages share it.
pub(super) struct JobContent {
    pub(super) id: Uuid,
    pub(super) content: Arc<NewContent>,
    pub(super) packed: Option<Packed>,
}

/// A request and everything made for it.
pub(super) struct Job {
    pub(super) request: AcceptRequest,
    pub(super) request_id: Uuid,
    pub(super) contents: Vec<JobContent>,
    /// By message: which of `contents`.
    pub(super) content_of: Vec<usize>,
    /// By delivery, messages one after another.
    pub(super) event_ids: Vec<Uuid>,
    pub(super) accepted_at: OffsetDateTime,
    pub(super) shards: Option<Shards>,
    /// Plain octets of content, and of what single messages add to it.
    pub(super) octets: usize,
    reply: oneshot::Sender<Result<Accepted, StoreError>>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Job {
    pub(super) fn new(
        request: AcceptRequest,
        now: OffsetDateTime,
        reply: oneshot::Sender<Result<Accepted, StoreError>>,
    ) -> Result<Self, StoreError> {
        request.messages.iter().try_for_each(check)?;
        let (contents, content_of) = contents(&request.messages);
        let deliveries = request
            .messages
            .iter()
            .map(|message| message.recipients.len())
            .sum();
        Ok(Self {
            request_id: new_id(now),
            octets: octets(&contents, &request.messages),
            contents,
            content_of,
            event_ids: (0..deliveries).map(|_| new_id(now)).collect(),
            accepted_at: now,
            shards: None,
            request,
            reply,
            permit: None,
        })
    }

    /// Keeps its share of the memory budget until it is answered.
    pub(super) fn holding(self, permit: OwnedSemaphorePermit) -> Self {
        Self {
            permit: Some(permit),
            ..self
        }
    }

    pub(super) fn deliveries(&self) -> usize {
        self.event_ids.len()
    }

    /// Compresses the content: takes a while, must not be done on the reactor.
    pub(super) fn pack(&mut self) {
        for content in &mut self.contents {
            content.packed = Some(pack(content.content.kind, &content.content.bytes));
        }
    }

    pub(super) fn shard_of(&self, message: &NewMessage) -> ShardNo {
        self.shards
            .map_or(ShardNo(0), |shards| shards.of(message.class))
    }

    /// The rows as the queue has them after the commit.
    pub(super) fn queue_rows(&self) -> impl Iterator<Item = QueueRow> {
        self.request.messages.iter().flat_map(|message| {
            let (shard, due_at) = (self.shard_of(message), micros(message.due_at));
            (0..)
                .zip(&message.recipients)
                .map(move |(rcpt, recipient)| QueueRow {
                    shard,
                    next_at: due_at,
                    key: DeliveryKey {
                        message: message.id,
                        rcpt,
                    },
                    account: message.account,
                    stream: message.stream,
                    domain: recipient.domain,
                    pool: message.pool,
                    attempt: 0,
                    flags: QueueFlags::NONE,
                    first_at: due_at,
                    expires_at: micros(message.expires_at),
                })
        })
    }

    /// The messages as [`Store::contents`](crate::Store::contents) would give them, of those that are
    /// due now. Templates are left out: who sends them fills them in many at a time.
    pub(super) fn messages_due(&self) -> impl Iterator<Item = Arc<StoredMessage>> {
        let due = |message: &&NewMessage| {
            message.due_at <= self.accepted_at && message.content.kind != ContentKind::Template
        };
        let messages = self.request.messages.iter().zip(&self.content_of);
        messages
            .filter(move |(message, _)| due(message))
            .map(|(message, content)| {
                Arc::new(StoredMessage {
                    id: message.id,
                    account: message.account,
                    stream: message.stream,
                    domain: message.domain,
                    flags: message.flags,
                    sender: message.sender.clone(),
                    recipients: addresses(message).collect(),
                    rfc_message_id: message.rfc_message_id.clone(),
                    header: message.header.clone().unwrap_or_default(),
                    variables: None,
                    content_id: self.contents[*content].id,
                    kind: message.content.kind,
                    header_len: message.content.header_len,
                    body_hash: message.content.body_hash,
                    bytes: message.content.bytes.clone(),
                    // Those that are have no row in the queue.
                    suppressed: Vec::new(),
                })
            })
    }

    pub(super) fn answer(self, answer: Result<Accepted, StoreError>) {
        drop(self.permit);
        // The caller may have gone; what is stored is stored.
        let _ = self.reply.send(answer);
    }
}

fn check(message: &NewMessage) -> Result<(), StoreError> {
    let invalid = |what, detail: &str| {
        Err(StoreError::Invalid {
            what,
            detail: detail.to_owned(),
        })
    };
    if message.recipients.len() > DELIVERIES_MAX {
        return invalid("message", "too many recipients");
    }
    // Lists travel to the server as lines.
    if message.tags.iter().any(|tag| tag.contains('\n')) {
        return invalid("tag", "has a line end");
    }
    if message.content.header_len > message.content.bytes.len() {
        return invalid("content", "the header is longer than the whole");
    }
    let kind = message.content.kind;
    if message.header.is_some() != (kind != ContentKind::Message)
        || message.variables.is_some() != (kind == ContentKind::Template)
    {
        return invalid("message", "header or variables do not go with its content");
    }
    Ok(())
}

fn octets(contents: &[JobContent], messages: &[NewMessage]) -> usize {
    let contents = contents.iter().map(|content| content.content.bytes.len());
    let own = messages.iter().map(|message| {
        let length = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        length(&message.header) + length(&message.variables)
    });
    contents.chain(own).sum()
}

/// The id of content carries when its last message is due: partitions are dropped by it.
fn contents(messages: &[NewMessage]) -> (Vec<JobContent>, Vec<usize>) {
    let mut distinct: Vec<(Arc<NewContent>, OffsetDateTime)> = Vec::new();
    let mut known: HashMap<*const NewContent, usize> = HashMap::new();
    let mut content_of = Vec::with_capacity(messages.len());
    for message in messages {
        let index = *known
            .entry(Arc::as_ptr(&message.content))
            .or_insert_with(|| {
                distinct.push((message.content.clone(), message.due_at));
                distinct.len() - 1
            });
        distinct[index].1 = distinct[index].1.max(message.due_at);
        content_of.push(index);
    }
    let contents = distinct.into_iter().map(|(content, due_at)| JobContent {
        id: new_id(due_at),
        content,
        packed: None,
    });
    (contents.collect(), content_of)
}

fn new_id(at: OffsetDateTime) -> Uuid {
    let unix_ms = u64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap_or(0);
    uuid_v7(unix_ms, rand::random())
}

/// Recipients of a message, as the statement takes a list.
pub(super) fn recipient_lines(message: &NewMessage) -> String {
    addresses(message).collect::<Vec<_>>().join("\n")
}

fn addresses(message: &NewMessage) -> impl Iterator<Item = String> {
    let recipients = message.recipients.iter();
    recipients.map(|recipient| recipient.address.to_string())
}

/// Number of a recipient, as stored.
pub(super) fn rcpt_column(index: usize) -> i16 {
    signed(u16::try_from(index).unwrap_or(u16::MAX))
}
