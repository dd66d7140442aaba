//! Cancelling without the owner of the shard: only what is due so late that nobody has it in hand.

use std::time::Duration;

use mail::event::EventType;
use store::*;

use crate::commands::HOUR;
use crate::world::{NOW, World};

#[tokio::test]
async fn only_what_is_due_later_is_cancelled_directly() {
    let Some(world) = World::start().await else {
        return;
    };
    let (soon, later) = (world.send().await, world.send_at(NOW + HOUR).await);
    let place = world
        .store
        .message_place(world.account.no, later.key.message)
        .await
        .unwrap();
    let place = place.unwrap();
    assert_eq!(place.shard, later.shard);
    let due_ms = (NOW + HOUR).unix_timestamp_nanos() / 1_000_000;
    assert_eq!(
        i128::from(place.content_due_ms),
        due_ms,
        "where to look for it"
    );
    let stranger = AccountNo(world.account.no.0 + 1);
    let foreign = world
        .store
        .message_place(stranger, later.key.message)
        .await
        .unwrap();
    assert_eq!(foreign, None);

    let minute = NOW + Duration::from_secs(60);
    let mut gone = Vec::new();
    for row in [&soon, &later] {
        let (times, spans) = ([NOW + HOUR], [(NOW, NOW)]);
        let found = world
            .store
            .queued_in(row.shard, row.key.message, &times, &spans)
            .await
            .unwrap();
        assert_eq!(
            found,
            [QueuedDelivery {
                key: row.key,
                next_at: row.next_at
            }]
        );
        let cancel = async |check_clock| {
            let (store, shard) = (&world.store, row.shard);
            let cancelled = store.cancel_direct(shard, &found, minute, NOW, check_clock);
            cancelled.await.unwrap()
        };
        assert_eq!(cancel(true).await, [], "this clock is months behind");
        gone.extend(cancel(false).await);
    }
    assert_eq!(gone, [later.key]);
    assert_eq!(world.queued().await, [soon]);
    let ended = (EventType::EmailCancelled, 2, EventFlags::FINAL);
    let scheduled = (EventType::EmailScheduled, 1, EventFlags::NONE);
    assert_eq!(world.told(later.key.message).await, [scheduled, ended]);
}
