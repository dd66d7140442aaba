//! The suppression list: it holds back what it says it holds back, wherever mail passes, and a
//! dead address enters it with the outcome that proves it.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use mail::bounce_class::BounceClass;
use mail::event::EventType;
use mail::ids::{SuppressionId, uuid_v7};
use mail::retry::StreamClass;
use mail::suppression::SuppressionReason;
use store::*;
use time::{Duration, OffsetDateTime};
use tokio::task::JoinSet;

use crate::world::{NOW, World, node, outcome, unix_ms};

fn entry(world: &World, address: &str) -> NewSuppression {
    NewSuppression {
        id: SuppressionId::from_uuid(uuid_v7(unix_ms(NOW), rand::random())),
        account: world.account.no,
        address: address.parse().unwrap(),
        stream: None,
        reason: SuppressionReason::Manual,
        expires_at: None,
    }
}

async fn listed(world: &World) -> Vec<Suppression> {
    let all = SuppressionFilter::default();
    let account = world.account.no;
    world
        .store
        .suppressions(account, &all, None, 100)
        .await
        .unwrap()
}

/// Whether a message to `address` is held back when it is accepted, and when it is fetched.
async fn held_back(world: &World, address: &str, at: OffsetDateTime) -> (bool, bool) {
    let mut message = world.message();
    message.recipients.push(world.recipient(address));
    let id = message.id;
    let acceptor = world.acceptor_with(Arc::new(NoHints), Arc::new(NoObserver), move || at);
    let accepted = acceptor.accept(world.request(vec![message])).await.unwrap();
    let key = DeliveryKey {
        message: id,
        rcpt: 1,
    };
    let at_accept = match accepted {
        Accepted::Stored => false,
        Accepted::Screened { suppressed } => {
            assert_eq!(suppressed, HashSet::from([key]));
            true
        }
        other => panic!("{other:?}"),
    };
    let stored = world.store.contents(&[id]).await.unwrap();
    assert!(!stored[0].is_suppressed(0, at));
    (at_accept, stored[0].is_suppressed(1, at))
}

/// The outcome of a refusal that proves the address dead.
fn dead(row: &QueueRow) -> Settlement {
    let mut refused = outcome(row, EventType::EmailBounced, None);
    refused.event.flags = refused.event.flags.with(EventFlags::DEAD_RECIPIENT);
    refused.event.class = Some(BounceClass::InvalidRecipient);
    refused
}

#[tokio::test]
async fn both_screenings_agree_on_who_is_the_same() {
    let Some(world) = World::start().await else {
        return;
    };
    for address in [
        "Bo@example.com",
        "\"Two Words\"@example.com",
        "Änne@example.com",
    ] {
        world.store.suppress(&entry(&world, address)).await.unwrap();
    }
    let check = async |address: &str, held: bool| {
        let found = held_back(&world, address, NOW).await;
        assert_eq!(found, (held, held), "{address}");
    };
    check("bo@example.com", true).await;
    check("BO@EXAMPLE.com", true).await;
    check("\"bo\"@example.com", true).await;
    check("bob@example.com", false).await;
    check("\"two words\"@example.com", true).await;
    check("ÄNNE@example.com", true).await;
    check("änne@example.com", false).await;
}

#[tokio::test]
async fn an_entry_holds_back_until_it_ends() {
    let Some(world) = World::start().await else {
        return;
    };
    let ends = NOW + Duration::minutes(1);
    let limited = NewSuppression {
        expires_at: Some(ends),
        ..entry(&world, "bo@example.com")
    };
    let (made, new) = world.store.suppress(&limited).await.unwrap();
    assert_eq!((made.expires_at, new), (Some(ends), true));
    assert_eq!(held_back(&world, "bo@example.com", NOW).await, (true, true));
    assert_eq!(
        held_back(&world, "bo@example.com", ends).await,
        (false, false)
    );
    // Of two entries the longer one counts, whichever came first.
    let longer = NewSuppression {
        reason: SuppressionReason::Complaint,
        ..entry(&world, "bo@example.com")
    };
    world.store.suppress(&longer).await.unwrap();
    assert_eq!(
        held_back(&world, "bo@example.com", ends).await,
        (true, true)
    );
    let shorter = NewSuppression {
        expires_at: Some(NOW),
        ..entry(&world, "BO@example.com")
    };
    let (same, new) = world.store.suppress(&shorter).await.unwrap();
    assert_eq!((same, new), (made.clone(), false), "never made shorter");
    let (same, new) = world
        .store
        .suppress(&entry(&world, "bo@example.com"))
        .await
        .unwrap();
    assert_eq!((same.id, same.expires_at, new), (made.id, None, false));
}

