//! Settling: the fence decides, and every outcome counts once.

use mail::event::EventType;
use store::*;
use time::Duration;

use crate::world::{NOW, World, node, outcome};

fn later(minutes: i64) -> Option<Retry> {
    let next_at = NOW + Duration::minutes(minutes);
    Some(Retry {
        next_at,
        flags: QueueFlags::AMBIGUOUS,
    })
}

#[tokio::test]
async fn a_final_outcome_ends_the_delivery_once() {
    let Some(world) = World::start().await else {
        return;
    };
    let (row, fence) = (world.send().await, world.own(node()).await);
    let done = outcome(&row, EventType::EmailDelivered, None);
    assert_eq!(
        world
            .store
            .settle(&fence, std::slice::from_ref(&done))
            .await
            .unwrap(),
        [true]
    );
    let repeated = Settlement {
        event: outcome(&row, EventType::EmailBounced, None).event,
        ..done
    };
    assert_eq!(
        world.store.settle(&fence, &[repeated]).await.unwrap(),
        [false]
    );
    assert!(world.queued().await.is_empty());
    let events = world.store.message_events(row.key.message).await.unwrap();
    assert_eq!(events.len(), 2);
    let last = &events[1];
    assert_eq!(
        (last.kind, last.sequence, last.attempt),
        (EventType::EmailDelivered, 2, 1)
    );
    assert_eq!(last.flags, EventFlags::FINAL);
    assert_eq!(last.reply.as_deref(), Some("250 2.0.0 OK"));
}

#[tokio::test]
async fn a_deferred_delivery_comes_back_with_one_more_attempt() {
    let Some(world) = World::start().await else {
        return;
    };
    let (row, fence) = (world.send().await, world.own(node()).await);
    let deferred = outcome(&row, EventType::EmailDeferred, later(5));
    assert_eq!(
        world.store.settle(&fence, &[deferred]).await.unwrap(),
        [true]
    );
    let expected = QueueRow {
        next_at: NOW + Duration::minutes(5),
        attempt: 1,
        flags: QueueFlags::AMBIGUOUS,
        ..row.clone()
    };
    assert_eq!(world.queued().await, [expected]);
    let events = world.store.message_events(row.key.message).await.unwrap();
    assert_eq!(events[1].next_at, Some(NOW + Duration::minutes(5)));
}

#[tokio::test]
async fn a_journal_with_two_attempts_of_a_delivery_is_replayed_in_order() {
    let Some(world) = World::start().await else {
        return;
    };
    let (row, fence) = (world.send().await, world.own(node()).await);
    let first = outcome(&row, EventType::EmailDeferred, later(5));
    let second_row = QueueRow {
        next_at: NOW + Duration::minutes(5),
        attempt: 1,
        ..row.clone()
    };
    let second = outcome(&second_row, EventType::EmailDelivered, None);
    let settled = world.store.settle(&fence, &[first, second]).await.unwrap();
    assert_eq!(settled, [true, true]);
    let events = world.store.message_events(row.key.message).await.unwrap();
    let sequences: Vec<u16> = events.iter().map(|event| event.sequence).collect();
    assert_eq!(sequences, [1, 2, 3]);
    assert!(world.queued().await.is_empty());
}

#[tokio::test]
async fn who_lost_the_shard_changes_nothing() {
    let Some(world) = World::start().await else {
        return;
    };
    let row = world.send().await;
    let old = world.own(node()).await;
    world.store.release(&old).await.unwrap();
    let new = world.own(node()).await;
    let outcomes = [outcome(&row, EventType::EmailDelivered, None)];
    assert_eq!(world.store.settle(&old, &outcomes).await.unwrap(), [false]);
    assert_eq!(
        world
            .store
            .note_intents(&old, &[&row], 1, NOW)
            .await
            .unwrap(),
        [false]
    );
    let moves = [(row.clone(), row.shard, NOW + Duration::hours(1))];
    assert_eq!(world.store.park(&old, &moves).await.unwrap(), [false]);
    let pretender = Fence {
        owner: old.owner,
        held: new.held.clone(),
    };
    assert_eq!(
        world.store.settle(&pretender, &outcomes).await.unwrap(),
        [false]
    );
    assert_eq!(world.store.settle(&new, &outcomes).await.unwrap(), [true]);
}

#[tokio::test]
async fn odd_text_from_a_host_does_not_fail_a_batch() {
    let Some(world) = World::start().await else {
        return;
    };
    let (row, fence) = (world.send().await, world.own(node()).await);
    let mut done = outcome(&row, EventType::EmailDelivered, None);
    done.event.mx = Some("mx\0example".into());
    assert_eq!(world.store.settle(&fence, &[done]).await.unwrap(), [true]);
}

