//! How an email looks from outside: what was stored about the message, and what its events say
//! about each delivery. Pure: rows in, shapes out.

use std::collections::BTreeMap;

use mail::bounce_class::BounceClass;
use mail::event::{DeliveryStatus, EventType};
use mail::ids::{DeliveryId, EventId, MessageId};
use serde::Serialize;
use store::{EventFlags, MessageView, StoredEvent};
use utoipa::ToSchema;

use crate::timestamp::Timestamp;

/// An email and what became of it.
#[derive(Serialize, ToSchema)]
#[schema(as = Email)]
pub(crate) struct EmailView {
    #[schema(value_type = String, example = "msg_01kasxq2bke9qa1bz2t0zc6800")]
    id: MessageId,
    #[schema(value_type = String, format = DateTime, example = "2026-11-22T09:00:00.000Z")]
    created_at: Timestamp,
    #[schema(example = "Acme <hello@acme.test>")]
    from: String,
    subject: String,
    #[schema(example = "transactional")]
    stream: String,
    /// The header Message-ID, with its angle brackets.
    #[schema(example = "<01kasxq2bke9qa1bz2t0zc6800@acme.test>")]
    rfc_message_id: String,
    tags: Vec<String>,
    metadata: BTreeMap<String, String>,
    /// Sent with a test key, so it went to the sandbox.
    test: bool,
    /// That of the least finished delivery.
    #[schema(value_type = String, example = "delivered")]
    status: DeliveryStatus,
    deliveries: Vec<DeliveryView>,
}

/// One recipient's copy.
#[derive(Serialize, ToSchema)]
#[schema(as = Delivery)]
struct DeliveryView {
    #[schema(value_type = String, example = "dlv_01kasxq2bke9qa1bz2t0zc6801")]
    id: DeliveryId,
    #[schema(example = "ana@example.com")]
    to: String,
    /// scheduled, queued, deferred, delivered, bounced, expired, suppressed or cancelled.
    #[schema(value_type = String, example = "delivered")]
    status: DeliveryStatus,
    /// When a scheduled delivery goes, or a deferred one is tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    next_attempt_at: Option<Timestamp>,
    attempts: Vec<AttemptView>,
    events: Vec<EventView>,
}

/// One try to deliver.
#[derive(Serialize, ToSchema)]
#[schema(as = Attempt)]
struct AttemptView {
    /// 1 for the first.
    number: u16,
    /// When its outcome was known.
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    /// The address it was sent from, or our EHLO name when the system chose the address.
    source: Option<String>,
    /// The host it was sent to.
    mx: Option<String>,
    /// The TLS version; null when it went in clear.
    tls: Option<String>,
    /// What the host answered.
    reply: Option<String>,
    /// Why it was refused or put off.
    #[schema(value_type = Option<String>, example = "mailbox_full")]
    class: Option<BounceClass>,
    duration_ms: Option<i32>,
    /// The message was written and no answer was read: it may have arrived.
    ambiguous: bool,
}

/// Something that happened to a delivery.
#[derive(Serialize, ToSchema)]
#[schema(as = DeliveryEvent)]
struct EventView {
    #[schema(value_type = String, example = "evt_01kasxq2bke9qa1bz2t0zc6m4d")]
    id: EventId,
    #[serde(rename = "type")]
    #[schema(value_type = String, example = "email.delivered")]
    kind: EventType,
    #[schema(value_type = String, format = DateTime)]
    timestamp: Timestamp,
    /// Counts within the delivery. A move repeats the 1 of the event whose place it takes: of events
    /// with the same number the later one counts.
    sequence: u16,
    /// The time it is to go: of `email.scheduled`, and of an `email.queued` that a move to now made.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, nullable = false, value_type = String, format = DateTime)]
    send_at: Option<Timestamp>,
    /// True for exactly one event of a delivery.
    #[serde(rename = "final")]
    is_final: bool,
    /// A bounce that came as a report after the end.
    out_of_band: bool,
}