#[tokio::test]
async fn an_unsubscribe_lets_transactional_mail_pass_at_both_places() {
    let Some(world) = World::start().await else {
        return;
    };
    let unsubscribed = NewSuppression {
        reason: SuppressionReason::Unsubscribe,
        ..entry(&world, "bo@example.com")
    };
    world.store.suppress(&unsubscribed).await.unwrap();
    assert_eq!(
        held_back(&world, "bo@example.com", NOW).await,
        (false, false)
    );
    let id = mail::ids::StreamId::from_uuid(uuid_v7(unix_ms(NOW), rand::random()));
    let (account, class) = (world.account.no, StreamClass::Broadcast);
    let news = world
        .store
        .create_stream(id, account, "news", class)
        .await
        .unwrap();
    let mut message = world.message();
    (message.stream, message.class) = (news.no, class);
    message.recipients.push(world.recipient("bo@example.com"));
    let id = message.id;
    let accepted = world
        .acceptor()
        .accept(world.request(vec![message]))
        .await
        .unwrap();
    assert!(
        matches!(accepted, Accepted::Screened { .. }),
        "{accepted:?}"
    );
    let stored = world.store.contents(&[id]).await.unwrap();
    assert!(stored[0].is_suppressed(1, NOW));
}

/// Remembers what was handed over.
#[derive(Default)]
struct HandedOver(Mutex<Vec<QueueRow>>);

impl QueueHints for HandedOver {
    fn preferred(&self, _: StreamClass) -> Vec<ShardNo> {
        vec![]
    }

    fn accepted(&self, rows: Vec<QueueRow>, _messages: Vec<Arc<StoredMessage>>) {
        self.0.lock().unwrap().extend(rows);
    }
}

#[tokio::test]
async fn only_what_was_queued_is_handed_over() {
    let Some(world) = World::start().await else {
        return;
    };
    world
        .store
        .suppress(&entry(&world, "bo@example.com"))
        .await
        .unwrap();
    let hints = Arc::new(HandedOver::default());
    let acceptor = world.acceptor_with(hints.clone(), Arc::new(NoObserver), || NOW);
    let mut mixed = world.message();
    mixed
        .recipients
        .insert(0, world.recipient("bo@example.com"));
    let mut nobody = world.message();
    nobody.recipients = vec![world.recipient("bo@example.com")];
    let request = world.request(vec![mixed.clone(), nobody]);
    acceptor.accept(request).await.unwrap();
    let told = hints.0.lock().unwrap().clone();
    assert_eq!(told, world.queued().await);
    assert_eq!(told.len(), 1);
    assert_eq!((told[0].key.message, told[0].key.rcpt), (mixed.id, 1));
    assert_eq!(world.count("SELECT count(*) FROM content").await, 1);
}

#[tokio::test]
async fn a_repeated_commit_still_knows_who_was_suppressed() {
    let Some(world) = World::start().await else {
        return;
    };
    let (made, _) = world
        .store
        .suppress(&entry(&world, "ana@example.com"))
        .await
        .unwrap();
    let message = world.message();
    let id = message.id;
    let request = AcceptRequest {
        idempotency: Some(IdempotencyKey {
            key_hash: [1; 32],
            body_hash: [2; 32],
            response: "first".into(),
        }),
        ..world.request(vec![message])
    };
    let accepted = world.acceptor().accept(request.clone()).await.unwrap();
    let key = DeliveryKey {
        message: id,
        rcpt: 0,
    };
    let suppressed = HashSet::from([key]);
    assert_eq!(
        accepted,
        Accepted::Screened {
            suppressed: suppressed.clone()
        }
    );
    assert!(
        world
            .store
            .unsuppress(world.account.no, made.id)
            .await
            .unwrap()
    );
    let found = world.store.suppressed_at_accept(&[id]).await.unwrap();
    assert_eq!(found, suppressed);
    let again = world.acceptor().accept(request).await.unwrap();
    assert!(matches!(again, Accepted::Replayed { .. }), "{again:?}");
    assert_eq!(world.count("SELECT count(*) FROM event").await, 1);
}