#[tokio::test]
async fn a_parked_delivery_keeps_its_attempt_and_has_no_event() {
    let Some(world) = World::start().await else {
        return;
    };
    let (row, fence) = (world.send().await, world.own(node()).await);
    let (shard, at) = (ShardNo((row.shard.0 + 1) % 8), NOW + Duration::hours(1));
    let moves = [(row.clone(), shard, at)];
    assert_eq!(world.store.park(&fence, &moves).await.unwrap(), [true]);
    assert_eq!(
        world.queued().await,
        [QueueRow {
            shard,
            next_at: at,
            ..row.clone()
        }]
    );
    assert_eq!(world.store.park(&fence, &moves).await.unwrap(), [false]);
    assert_eq!(
        world
            .store
            .message_events(row.key.message)
            .await
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test]
async fn only_deliveries_still_queued_get_a_final_dot() {
    let Some(world) = World::start().await else {
        return;
    };
    let (gone, row) = (world.send().await, world.send().await);
    let fence = world.own(node()).await;
    world
        .store
        .settle(&fence, &[outcome(&gone, EventType::EmailDelivered, None)])
        .await
        .unwrap();
    let other_attempt = QueueRow {
        attempt: 3,
        ..row.clone()
    };
    let rows = [&gone, &row, &other_attempt];
    let granted = world
        .store
        .note_intents(&fence, &rows, 7, NOW)
        .await
        .unwrap();
    assert_eq!(granted, [false, true, false]);
}

#[tokio::test]
async fn a_new_owner_learns_what_may_have_been_sent() {
    let Some(world) = World::start().await else {
        return;
    };
    let row = world.send().await;
    let old = world.own(node()).await;
    world
        .store
        .note_intents(&old, &[&row], 1, NOW)
        .await
        .unwrap();
    assert_eq!(
        world.store.open_intents(&old.held).await.unwrap(),
        [],
        "its own are not open"
    );

    world.store.release(&old).await.unwrap();
    let new = world.own(node()).await;
    let open = world.store.open_intents(&new.held).await.unwrap();
    let epoch = old
        .held
        .iter()
        .find(|(shard, _)| *shard == row.shard)
        .unwrap()
        .1;
    let expected = OpenIntent {
        shard: row.shard,
        epoch,
        owner: old.owner,
        noted_at: NOW,
        key: row.key,
        attempt: 0,
    };
    assert_eq!(open, [expected]);

    world
        .store
        .retire_intents(&new, &[(row.shard, epoch, 1)])
        .await
        .unwrap();
    assert_eq!(
        world.store.open_intents(&new.held).await.unwrap().len(),
        1,
        "1 is still open"
    );
    world
        .store
        .retire_intents(&new, &[(row.shard, epoch, 2)])
        .await
        .unwrap();
    assert_eq!(world.store.open_intents(&new.held).await.unwrap(), []);
}

#[tokio::test]
async fn a_late_outcome_reaches_the_new_owner_whole() {
    let Some(world) = World::start().await else {
        return;
    };
    let row = world.send().await;
    let (old, new) = (node(), world.own(node()).await);
    let done = outcome(&row, EventType::EmailDeferred, later(3));
    let handed = [
        HandIn {
            shard: row.shard,
            epoch: Epoch(1),
            settlement: Some(done.clone()),
        },
        HandIn {
            shard: row.shard,
            epoch: Epoch(1),
            settlement: None,
        },
    ];
    world.store.hand_in(old, &handed).await.unwrap();
    let elsewhere = ShardNo((row.shard.0 + 1) % 8);
    assert!(
        world
            .store
            .handed_in(&[elsewhere], 10)
            .await
            .unwrap()
            .is_empty()
    );
    let received = world.store.handed_in(&[row.shard], 10).await.unwrap();
    assert_eq!(received.len(), 2);
    assert!(handed.iter().all(|one| {
        received
            .iter()
            .any(|(_, from, got)| *from == old && got == one)
    }));
    assert_eq!(world.store.settle(&new, &[done]).await.unwrap(), [true]);
    let ids: Vec<_> = received.iter().map(|(id, ..)| *id).collect();
    world.store.drop_handed_in(&ids).await.unwrap();
    assert!(
        world
            .store
            .handed_in(&[row.shard], 10)
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn depth_counts_what_is_due() {
    let Some(world) = World::start().await else {
        return;
    };
    let row = world.send().await;
    let depths = world.store.queue_depths(NOW).await.unwrap();
    assert_eq!(depths.len(), 16);
    for depth in depths {
        let expected = if depth.shard == row.shard {
            (1, Some(NOW))
        } else {
            (0, None)
        };
        assert_eq!((depth.due, depth.oldest_due), expected);
    }
}

#[tokio::test]
async fn reading_forward_starts_after_the_cursor() {
    let Some(world) = World::start().await else {
        return;
    };
    let row = world.send().await;
    let poll = async |cursor, now| {
        world
            .store
            .poll(&[(row.shard, cursor)], now, 10)
            .await
            .unwrap()
    };
    assert_eq!(poll(Cursor::START, NOW).await, std::slice::from_ref(&row));
    assert_eq!(poll(Cursor::after(&row), NOW).await, []);
    assert_eq!(poll(Cursor::START, NOW - Duration::SECOND).await, []);
}
