//! Accepting: durable, once, and nobody suffers for a stranger.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mail::event::EventType;
use mail::retry::StreamClass;
use store::*;
use time::OffsetDateTime;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::world::{NOW, PATIENCE, World};

/// Remembers what was told.
#[derive(Default)]
struct Notes {
    rows: Mutex<Vec<QueueRow>>,
    batches: AtomicUsize,
}

impl QueueHints for Notes {
    fn preferred(&self, class: StreamClass) -> Vec<ShardNo> {
        match class {
            StreamClass::Transactional => vec![ShardNo(5)],
            StreamClass::Broadcast => vec![],
        }
    }

    fn accepted(&self, rows: Vec<QueueRow>, _messages: Vec<Arc<StoredMessage>>) {
        self.rows.lock().unwrap().extend(rows);
    }
}

impl AcceptObserver for Notes {
    fn committed(&self, _deliveries: usize, _octets: usize, _took: Duration) {
        self.batches.fetch_add(1, Ordering::Relaxed);
    }

    fn refused(&self) {}
}

pub(crate) fn keyed(world: &World, body_hash: u8) -> AcceptRequest {
    let key = IdempotencyKey {
        key_hash: [1; 32],
        body_hash: [body_hash; 32],
        response: "first".into(),
    };
    AcceptRequest {
        idempotency: Some(key),
        ..world.request(vec![world.message()])
    }
}

fn replay() -> Accepted {
    Accepted::Replayed {
        response: "first".into(),
    }
}

