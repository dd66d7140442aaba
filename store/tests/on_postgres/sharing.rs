//! Many messages in one request: what they share is stored, fetched and held once, and nobody waits
//! for them.

use std::sync::Arc;

use store::*;

use crate::world::World;

#[tokio::test]
async fn shared_content_comes_with_the_header_and_variables_of_each_message() {
    let Some(world) = World::start().await else {
        return;
    };
    let of_kind = |kind, bytes: &str| {
        Arc::new(NewContent {
            kind,
            header_len: 0,
            bytes: bytes.as_bytes().to_vec().into(),
            ..(*world.message().content).clone()
        })
    };
    let entity = of_kind(
        ContentKind::Entity,
        &"Content-Type: text/plain\r\n".repeat(50),
    );
    let template = of_kind(ContentKind::Template, "{}");
    let mut messages = Vec::new();
    for number in 0..5 {
        messages.push(NewMessage {
            header: Some(format!("Subject: {number}\r\n")),
            content: entity.clone(),
            ..world.message()
        });
        messages.push(NewMessage {
            header: Some(format!("Subject: {number}\r\n")),
            variables: Some(format!("{{\"n\":{number}}}")),
            content: template.clone(),
            ..world.message()
        });
    }
    messages.push(world.message());
    let ids: Vec<_> = messages.iter().map(|message| message.id).collect();
    let accepted = world
        .acceptor()
        .accept(world.request(messages.clone()))
        .await
        .unwrap();
    assert_eq!(accepted, Accepted::Stored);
    assert_eq!(world.count("SELECT count(*) FROM content").await, 3);
    let stored = world.store.contents(&ids).await.unwrap();
    assert_eq!(stored.len(), messages.len());
    for message in &messages {
        let found = stored.iter().find(|found| found.id == message.id).unwrap();
        assert_eq!(found.header, message.header.clone().unwrap_or_default());
        assert_eq!(found.variables, message.variables);
        assert_eq!(found.kind, message.content.kind);
        assert_eq!(found.bytes, message.content.bytes);
    }
    let of_entity: Vec<_> = stored
        .iter()
        .filter(|found| found.kind == ContentKind::Entity)
        .collect();
    let held = |found: &StoredMessage| found.bytes.as_ptr();
    assert!(
        of_entity
            .iter()
            .all(|found| held(found) == held(of_entity[0])),
        "shared octets are in memory once"
    );

    // Two of those that share are as good as all of them.
    let stored = world.store.contents(&ids[6..9]).await.unwrap();
    assert_eq!(stored.len(), 3);
}

#[tokio::test]
async fn header_and_variables_must_go_with_the_content() {
    let Some(world) = World::start().await else {
        return;
    };
    let with_header = NewMessage {
        header: Some("Subject: Hi\r\n".into()),
        ..world.message()
    };
    let request = world.request(vec![with_header]);
    let refused = world.acceptor().accept(request).await.unwrap_err();
    assert!(matches!(refused, StoreError::Invalid { .. }), "{refused}");
}

#[tokio::test]
async fn strangers_do_not_wait_for_a_thousand_messages() {
    let Some(world) = World::start().await else {
        return;
    };
    let acceptor = world.acceptor();
    let first = world.message();
    let messages: Vec<NewMessage> = (0..1_000)
        .map(|_| NewMessage {
            content: first.content.clone(),
            recipients: vec![world.recipient("ana@example.com"); 50],
            ..world.message()
        })
        .collect();
    let big = tokio::spawn({
        let (acceptor, request) = (acceptor.clone(), world.request(messages));
        async move { acceptor.accept(request).await }
    });
    // As long as the batch is on its way, small requests are answered one after another.
    let started = std::time::Instant::now();
    let mut answered = 0;
    while !big.is_finished() {
        let request = world.request(vec![world.message()]);
        assert_eq!(acceptor.accept(request).await.unwrap(), Accepted::Stored);
        answered += 1;
    }
    assert_eq!(big.await.unwrap().unwrap(), Accepted::Stored);
    let took = started.elapsed();
    eprintln!("50000 deliveries took {took:?}, {answered} small requests beside them");
    assert!(answered > 3, "only {answered} answers beside the batch");
    let queued = world.count("SELECT count(*) FROM queue").await;
    assert_eq!(queued, 50_000 + answered);
}
