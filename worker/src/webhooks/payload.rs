//! The body of a webhook call, from what the event log says. The shape is the published one of
//! `mail::event`; nothing is looked up here and nothing decided.

use std::collections::BTreeMap;

use bytes::Bytes;
use mail::event::{AttemptData, BounceData, EmailEventData, EventEnvelope, EventType};
use mail::ids::{AccountId, DomainId, MessageId, SourceId, WebhookEndpointId};
use serde::Serialize;
use store::{EventFlags, LogMessage, LogRow, StoredEvent};
use time::OffsetDateTime;

/// Why an event cannot be told.
#[derive(Debug, thiserror::Error)]
pub(super) enum PayloadError {
    /// The log says that something happened to a delivery whose message is no longer kept.
    #[error("the message of the event is no longer stored")]
    NoMessage,
    /// An event that belongs to no delivery where one is needed, or a time out of range.
    #[error("the stored event lacks its {0}")]
    Incomplete(&'static str),
    /// Metadata that is not a JSON object of strings.
    #[error("the stored event cannot be written as JSON")]
    Json(#[from] serde_json::Error),
}

/// `data` of events about something else than a delivery.
#[derive(Serialize)]
struct SubjectData {
    id: String,
    /// Why it came to that, in one word.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// The body, the same for every endpoint and every retry.
///
/// # Errors
/// See [`PayloadError`]; trying again does not help.
pub(super) fn body(row: &LogRow) -> Result<Bytes, PayloadError> {
    let event = &row.event;
    let json = if event.kind.is_email() {
        serde_json::to_vec(&envelope(event, email_data(row)?)?)?
    } else {
        serde_json::to_vec(&envelope(
            event,
            SubjectData {
                id: subject_id(row),
                reason: (event.kind == EventType::WebhookDisabled)
                    .then(|| event.reply.clone())
                    .flatten(),
            },
        )?)?
    };
    Ok(json.into())
}

fn envelope<D>(event: &StoredEvent, data: D) -> Result<EventEnvelope<D>, PayloadError> {
    // The id was made when it happened.
    let unix_ns = i128::from(event.id.unix_ms()) * 1_000_000;
    let timestamp = OffsetDateTime::from_unix_timestamp_nanos(unix_ns)
        .map_err(|_| PayloadError::Incomplete("time"))?;
    let sequence = event.rcpt.map(|_| u32::from(event.sequence));
    Ok(EventEnvelope {
        id: event.id,
        event_type: event.kind,
        timestamp,
        sequence,
        data,
    })
}

fn email_data(row: &LogRow) -> Result<EmailEventData, PayloadError> {
    let (event, message) = (
        &row.event,
        row.message.as_ref().ok_or(PayloadError::NoMessage)?,
    );
    let message_id = MessageId::from_uuid(row.subject);
    let recipient_number = event
        .rcpt
        .filter(|number| usize::from(*number) < mail::ids::DELIVERIES_MAX)
        .ok_or(PayloadError::Incomplete("recipient"))?;
    let is_bounce = event.kind == EventType::EmailBounced;
    Ok(EmailEventData {
        message_id,
        delivery_id: message_id.delivery(recipient_number),
        rfc_message_id: message.rfc_message_id.clone(),
        from: message.sender.clone(),
        to: message.recipient.clone(),
        subject: message.subject.clone(),
        stream: message.stream.clone(),
        send_at: event.send_at(),
        tags: message.tags.clone(),
        metadata: metadata(message)?,
        final_: event.flags.contains(EventFlags::FINAL),
        attempt: attempt(event),
        bounce: bounce(event),
        out_of_band: is_bounce.then(|| event.flags.contains(EventFlags::OUT_OF_BAND)),
        machine: None,
    })
}

fn metadata(message: &LogMessage) -> Result<BTreeMap<String, String>, PayloadError> {
    match &message.metadata {
        Some(json) => Ok(serde_json::from_str(json)?),
        None => Ok(BTreeMap::new()),
    }
}

/// The attempt that caused the event; `queued`, suppressions and cancellations have none.
fn attempt(event: &StoredEvent) -> Option<AttemptData> {
    (event.attempt > 0 && event.kind != EventType::EmailSuppressed).then(|| AttemptData {
        number: event.attempt,
        ambiguous: event.flags.contains(EventFlags::AMBIGUOUS),
        source: event.source.clone(),
        mx: event.mx.clone(),
        tls: event.tls.clone(),
        reply: event.reply.clone(),
        duration_ms: event.duration_ms.and_then(|ms| u64::try_from(ms).ok()),
    })
}

/// Why it was refused, put off or given up.
fn bounce(event: &StoredEvent) -> Option<BounceData> {
    let tells_why = matches!(
        event.kind,
        EventType::EmailBounced | EventType::EmailDeferred | EventType::EmailExpired
    );
    let class = event.class.filter(|_| tells_why)?;
    Some(BounceData {
        bounce_type: class.bounce_type(),
        class,
        code: event.code,
        enhanced_code: event.enhanced.clone(),
        diagnostic: event.reply.clone().unwrap_or_default(),
    })
}

fn subject_id(row: &LogRow) -> String {
    let kind = row.event.kind;
    match kind {
        EventType::DomainVerified | EventType::DomainFailed => {
            DomainId::from_uuid(row.subject).to_string()
        }
        EventType::AccountPaused | EventType::AccountResumed => {
            AccountId::from_uuid(row.subject).to_string()
        }
        EventType::WebhookDisabled | EventType::WebhookTest => {
            WebhookEndpointId::from_uuid(row.subject).to_string()
        }
        _ => SourceId::from_uuid(row.subject).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mail::bounce_class::BounceClass;
    use mail::ids::EventId;
    use serde_json::{Value, json};
    use store::{AccountNo, EndpointNo, LogCursor};
    use uuid::Uuid;

    const EVENT: Uuid = mail::ids::uuid_v7(1_790_000_000_123, [0; 10]);
    const MESSAGE: Uuid = Uuid::from_u128(1_024);

    fn row(event: StoredEvent) -> LogRow {
        LogRow {
            cursor: LogCursor { xid: 1, id: EVENT },
            endpoints: vec![EndpointNo(1)],
            account: AccountNo(1),
            subject: MESSAGE,
            event,
            message: Some(LogMessage {
                sender: "Acme <hello@acme.test>".into(),
                recipient: "ana@example.com".into(),
                subject: "Hi".into(),
                rfc_message_id: "<1@acme.test>".into(),
                tags: vec!["receipt".into()],
                metadata: Some(r#"{"order":"7"}"#.into()),
                stream: Some("transactional".into()),
            }),
        }
    }

    fn event(kind: EventType) -> StoredEvent {
        StoredEvent {
            id: EventId::from_uuid(EVENT),
            rcpt: Some(0),
            kind,
            sequence: 3,
            attempt: 2,
            flags: EventFlags::FINAL,
            class: None,
            code: Some(250),
            enhanced: Some("2.0.0".into()),
            source: None,
            mx: Some("mx.example.com".into()),
            tls: Some("TLSv1.3".into()),
            reply: Some("250 2.0.0 OK".into()),
            duration_ms: Some(412),
            next_at: None,
        }
    }

    fn told(row: &LogRow) -> Value {
        serde_json::from_slice(&body(row).unwrap()).unwrap()
    }

    #[test]
    fn a_delivery_is_told_as_published() {
        let expected = json!({
            "id": EventId::from_uuid(EVENT).to_string(),
            "type": "email.delivered",
            "timestamp": "2026-09-21T14:13:20.123Z",
            "sequence": 3,
            "data": {
                "message_id": "msg_00000000000000000000000100",
                "delivery_id": "dlv_00000000000000000000000101",
                "rfc_message_id": "<1@acme.test>",
                "from": "Acme <hello@acme.test>", "to": "ana@example.com", "subject": "Hi",
                "stream": "transactional", "tags": ["receipt"], "metadata": {"order": "7"},
                "final": true,
                "attempt": {
                    "number": 2, "ambiguous": false, "mx": "mx.example.com", "tls": "TLSv1.3",
                    "reply": "250 2.0.0 OK", "duration_ms": 412,
                },
            },
        });
        assert_eq!(told(&row(event(EventType::EmailDelivered))), expected);
    }

    #[test]
    fn a_bounce_tells_its_class_and_what_was_said() {
        let mut bounced = event(EventType::EmailBounced);
        bounced.class = Some(BounceClass::InvalidRecipient);
        bounced.code = Some(550);
        bounced.enhanced = Some("5.1.1".into());
        bounced.reply = Some("550 5.1.1 no such user".into());
        let data = &told(&row(bounced.clone()))["data"];
        let expected = json!({
            "type": "permanent", "class": "invalid_recipient", "code": 550,
            "enhanced_code": "5.1.1", "diagnostic": "550 5.1.1 no such user",
        });
        assert_eq!(
            (&data["bounce"], &data["out_of_band"]),
            (&expected, &json!(false))
        );

        bounced.flags = EventFlags::OUT_OF_BAND;
        let data = &told(&row(bounced))["data"];
        assert_eq!(
            (&data["final"], &data["out_of_band"]),
            (&json!(false), &json!(true))
        );
    }

    #[test]
    fn a_queued_event_has_no_attempt() {
        let mut queued = event(EventType::EmailQueued);
        (queued.attempt, queued.flags, queued.reply) = (0, EventFlags::NONE, None);
        let mut plain = row(queued);
        if let Some(message) = &mut plain.message {
            (message.tags, message.metadata, message.stream) = (vec![], None, None);
        }
        let data = &told(&plain)["data"];
        assert!(data.get("attempt").is_none() && data.get("bounce").is_none());
        assert_eq!((&data["tags"], &data["metadata"]), (&json!([]), &json!({})));
    }

    #[test]
    fn mail_for_later_tells_when_and_a_deferral_does_not() {
        let at = time::macros::datetime!(2026-11-22 09:00 UTC);
        let check = |kind, next_at, expected: Value| {
            let mut waiting = event(kind);
            (waiting.attempt, waiting.next_at) = (0, next_at);
            assert_eq!(told(&row(waiting))["data"]["send_at"], expected, "{kind}");
        };
        check(
            EventType::EmailScheduled,
            Some(at),
            json!("2026-11-22T09:00:00Z"),
        );
        // Moved to now.
        check(
            EventType::EmailQueued,
            Some(at),
            json!("2026-11-22T09:00:00Z"),
        );
        check(EventType::EmailQueued, None, Value::Null);
        check(EventType::EmailDeferred, Some(at), Value::Null);
    }

    #[test]
    fn an_event_about_something_else_names_it() {
        let mut tested = row(event(EventType::WebhookTest));
        (tested.message, tested.event.rcpt) = (None, None);
        let told = told(&tested);
        assert_eq!(
            told["data"],
            json!({"id": "whk_00000000000000000000000100"})
        );
        assert!(told.get("sequence").is_none());
    }

    #[test]
    fn a_disabled_webhook_tells_why() {
        let mut disabled = row(event(EventType::WebhookDisabled));
        (disabled.message, disabled.event.rcpt) = (None, None);
        disabled.event.reply = Some("gone".into());
        assert_eq!(
            told(&disabled)["data"],
            json!({"id": "whk_00000000000000000000000100", "reason": "gone"})
        );
    }

    #[test]
    fn what_cannot_be_told_is_a_typed_error() {
        let whole = || row(event(EventType::EmailDelivered));
        let mut no_message = whole();
        no_message.message = None;
        assert!(matches!(body(&no_message), Err(PayloadError::NoMessage)));
        let mut far = whole();
        far.event.rcpt = Some(1_023);
        assert!(matches!(
            body(&far),
            Err(PayloadError::Incomplete("recipient"))
        ));
        let mut torn = whole();
        torn.message.as_mut().unwrap().metadata = Some("{".into());
        assert!(matches!(body(&torn), Err(PayloadError::Json(_))));
    }
}
