//! The event log and the calls: nothing is missed, whatever the order of commits.

use mail::event::EventType;
use mail::ids::{EventId, WebhookEndpointId};
use sqlx::Connection;
use store::*;
use time::Duration;
use uuid::Uuid;

use crate::world::{NOW, PATIENCE, World, node, outcome};

const ALL: [i16; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

async fn endpoint(world: &World, types: &[EventType]) -> (EndpointNo, WebhookEndpointId) {
    let id = WebhookEndpointId::from_uuid(Uuid::new_v4());
    let new = NewEndpoint {
        id,
        account: world.account.no,
        url: "https://hooks.acme.test/",
        types,
        secret: b"secret",
    };
    let made = world.store.create_endpoint(&new, 50, &world.sealer, NOW);
    (made.await.unwrap().unwrap(), id)
}

async fn read(world: &World, after: LogCursor, limit: i64) -> LogPage {
    world
        .store
        .read_log(&ALL, after, Uuid::nil(), limit)
        .await
        .unwrap()
}

/// The log from the beginning, once it has that many events: any transaction on the server, also of
/// another database, holds the horizon back for as long as it runs.
async fn read_until(world: &World, after: LogCursor, events: usize) -> LogPage {
    let reading = async {
        loop {
            let page = read(world, after, 100).await;
            if page.rows.len() >= events {
                return page;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.unwrap()
}

#[tokio::test]
async fn an_endpoint_hears_what_it_asked_for_after_it_was_made() {
    let Some(world) = World::start().await else {
        return;
    };
    let before = world.send().await;
    let (no, _) = endpoint(&world, &[EventType::EmailQueued, EventType::EmailDelivered]).await;
    let row = world.send().await;
    let fence = world.own(node()).await;
    world
        .store
        .settle(&fence, &[outcome(&row, EventType::EmailDelivered, None)])
        .await
        .unwrap();
    let old = outcome(
        &before,
        EventType::EmailDeferred,
        Some(Retry {
            next_at: NOW,
            flags: QueueFlags::NONE,
        }),
    );
    world.store.settle(&fence, &[old]).await.unwrap();

    let page = read_until(&world, LogCursor::START, 2).await;
    assert!(page.complete);
    let kinds: Vec<_> = page.rows.iter().map(|row| row.event.kind).collect();
    assert_eq!(kinds, [EventType::EmailQueued, EventType::EmailDelivered]);
    let delivered = &page.rows[1];
    assert_eq!(delivered.endpoints, [no]);
    assert_eq!(delivered.subject, row.key.message.uuid());
    assert_eq!(delivered.account, world.account.no);
    let message = delivered.message.as_ref().unwrap();
    assert_eq!(message.recipient, "ana@example.com");
    assert_eq!(message.tags, ["receipt", "two words"]);
    assert_eq!(message.stream.as_deref(), Some("transactional"));
    assert_eq!(delivered.event.rcpt, Some(0));

    let rest = read(&world, page.rows[0].cursor, 100).await;
    assert_eq!(rest.rows, page.rows[1..]);
    let short = read(&world, LogCursor::START, 1).await;
    assert!(!short.complete && short.rows == page.rows[..1]);
    let after = read(&world, LogCursor::at_horizon(page.horizon), 100).await;
    assert!(after.rows.is_empty() && after.horizon >= page.horizon);

    let wanted = [
        (delivered.event.id, delivered.subject),
        (EventId::from_uuid(Uuid::nil()), Uuid::nil()),
    ];
    assert_eq!(
        world.store.log_rows(&wanted).await.unwrap(),
        std::slice::from_ref(delivered)
    );
    let number = i16::try_from(world.account.no.0 % 16).unwrap();
    let others: Vec<i16> = ALL.into_iter().filter(|other| *other != number).collect();
    let page = world
        .store
        .read_log(&others, LogCursor::START, Uuid::nil(), 10)
        .await
        .unwrap();
    assert!(page.rows.is_empty() && page.complete);
}

#[tokio::test]
async fn an_event_committed_late_is_not_missed() {
    let Some(world) = World::start().await else {
        return;
    };
    endpoint(&world, &[EventType::WebhookTest, EventType::EmailQueued]).await;
    let mut connection = world.connection().await;
    let mut slow = connection.begin().await.unwrap();
    sqlx::query(
        "INSERT INTO event (id, subject, account, type, sequence, attempt, flags)
         VALUES (uuid_floor($1), gen_random_uuid(), $2, $3, 1, 0, 0)",
    )
    .bind(NOW)
    .bind(world.account.no.0)
    .bind(EventType::WebhookTest.code())
    .execute(&mut *slow)
    .await
    .unwrap();
    world.send().await;
    let page = read(&world, LogCursor::START, 100).await;
    assert!(
        page.rows.is_empty() && page.complete,
        "nothing above the running transaction"
    );
    assert!(
        world
            .store
            .oldest_write_transaction_age()
            .await
            .unwrap()
            .is_some()
    );
    slow.commit().await.unwrap();
    let page = read_until(&world, LogCursor::at_horizon(page.horizon), 2).await;
    let kinds: Vec<_> = page.rows.iter().map(|row| row.event.kind).collect();
    assert_eq!(kinds, [EventType::WebhookTest, EventType::EmailQueued]);
    assert_eq!(page.rows[0].message, None);
}

#[tokio::test]
async fn an_event_of_an_unknown_type_is_passed_over() {
    const UNKNOWN: i16 = 9_999;
    let Some(world) = World::start().await else {
        return;
    };
    endpoint(&world, &[EventType::EmailQueued]).await;
    let mut connection = world.connection().await;
    sqlx::query("UPDATE webhook_endpoint SET types = types || $1::int2")
        .bind(UNKNOWN)
        .execute(&mut connection)
        .await
        .unwrap();
    let first = world.send().await;
    let message = first.key.message;
    // One that cannot be read, and one that can but for its class.
    for (kind, class) in [
        (UNKNOWN, None),
        (EventType::EmailQueued.code(), Some(UNKNOWN)),
    ] {
        sqlx::query(
            "INSERT INTO event (id, subject, account, type, rcpt, sequence, attempt, flags, class)
             SELECT e.id, e.subject, e.account, $2, e.rcpt, 2, 0, 0, $3
             FROM event e WHERE e.subject = $1 AND e.sequence = 1",
        )
        .bind(message.uuid())
        .bind(kind)
        .bind(class)
        .execute(&mut connection)
        .await
        .unwrap();
    }
    let page = read_until(&world, LogCursor::START, 2).await;
    assert!(page.rows.len() == 2 && page.complete);
    assert_eq!(page.rows[1].event.class, None);
    // A page that ends in the row passed over leads behind it, or a reader would come back to it for ever.
    let passed = read(&world, page.rows[0].cursor, 1).await;
    assert!(passed.rows.is_empty() && !passed.complete);
    let after = read(&world, passed.last.unwrap(), 1).await;
    assert_eq!(after.rows, page.rows[1..]);
    let events = world.store.message_events(message).await.unwrap();
    assert_eq!(events.len(), 2);
}

#[tokio::test]
async fn pending_calls_come_back_when_due() {
    let Some(world) = World::start().await else {
        return;
    };
    let (no, id) = endpoint(&world, &[EventType::EmailQueued]).await;
    let (other, _) = endpoint(&world, &[EventType::EmailQueued]).await;
    let call = |endpoint, seconds: i64, event: u128| PendingCall {
        endpoint,
        next_at: NOW + Duration::seconds(seconds),
        event_id: EventId::from_uuid(Uuid::from_u128(event)),
        subject: Uuid::from_u128(100),
        attempt: 1,
        replay: None,
    };
    let calls = [
        call(no, 0, 1),
        call(no, 1, 2),
        call(no, 2, 3),
        call(other, 3, 4),
        call(other, 60, 5),
    ];
    world.store.pend_calls(&calls).await.unwrap();
    world.store.pend_calls(&calls[..1]).await.unwrap();
    let due = world
        .store
        .due_calls(NOW + Duration::seconds(5), 2, 10)
        .await
        .unwrap();
    assert_eq!(
        due,
        [calls[0], calls[1], calls[3]],
        "at most two an endpoint, none too early"
    );
    assert!(
        world
            .store
            .due_calls_of(&[], NOW, 2, 10)
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(
        world.store.endpoints_with_pending().await.unwrap(),
        [no, other].into()
    );

    let later = NOW + Duration::minutes(5);
    assert!(
        world
            .store
            .reschedule_call(&calls[0], Some(later))
            .await
            .unwrap()
    );
    assert!(
        !world
            .store
            .reschedule_call(&calls[0], Some(later))
            .await
            .unwrap()
    );
    assert!(world.store.reschedule_call(&calls[1], None).await.unwrap());
    let due = world.store.due_calls(later, 10, 10).await.unwrap();
    let again = PendingCall {
        next_at: later,
        attempt: 2,
        ..calls[0]
    };
    assert_eq!(due, [calls[2], calls[3], calls[4], again]);

    assert!(
        world
            .store
            .delete_endpoint(world.account.no, id)
            .await
            .unwrap()
    );
    assert!(
        !world
            .store
            .delete_endpoint(world.account.no, id)
            .await
            .unwrap()
    );
    assert_eq!(
        world.store.due_calls(later, 10, 10).await.unwrap(),
        [calls[3], calls[4]]
    );
    assert_eq!(world.store.endpoint(no, &world.sealer).await.unwrap(), None);
}

#[tokio::test]
async fn the_secret_of_an_endpoint_is_sealed() {
    let Some(world) = World::start().await else {
        return;
    };
    let (no, id) = endpoint(&world, &[EventType::EmailQueued]).await;
    let found = world
        .store
        .endpoint(no, &world.sealer)
        .await
        .unwrap()
        .unwrap();
    assert_eq!((found.id, found.secret.as_slice()), (id, &b"secret"[..]));
    let in_clear =
        "SELECT count(*) FROM webhook_endpoint WHERE position('secret'::bytea IN secret) > 0";
    assert_eq!(world.count(in_clear).await, 0);
    let listed = world.store.endpoints(world.account.no).await.unwrap();
    assert_eq!(listed.len(), 1);
    assert!(listed[0].enabled && listed[0].types == [EventType::EmailQueued]);
    let stranger = Sealer::new(SealKey::new(1, [8; 32]), vec![]);
    let fresh = Store::connect(StoreOptions::new(&world.url)).await.unwrap();
    let refused = fresh.endpoint(no, &stranger).await;
    assert!(
        matches!(refused, Err(StoreError::Corrupt { .. })),
        "{refused:?}"
    );
}
