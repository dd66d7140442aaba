//! The arrays of the accept statement, filled from jobs. Their order is that of `accept.sql`.

use std::collections::HashSet;

use mail::event::EventType;
use mail::ids::MessageId;
use mail::suppression::look_up_key;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::job::{Job, JobContent, rcpt_column, recipient_lines};
use super::{IdempotencyKey, NewMessage};
use crate::numbers::micros;
use crate::queue::DeliveryKey;

/// What the statement did otherwise than asked.
#[derive(Debug)]
pub(super) struct Committed {
    /// Requests whose idempotency key was taken.
    pub(super) lost: HashSet<Uuid>,
    /// Deliveries that ended at once because their recipient is suppressed; none when that could not
    /// be learnt.
    pub(super) suppressed: Option<HashSet<DeliveryKey>>,
}

#[derive(Default)]
pub(super) struct Columns<'a> {
    keys: Keys<'a>,
    messages: Messages<'a>,
    contents: Contents<'a>,
    deliveries: Deliveries,
}

#[derive(Default)]
struct Keys<'a> {
    accounts: Vec<i32>,
    key_hashes: Vec<&'a [u8]>,
    body_hashes: Vec<&'a [u8]>,
    request_ids: Vec<Uuid>,
    responses: Vec<&'a str>,
}

#[derive(Default)]
struct Messages<'a> {
    request_ids: Vec<Uuid>,
    ids: Vec<Uuid>,
    content_ids: Vec<Uuid>,
    accounts: Vec<i32>,
    streams: Vec<i32>,
    domains: Vec<i32>,
    content_classes: Vec<i16>,
    shards: Vec<i16>,
    flags: Vec<i16>,
    senders: Vec<&'a str>,
    rfc_message_ids: Vec<&'a str>,
    subjects: Vec<&'a str>,
    recipients: Vec<String>,
    tags: Vec<Option<String>>,
    metadata: Vec<Option<&'a str>>,
    /// Of messages whose content is a template.
    variables: Vec<Option<&'a str>>,
    /// Of messages that share their content.
    headers: Vec<Option<&'a str>>,
}

#[derive(Default)]
struct Contents<'a> {
    ids: Vec<Uuid>,
    classes: Vec<i16>,
    codecs: Vec<i16>,
    /// Content is stored unsealed.
    seal_keys: Vec<Option<i32>>,
    header_octets: Vec<i32>,
    octets: Vec<i32>,
    body_hashes: Vec<&'a [u8]>,
    bytes: Vec<&'a [u8]>,
}

#[derive(Default)]
struct Deliveries {
    shards: Vec<i16>,
    next_ats: Vec<OffsetDateTime>,
    messages: Vec<Uuid>,
    rcpts: Vec<i16>,
    accounts: Vec<i32>,
    streams: Vec<i32>,
    domains: Vec<i32>,
    pools: Vec<Option<i32>>,
    expires_ats: Vec<OffsetDateTime>,
    event_ids: Vec<Uuid>,
    event_types: Vec<i16>,
    look_up_keys: Vec<String>,
    /// When a scheduled delivery is due.
    event_next_ats: Vec<Option<OffsetDateTime>>,
}

impl<'a> Columns<'a> {
    pub(super) fn of(jobs: &'a [Job]) -> Self {
        let mut columns = Self::default();
        for job in jobs {
            if let Some(key) = &job.request.idempotency {
                columns.keys.push(job, key);
            }
            for content in &job.contents {
                columns.contents.push(content);
            }
            let mut event_ids = job.event_ids.iter();
            for (message, content) in job.request.messages.iter().zip(&job.content_of) {
                columns.messages.push(job, message, &job.contents[*content]);
                columns.deliveries.push(job, message, event_ids.by_ref());
            }
        }
        columns
    }