#[tokio::test]
async fn what_was_accepted_can_be_read_everywhere() {
    let Some(world) = World::start().await else {
        return;
    };
    let notes = Arc::new(Notes::default());
    let acceptor = world.acceptor_with(notes.clone(), notes.clone(), || NOW);
    let mut message = world.message();
    message.recipients.push(world.recipient("bo@example.com"));
    message.due_at = NOW + time::Duration::nanoseconds(1_234_567_890);
    let later = NewMessage {
        class: StreamClass::Broadcast,
        ..world.message()
    };
    let request = world.request(vec![message.clone(), later]);
    assert_eq!(acceptor.accept(request).await.unwrap(), Accepted::Stored);

    let mut told = notes.rows.lock().unwrap().clone();
    let mut queued = world.queued().await;
    told.sort_by_key(|row| row.key);
    queued.sort_by_key(|row| row.key);
    assert_eq!(
        told, queued,
        "a row told of is the row that was stored, to the microsecond"
    );
    let (shards, of_broadcast): (Vec<_>, Vec<_>) = queued
        .iter()
        .map(|row| row.shard)
        .partition(|shard| shard.0 < 8);
    assert_eq!(shards, [ShardNo(5); 2]);
    assert_eq!(of_broadcast.len(), 1);

    let stored = world.store.contents(&[message.id]).await.unwrap();
    assert_eq!(stored.len(), 1);
    assert_eq!(stored[0].bytes, message.content.bytes);
    assert_eq!(stored[0].header_len, message.content.header_len);
    assert_eq!(stored[0].recipients, ["ana@example.com", "bo@example.com"]);
    assert_eq!(stored[0].flags, MessageFlags::SMTPUTF8);

    let view = world
        .store
        .message(world.account.no, message.id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!((view.tags, view.metadata), (message.tags, message.metadata));
    assert_eq!(view.stream, "transactional");
    assert_eq!(
        world
            .store
            .message(AccountNo(99), message.id)
            .await
            .unwrap(),
        None
    );
    let events = world.store.message_events(message.id).await.unwrap();
    let seen: Vec<_> = events
        .iter()
        .map(|event| (event.rcpt, event.kind, event.sequence))
        .collect();
    let scheduled = EventType::EmailScheduled;
    assert_eq!(seen, [(Some(0), scheduled, 1), (Some(1), scheduled, 1)]);
}

#[tokio::test]
async fn concurrent_requests_share_commits() {
    let Some(world) = World::start().await else {
        return;
    };
    let notes = Arc::new(Notes::default());
    let acceptor = world.acceptor_with(notes.clone(), notes.clone(), || NOW);
    let mut running = JoinSet::new();
    for _ in 0..400 {
        let (acceptor, request) = (acceptor.clone(), world.request(vec![world.message()]));
        running.spawn(async move { acceptor.accept(request).await });
    }
    for answer in running.join_all().await {
        assert_eq!(answer.unwrap(), Accepted::Stored);
    }
    assert_eq!(world.queued().await.len(), 400);
    let batches = notes.batches.load(Ordering::Relaxed);
    assert!(batches <= 100, "{batches} commits for 400 requests");
}

#[tokio::test]
async fn a_row_the_database_refuses_fails_alone() {
    let Some(world) = World::start().await else {
        return;
    };
    let acceptor = world.acceptor();
    let mut running = JoinSet::new();
    for index in 0..60 {
        let mut message = world.message();
        match index {
            // NUL is not text for PostgreSQL.
            17 => message.subject = "\0".into(),
            41 => message.sender = "a\0b".into(),
            _ => {}
        }
        let (acceptor, request) = (acceptor.clone(), world.request(vec![message]));
        running.spawn(async move { (index, acceptor.accept(request).await) });
    }
    for (index, answer) in running.join_all().await {
        match (index, answer) {
            (17 | 41, Err(StoreError::Database { .. })) => {}
            (17 | 41, other) => panic!("the bad request was answered with {other:?}"),
            (_, answer) => assert_eq!(answer.unwrap(), Accepted::Stored, "request {index}"),
        }
    }
    assert_eq!(world.queued().await.len(), 58);
    assert_eq!(world.count("SELECT count(*) FROM event").await, 58);
}

#[tokio::test]
async fn a_request_that_cannot_be_stored_is_refused_before_it_is_tried() {
    let Some(world) = World::start().await else {
        return;
    };
    let mut message = world.message();
    message.tags = vec!["a\nb".into()];
    let answer = world.acceptor().accept(world.request(vec![message])).await;
    assert!(
        matches!(answer, Err(StoreError::Invalid { .. })),
        "{answer:?}"
    );
}

#[tokio::test]
async fn the_same_ids_again_change_nothing() {
    let Some(world) = World::start().await else {
        return;
    };
    let request = world.request(vec![world.message(), world.message()]);
    for _ in 0..2 {
        let accepted = world.acceptor().accept(request.clone()).await.unwrap();
        assert_eq!(accepted, Accepted::Stored);
    }
    for table in [
        "SELECT count(*) FROM message",
        "SELECT count(*) FROM content",
        "SELECT count(*) FROM queue",
        "SELECT count(*) FROM event",
    ] {
        assert_eq!(world.count(table).await, 2, "{table}");
    }
}

#[tokio::test]
async fn shared_content_is_stored_once() {
    let Some(world) = World::start().await else {
        return;
    };
    let first = world.message();
    let second = NewMessage {
        content: first.content.clone(),
        ..world.message()
    };
    let ids = [first.id, second.id];
    world
        .acceptor()
        .accept(world.request(vec![first, second]))
        .await
        .unwrap();
    assert_eq!(world.count("SELECT count(*) FROM content").await, 1);
    let stored = world.store.contents(&ids).await.unwrap();
    assert_eq!(stored.len(), 2);
    assert_eq!(stored[0].bytes, stored[1].bytes);
}

#[tokio::test]
async fn a_big_body_takes_a_connection_of_its_own_and_comes_back_whole() {
    let Some(world) = World::start().await else {
        return;
    };
    let mut message = world.message();
    let bytes: Vec<u8> = (0..600_000).map(|_| rand::random()).collect();
    message.content = Arc::new(NewContent {
        bytes: bytes.into(),
        ..(*message.content).clone()
    });
    let accepted = world
        .acceptor()
        .accept(world.request(vec![message.clone()]))
        .await
        .unwrap();
    assert_eq!(accepted, Accepted::Stored);
    let stored = world.store.contents(&[message.id]).await.unwrap();
    assert_eq!(stored[0].bytes, message.content.bytes);
}

#[tokio::test]
async fn a_repeated_key_gets_the_first_answer_and_another_body_a_conflict() {
    let Some(world) = World::start().await else {
        return;
    };
    let acceptor = world.acceptor();
    assert_eq!(
        acceptor.accept(keyed(&world, 1)).await.unwrap(),
        Accepted::Stored
    );
    assert_eq!(acceptor.accept(keyed(&world, 1)).await.unwrap(), replay());
    assert_eq!(
        acceptor.accept(keyed(&world, 2)).await.unwrap(),
        Accepted::KeyConflict
    );
    assert_eq!(world.queued().await.len(), 1);
}

#[tokio::test]
async fn of_many_requests_with_one_key_one_is_stored() {
    let Some(world) = World::start().await else {
        return;
    };
    // Two processes, as it were.
    let acceptors = [world.acceptor(), world.acceptor()];
    let mut running = JoinSet::new();
    for index in 0..40 {
        let (acceptor, request) = (acceptors[index % 2].clone(), keyed(&world, 1));
        running.spawn(async move { acceptor.accept(request).await.unwrap() });
    }
    let answers = running.join_all().await;
    assert_eq!(
        answers
            .iter()
            .filter(|answer| **answer == Accepted::Stored)
            .count(),
        1
    );
    assert_eq!(
        answers.iter().filter(|answer| **answer == replay()).count(),
        39
    );
    assert_eq!(world.count("SELECT count(*) FROM message").await, 1);
}

#[tokio::test]
async fn a_key_is_free_again_after_a_day() {
    let Some(world) = World::start().await else {
        return;
    };
    world.acceptor().accept(keyed(&world, 1)).await.unwrap();
    let at = |now: OffsetDateTime| {
        world.acceptor_with(Arc::new(NoHints), Arc::new(NoObserver), move || now)
    };
    let almost = at(NOW + time::Duration::hours(24) - time::Duration::SECOND);
    assert_eq!(almost.accept(keyed(&world, 1)).await.unwrap(), replay());
    let next_day = at(NOW + time::Duration::hours(24));
    assert_eq!(
        next_day.accept(keyed(&world, 2)).await.unwrap(),
        Accepted::Stored
    );
    assert_eq!(
        next_day.accept(keyed(&world, 1)).await.unwrap(),
        Accepted::KeyConflict
    );
    let before = NOW + time::Duration::hours(25);
    assert_eq!(world.store.age_out_idempotency(before).await.unwrap(), 1);
}

#[tokio::test]
async fn after_shutdown_what_waited_is_answered_and_the_rest_refused() {
    let Some(world) = World::start().await else {
        return;
    };
    let shutdown = CancellationToken::new();
    let acceptor = Acceptor::start(
        world.store.clone(),
        Arc::new(|| NOW),
        Arc::new(NoHints),
        Arc::new(NoObserver),
        shutdown.clone(),
    );
    let mut running = JoinSet::new();
    for _ in 0..50 {
        let (acceptor, request) = (acceptor.clone(), world.request(vec![world.message()]));
        running.spawn(async move { acceptor.accept(request).await });
    }
    tokio::task::yield_now().await;
    shutdown.cancel();
    timeout(PATIENCE, acceptor.drained()).await.unwrap();
    let answers = running.join_all().await;
    let stored = answers.iter().filter(|answer| answer.is_ok()).count();
    assert_eq!(world.queued().await.len(), stored);
    let refused = acceptor.accept(world.request(vec![world.message()])).await;
    assert!(refused.unwrap_err().is_unavailable());
}