impl EmailView {
    /// The email of these rows. Events of no delivery are left out.
    pub(crate) fn new(message: MessageView, events: Vec<StoredEvent>) -> Self {
        let mut of_recipient: Vec<Vec<StoredEvent>> = Vec::new();
        of_recipient.resize_with(message.recipients.len(), Vec::new);
        for event in events {
            let recipient = event.rcpt.map(usize::from);
            if let Some(list) = recipient.and_then(|number| of_recipient.get_mut(number)) {
                list.push(event);
            }
        }
        let recipients = (0u16..).zip(message.recipients);
        let deliveries: Vec<DeliveryView> = recipients
            .zip(of_recipient)
            .map(|((number, to), events)| {
                DeliveryView::new(message.id.delivery(number), to, events)
            })
            .collect();
        let status = DeliveryStatus::of_message(deliveries.iter().map(|delivery| delivery.status));
        Self {
            id: message.id,
            created_at: Timestamp::of_id(message.id.unix_ms()),
            from: message.sender,
            subject: message.subject,
            stream: message.stream,
            rfc_message_id: message.rfc_message_id,
            tags: message.tags,
            metadata: metadata(message.metadata.as_deref()),
            test: message.test,
            status: status.unwrap_or(DeliveryStatus::Queued),
            deliveries,
        }
    }
}

/// The sender's keys and values; we wrote the column, so what it cannot be is shown as nothing.
fn metadata(stored: Option<&str>) -> BTreeMap<String, String> {
    stored
        .and_then(|json| serde_json::from_str(json).ok())
        .unwrap_or_default()
}

impl DeliveryView {
    fn new(id: DeliveryId, to: String, mut events: Vec<StoredEvent>) -> Self {
        events.sort_by_key(|event| (event.sequence, event.id));
        let last = events
            .iter()
            .rev()
            .find_map(|event| Some((event, event.kind.status()?)));
        Self {
            id,
            to,
            // The first event is committed with the message.
            status: last.map_or(DeliveryStatus::Queued, |(_, status)| status),
            next_attempt_at: last
                .filter(|(_, status)| {
                    matches!(status, DeliveryStatus::Deferred | DeliveryStatus::Scheduled)
                })
                .and_then(|(event, _)| event.next_at)
                .map(Timestamp::from),
            attempts: attempts(&events),
            events: events.iter().map(EventView::new).collect(),
        }
    }
}

/// The tries, each from the first event that tells of it: an expiry may repeat the last number.
fn attempts(events: &[StoredEvent]) -> Vec<AttemptView> {
    let mut attempts: Vec<AttemptView> = Vec::new();
    for event in events.iter().filter(|event| tells_of_attempt(event)) {
        if attempts
            .last()
            .is_none_or(|last| last.number < event.attempt)
        {
            attempts.push(AttemptView::new(event));
        }
    }
    attempts
}

fn tells_of_attempt(event: &StoredEvent) -> bool {
    let kind = matches!(
        event.kind,
        EventType::EmailDelivered
            | EventType::EmailDeferred
            | EventType::EmailBounced
            | EventType::EmailExpired
    );
    // A delivery that ran out of time between attempts has a number of its own for that event.
    let of_attempt = event.attempt > 0 && event.sequence == event.attempt + 1;
    kind && of_attempt && !event.flags.contains(EventFlags::OUT_OF_BAND)
}

impl AttemptView {
    fn new(event: &StoredEvent) -> Self {
        Self {
            number: event.attempt,
            at: Timestamp::of_id(event.id.unix_ms()),
            source: event.source.clone(),
            mx: event.mx.clone(),
            tls: event.tls.clone(),
            reply: event.reply.clone(),
            class: event.class,
            duration_ms: event.duration_ms,
            ambiguous: event.flags.contains(EventFlags::AMBIGUOUS),
        }
    }
}

impl EventView {
    fn new(event: &StoredEvent) -> Self {
        Self {
            id: event.id,
            kind: event.kind,
            timestamp: Timestamp::of_id(event.id.unix_ms()),
            sequence: event.sequence,
            send_at: event.send_at().map(Timestamp::from),
            is_final: event.flags.contains(EventFlags::FINAL),
            out_of_band: event.flags.contains(EventFlags::OUT_OF_BAND),
        }
    }
}
