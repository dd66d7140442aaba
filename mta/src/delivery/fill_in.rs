//! Messages made from a template: each gets the entity that its variables make of the template that
//! it shares. Accepting tried every one of them; what fails here is damage.
//!
//! A message gives the same octets whenever it is asked for: everything that could differ (Date,
//! Message-ID, Subject) is in its stored header, and the MIME boundary comes from its id.

use std::collections::HashMap;

use mail::content_source::ContentTemplate;
use store::{ContentKind, StoredMessage};
use tokio::sync::Semaphore;

/// Fills in those that are templates, off the reactor and with as many others as there are `turns`.
/// One that cannot be is left out, and logged: it must not keep the others back.
pub(super) async fn fill_in(turns: &Semaphore, messages: Vec<StoredMessage>) -> Vec<StoredMessage> {
    let (templates, mut ready): (Vec<_>, Vec<_>) = messages
        .into_iter()
        .partition(|message| message.kind == ContentKind::Template);
    if templates.is_empty() {
        return ready;
    }
    let _turn = turns.acquire().await;
    match tokio::task::spawn_blocking(|| fill_in_all(templates)).await {
        Ok(filled) => ready.extend(filled),
        Err(error) => tracing::error!(%error, "filling in templates broke down"),
    }
    ready
}

fn fill_in_all(messages: Vec<StoredMessage>) -> Vec<StoredMessage> {
    // Compiled once for all that share it.
    let mut templates: HashMap<_, Option<ContentTemplate>> = HashMap::new();
    let mut filled = Vec::with_capacity(messages.len());
    for message in messages {
        let id = message.id;
        let template = templates.entry(message.content_id).or_insert_with(|| {
            ContentTemplate::from_stored(&message.bytes)
                .inspect_err(
                    |error| tracing::error!(message = %id, %error, "a template is unreadable"),
                )
                .ok()
        });
        let Some(template) = template else { continue };
        match message.filled_in(template) {
            Ok(message) => filled.push(message),
            Err(error) => {
                tracing::error!(message = %id, %error, "a template could not be filled in")
            }
        }
    }
    filled
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use mail::dkim::body_hash;
    use mail::ids::MessageId;
    use store::{AccountNo, DomainNo, MessageFlags, StreamNo};

    use super::*;

    const TEMPLATE: &str = r#"{"html":"<p>Hi {{ name }}</p>\n","text":"Hi {{ name }}"}"#;

    fn stored(
        number: u8,
        kind: ContentKind,
        bytes: &str,
        variables: Option<&str>,
    ) -> StoredMessage {
        StoredMessage {
            id: MessageId::from_time_and_random(1_790_000_000_000, [number; 10]),
            account: AccountNo(1),
            stream: StreamNo(1),
            domain: DomainNo(1),
            flags: MessageFlags::NONE,
            sender: "a@b.example".to_owned(),
            recipients: vec!["c@d.example".to_owned()],
            rfc_message_id: "<1@b.example>".to_owned(),
            header: "Subject: Hi\r\n".to_owned(),
            variables: variables.map(str::to_owned),
            content_id: Default::default(),
            kind,
            header_len: 0,
            body_hash: [0; 32],
            bytes: Bytes::from(bytes.to_owned()),
            suppressed: Vec::new(),
        }
    }

    #[tokio::test]
    async fn each_message_gets_its_own_entity_and_the_same_one_again() {
        let turns = Semaphore::new(1);
        let messages = vec![
            stored(1, ContentKind::Template, TEMPLATE, Some(r#"{"name":"A<"}"#)),
            stored(2, ContentKind::Template, TEMPLATE, Some(r#"{"name":"Bo"}"#)),
            stored(
                3,
                ContentKind::Entity,
                "Content-Type: text/plain\r\n\r\nx",
                None,
            ),
        ];
        let first = fill_in(&turns, messages.clone()).await;
        let again = fill_in(&turns, messages).await;
        assert_eq!(first.len(), 3);
        for (one, other) in first.iter().zip(&again) {
            assert_eq!((&one.bytes, one.body_hash), (&other.bytes, other.body_hash));
            assert_eq!(one.kind, ContentKind::Entity);
            assert_eq!(one.header, "Subject: Hi\r\n");
        }
        let filled: Vec<_> = first
            .iter()
            .filter(|message| message.variables.is_some())
            .collect();
        let text = |n: usize| String::from_utf8(filled[n].bytes.to_vec()).unwrap();
        assert!(text(0).contains("<p>Hi A&lt;</p>") && text(0).contains("\r\nHi A<\r\n"));
        assert!(text(1).contains("<p>Hi Bo</p>"));
        for message in filled {
            let (header, body) = message.bytes.split_at(message.header_len);
            assert!(header.starts_with(b"Content-Type: multipart/alternative"));
            assert!(header.ends_with(b"\r\n\r\n"));
            assert_eq!(message.body_hash, body_hash(body));
            let boundary = format!("=_{}", message.id.digits());
            assert!(String::from_utf8_lossy(header).contains(&boundary));
        }
    }

    #[tokio::test]
    async fn a_damaged_one_keeps_no_other_back() {
        let turns = Semaphore::new(1);
        let other_template = StoredMessage {
            content_id: mail::ids::uuid_v7(1, [1; 10]),
            ..stored(3, ContentKind::Template, "{", Some("{}"))
        };
        let messages = vec![
            stored(1, ContentKind::Template, TEMPLATE, Some("{}")),
            stored(2, ContentKind::Template, TEMPLATE, None),
            other_template,
            stored(4, ContentKind::Template, TEMPLATE, Some(r#"{"name":"Bo"}"#)),
        ];
        let filled = fill_in(&turns, messages).await;
        assert_eq!(filled.len(), 1);
        assert_eq!(filled[0].variables.as_deref(), Some(r#"{"name":"Bo"}"#));
    }
}