#[tokio::test]
async fn whoever_is_suppressed_meanwhile_is_held_back_at_one_of_the_two_places() {
    let Some(world) = World::start().await else {
        return;
    };
    let acceptor = world.acceptor();
    let mut running = JoinSet::new();
    for number in 0..60 {
        let address = format!("user{number}@example.com");
        let mut message = world.message();
        message.recipients = vec![world.recipient(&address)];
        let (acceptor, request) = (acceptor.clone(), world.request(vec![message.clone()]));
        let (store, entry) = (world.store.clone(), entry(&world, &address));
        running.spawn(async move {
            let (accepted, suppressed) =
                tokio::join!(acceptor.accept(request), store.suppress(&entry));
            suppressed.unwrap();
            (message.id, accepted.unwrap())
        });
    }
    for (id, accepted) in running.join_all().await {
        let stored = world.store.contents(&[id]).await.unwrap();
        match accepted {
            Accepted::Screened { .. } => assert!(stored.is_empty()),
            Accepted::Stored => assert!(stored[0].is_suppressed(0, NOW), "{id} slips through"),
            other => panic!("{other:?}"),
        }
    }
    let ended = world
        .count("SELECT count(*) FROM event WHERE type = 7 AND flags = 1")
        .await;
    assert_eq!(world.queued().await.len() as i64, 60 - ended);
}

#[tokio::test]
async fn a_dead_address_is_suppressed_with_the_outcome_that_proves_it() {
    let Some(world) = World::start().await else {
        return;
    };
    let (row, fence) = (world.send().await, world.own(node()).await);
    let refused = dead(&row);
    let outcomes = std::slice::from_ref(&refused);
    assert_eq!(world.store.settle(&fence, outcomes).await.unwrap(), [true]);
    let entries = listed(&world).await;
    assert_eq!(entries.len(), 1);
    let entry = &entries[0];
    assert_eq!(entry.address, "ana@example.com");
    assert_eq!(entry.reason, SuppressionReason::HardBounce);
    assert_eq!((entry.stream.as_deref(), entry.expires_at), (None, None));
    assert_eq!(entry.source_event, Some(refused.event.id));
    assert_eq!(entry.source_delivery, Some(row.key));
    assert_eq!(entry.id.unix_ms(), unix_ms(NOW));

    // Replayed after the sender took it off: what was settled proves nothing twice.
    assert!(
        world
            .store
            .unsuppress(world.account.no, entry.id)
            .await
            .unwrap()
    );
    assert_eq!(world.store.settle(&fence, outcomes).await.unwrap(), [false]);
    assert!(listed(&world).await.is_empty());
}

#[tokio::test]
async fn many_proofs_of_one_dead_address_are_one_entry() {
    let Some(world) = World::start().await else {
        return;
    };
    let limited = NewSuppression {
        reason: SuppressionReason::HardBounce,
        expires_at: Some(NOW),
        ..entry(&world, "Ana@example.com")
    };
    let (made, _) = world.store.suppress(&limited).await.unwrap();
    let mut rows = Vec::new();
    for _ in 0..4 {
        rows.push(world.send().await);
    }
    let fence = world.own(node()).await;
    let (two, others) = rows.split_at(2);
    for part in [two, others] {
        let outcomes: Vec<Settlement> = part.iter().map(dead).collect();
        let settled = world.store.settle(&fence, &outcomes).await.unwrap();
        assert_eq!(settled, [true, true]);
    }
    let entries = listed(&world).await;
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].id, made.id);
    assert_eq!(
        entries[0].expires_at, None,
        "what was to end is for good now"
    );
}

#[tokio::test]
async fn tests_and_refusals_about_us_suppress_nobody() {
    let Some(world) = World::start().await else {
        return;
    };
    let mut test = world.message();
    test.flags = test.flags.with(MessageFlags::TEST);
    let live = world.message();
    let (test_id, request) = (test.id, world.request(vec![test, live]));
    world.acceptor().accept(request).await.unwrap();
    let fence = world.own(node()).await;
    let rows = world.queued().await;
    let outcomes: Vec<Settlement> = rows
        .iter()
        .map(|row| {
            if row.key.message == test_id {
                dead(row)
            } else {
                outcome(row, EventType::EmailBounced, None)
            }
        })
        .collect();
    assert_eq!(
        world.store.settle(&fence, &outcomes).await.unwrap(),
        [true, true]
    );
    assert!(listed(&world).await.is_empty());
}

#[tokio::test]
async fn accounts_have_lists_of_their_own() {
    let Some(world) = World::start().await else {
        return;
    };
    let foreign = NewSuppression {
        account: AccountNo(world.account.no.0 + 1),
        ..entry(&world, "bo@example.com")
    };
    let (made, _) = world.store.suppress(&foreign).await.unwrap();
    assert_eq!(
        held_back(&world, "bo@example.com", NOW).await,
        (false, false)
    );
    let own = world.account.no;
    assert_eq!(world.store.suppression(own, made.id).await.unwrap(), None);
    assert!(!world.store.unsuppress(own, made.id).await.unwrap());
    assert!(listed(&world).await.is_empty());
    let found = world
        .store
        .suppression(foreign.account, made.id)
        .await
        .unwrap();
    assert_eq!(found, Some(made));
}
