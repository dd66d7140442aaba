//! Events have exactly the published shape.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use mail::bounce_class::BounceClass;
use mail::event::{AttemptData, BounceData, EmailEventData, EventEnvelope, EventType};
use mail::ids::{DeliveryId, EventId, MessageId};
use mail::reply::Reply;
use time::macros::datetime;

#[test]
fn an_event_looks_as_published() {
    let event = EventEnvelope {
        id: EventId::from_uuid(uuid::Uuid::from_u128(1)),
        event_type: EventType::EmailDelivered,
        timestamp: datetime!(2026-11-22 09:00 UTC),
        sequence: Some(3),
        data: EmailEventData {
            message_id: MessageId::from_uuid(uuid::Uuid::from_u128(1024)),
            delivery_id: DeliveryId::from_uuid(uuid::Uuid::from_u128(1025)),
            rfc_message_id: "<1@acme.test>".into(),
            from: "Acme <hello@acme.test>".into(),
            to: "ana@example.com".into(),
            subject: "Hi".into(),
            stream: Some("transactional".into()),
            send_at: None,
            tags: vec!["receipt".into()],
            metadata: BTreeMap::from([("order".into(), "7".into())]),
            final_: true,
            attempt: Some(AttemptData {
                number: 1,
                ambiguous: false,
                source: Some("192.0.2.1".into()),
                mx: Some("mx.example.com".into()),
                tls: Some("TLSv1.3".into()),
                reply: Some("250 2.0.0 OK".into()),
                duration_ms: Some(412),
            }),
            bounce: None,
            out_of_band: None,
            machine: None,
        },
    };
    let json = serde_json::to_string(&event).unwrap();
    let expected = concat!(
        r#"{"id":"evt_00000000000000000000000001","type":"email.delivered","#,
        r#""timestamp":"2026-11-22T09:00:00Z","sequence":3,"data":{"#,
        r#""message_id":"msg_00000000000000000000000100","#,
        r#""delivery_id":"dlv_00000000000000000000000101","rfc_message_id":"<1@acme.test>","#,
        r#""from":"Acme <hello@acme.test>","to":"ana@example.com","subject":"Hi","#,
        r#""stream":"transactional","tags":["receipt"],"metadata":{"order":"7"},"#,
        r#""final":true,"attempt":{"number":1,"ambiguous":false,"source":"192.0.2.1","#,
        r#""mx":"mx.example.com","tls":"TLSv1.3","reply":"250 2.0.0 OK","duration_ms":412}}}"#,
    );
    assert_eq!(json, expected);
    let back: EventEnvelope<EmailEventData> = serde_json::from_str(&json).unwrap();
    assert_eq!(back, event);
}

#[test]
fn an_event_for_later_tells_its_time() {
    let json = concat!(
        r#"{"message_id":"msg_00000000000000000000000100","#,
        r#""delivery_id":"dlv_00000000000000000000000101","rfc_message_id":"<1@acme.test>","#,
        r#""from":"hello@acme.test","to":"ana@example.com","subject":"Hi","#,
        r#""send_at":"2026-11-22T09:00:00.5Z","tags":[],"metadata":{},"final":false}"#,
    );
    let data: EmailEventData = serde_json::from_str(json).unwrap();
    assert_eq!(data.send_at, Some(datetime!(2026-11-22 09:00:00.5 UTC)));
    assert_eq!(serde_json::to_string(&data).unwrap(), json);
}

#[test]
fn a_bounce_tells_codes_and_text() {
    let reply = Reply::from_diagnostic("550 5.1.1 no such user").unwrap();
    let bounce = BounceData::from_reply(BounceClass::InvalidRecipient, &reply);
    let expected = concat!(
        r#"{"type":"permanent","class":"invalid_recipient","code":550,"#,
        r#""enhanced_code":"5.1.1","diagnostic":"550 5.1.1 no such user"}"#
    );
    assert_eq!(serde_json::to_string(&bounce).unwrap(), expected);
}