    /// Runs the statement; it commits by itself.
    pub(super) async fn commit(
        self,
        connection: &mut PgConnection,
        accepted_at: OffsetDateTime,
    ) -> Result<Committed, sqlx::Error> {
        let Self {
            keys,
            messages,
            contents,
            deliveries,
        } = self;
        let rows: Vec<(Uuid, i32, Option<Vec<u8>>)> =
            sqlx::query_as(include_str!("../../queries/accept.sql"))
                .bind(keys.accounts)
                .bind(keys.key_hashes)
                .bind(keys.body_hashes)
                .bind(keys.request_ids)
                .bind(keys.responses)
                .bind(messages.request_ids)
                .bind(messages.ids)
                .bind(messages.content_ids)
                .bind(messages.accounts)
                .bind(messages.streams)
                .bind(messages.domains)
                .bind(messages.content_classes)
                .bind(messages.shards)
                .bind(messages.flags)
                .bind(messages.senders)
                .bind(messages.rfc_message_ids)
                .bind(messages.subjects)
                .bind(messages.recipients)
                .bind(messages.tags)
                .bind(messages.metadata)
                .bind(messages.variables)
                .bind(contents.ids)
                .bind(contents.classes)
                .bind(contents.codecs)
                .bind(contents.seal_keys)
                .bind(contents.header_octets)
                .bind(contents.octets)
                .bind(contents.body_hashes)
                .bind(contents.bytes)
                .bind(deliveries.shards)
                .bind(deliveries.next_ats)
                .bind(deliveries.messages)
                .bind(deliveries.rcpts)
                .bind(deliveries.accounts)
                .bind(deliveries.streams)
                .bind(deliveries.domains)
                .bind(deliveries.pools)
                .bind(deliveries.expires_ats)
                .bind(deliveries.event_ids)
                .bind(accepted_at)
                .bind(deliveries.event_types)
                .bind(deliveries.look_up_keys)
                .bind(deliveries.event_next_ats)
                .bind(messages.headers)
                .fetch_all(connection)
                .await?;
        let (mut lost, mut suppressed) = (HashSet::new(), HashSet::new());
        for (id, number, key_hash) in rows {
            if key_hash.is_some() {
                lost.insert(id);
            } else if let Ok(rcpt) = u16::try_from(number) {
                let message = MessageId::from_uuid(id);
                suppressed.insert(DeliveryKey { message, rcpt });
            }
        }
        Ok(Committed {
            lost,
            suppressed: Some(suppressed),
        })
    }
}

impl<'a> Keys<'a> {
    fn push(&mut self, job: &Job, key: &'a IdempotencyKey) {
        self.accounts.push(job.request.account.0);
        self.key_hashes.push(&key.key_hash);
        self.body_hashes.push(&key.body_hash);
        self.request_ids.push(job.request_id);
        self.responses.push(&key.response);
    }
}

impl<'a> Messages<'a> {
    fn push(&mut self, job: &Job, message: &'a NewMessage, content: &JobContent) {
        self.request_ids.push(job.request_id);
        self.ids.push(message.id.uuid());
        self.content_ids.push(content.id);
        self.accounts.push(message.account.0);
        self.streams.push(message.stream.0);
        self.domains.push(message.domain.0);
        self.content_classes.push(content.content.class.days());
        self.shards.push(job.shard_of(message).0);
        self.flags.push(message.flags.bits());
        self.senders.push(&message.sender);
        self.rfc_message_ids.push(&message.rfc_message_id);
        self.subjects.push(&message.subject);
        self.recipients.push(recipient_lines(message));
        self.tags
            .push((!message.tags.is_empty()).then(|| message.tags.join("\n")));
        self.metadata.push(message.metadata.as_deref());
        self.variables.push(message.variables.as_deref());
        self.headers.push(message.header.as_deref());
    }
}

impl<'a> Contents<'a> {
    fn push(&mut self, content: &'a JobContent) {
        let plain = &content.content;
        let packed = content.packed.as_ref();
        self.ids.push(content.id);
        self.classes.push(plain.class.days());
        self.codecs.push(packed.map_or(0, |packed| packed.codec));
        self.seal_keys.push(None);
        self.header_octets.push(octets(plain.header_len));
        self.octets.push(octets(plain.bytes.len()));
        self.body_hashes.push(&plain.body_hash);
        let bytes = packed.and_then(|packed| packed.bytes.as_deref());
        self.bytes.push(bytes.unwrap_or(&plain.bytes));
    }
}

/// The budget for waiting content lies far below the bound.
fn octets(length: usize) -> i32 {
    i32::try_from(length).unwrap_or(i32::MAX)
}

impl Deliveries {
    fn push<'i>(
        &mut self,
        job: &Job,
        message: &NewMessage,
        event_ids: impl Iterator<Item = &'i Uuid>,
    ) {
        let (kind, later) = if message.due_at > job.accepted_at {
            (EventType::EmailScheduled, Some(micros(message.due_at)))
        } else {
            (EventType::EmailQueued, None)
        };
        for ((index, recipient), event_id) in message.recipients.iter().enumerate().zip(event_ids) {
            self.shards.push(job.shard_of(message).0);
            self.next_ats.push(micros(message.due_at));
            self.messages.push(message.id.uuid());
            self.rcpts.push(rcpt_column(index));
            self.accounts.push(message.account.0);
            self.streams.push(message.stream.0);
            self.domains.push(recipient.domain.0);
            self.pools.push(message.pool.map(|pool| pool.0));
            self.expires_ats.push(micros(message.expires_at));
            self.event_ids.push(*event_id);
            self.event_types.push(kind.code());
            self.look_up_keys.push(look_up_key(&recipient.address));
            self.event_next_ats.push(later);
        }
    }
}
