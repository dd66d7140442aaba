//! Replays: what is told to an endpoint once more, and that each event of it is found once.

use mail::event::EventType;
use mail::ids::{EventId, WebhookReplayId};
use store::*;
use time::Duration;

use crate::webhooks::{endpoint, event_at, floor, id_at};
use crate::world::{NOW, World};

/// Plans every piece of a replay; the events planned.
async fn carry_out(world: &World, id: WebhookReplayId, most: u32) -> Vec<EventId> {
    let store = &world.store;
    let mut planned = Vec::new();
    let mut next = store
        .replays_to_read(&[(world.account.no.0 % 16) as i16], 1_000_000)
        .await
        .unwrap()
        .into_iter()
        .find(|replay| replay.id == id);
    while let Some(replay) = next {
        let piece = store.replay_piece(&replay).await.unwrap();
        planned.extend(piece.events.iter().map(|(id, _)| *id));
        next = store.plan_replay(&replay, &piece, most, NOW).await.unwrap();
        let again = store.plan_replay(&replay, &piece, most, NOW).await.unwrap();
        assert_eq!(again, None, "a piece is planned once");
    }
    planned
}

#[tokio::test]
async fn a_replay_finds_every_event_of_its_time_and_type_once() {
    let Some(world) = World::start().await else {
        return;
    };
    let (no, id) = endpoint(&world).await;
    let (store, account) = (&world.store, world.account.no);
    for _ in 0..5 {
        world.send().await;
    }
    // Not mail, not the wanted type, and not the wanted time.
    store
        .disable_endpoint(no, DisabledReason::Gone, None, None, event_at(NOW), NOW)
        .await
        .unwrap();
    let enable = EndpointChange {
        enabled: Some(true),
        ..EndpointChange::default()
    };
    store
        .change_endpoint(account, id, enable, NOW)
        .await
        .unwrap();
    store
        .test_endpoint(account, id, event_at(NOW))
        .await
        .unwrap();
    let replay = |from, to, types| NewReplay {
        id: WebhookReplayId::from_uuid(id_at(NOW)),
        account,
        endpoint: no,
        from: floor(from),
        to: floor(to),
        types,
    };
    let second = Duration::SECOND;
    let types = [EventType::EmailQueued, EventType::WebhookDisabled];
    let whole = replay(NOW - second, NOW + second, &types);
    store.create_replay(&whole, NOW).await.unwrap();
    let twice = store
        .create_replay(&replay(NOW, NOW + second, &types), NOW)
        .await;
    assert!(
        matches!(twice, Err(StoreError::Conflict { .. })),
        "{twice:?}"
    );
    let mut planned = carry_out(&world, whole.id, 1_000).await;
    planned.sort();
    planned.dedup();
    assert_eq!(planned.len(), 6);
    let shown = store.replays(no, Some(whole.id), None, 1).await.unwrap();
    let state = (
        shown[0].state,
        shown[0].events,
        shown[0].waiting,
        shown[0].is_cut,
    );
    assert_eq!(state, (ReplayState::Calling, 6, 6, false));

    // Their calls are apart from those of the retries, and end the replay.
    let numbers = [(account.0 % 16) as i16];
    let due = store.due_replay_calls(&numbers, NOW, 10).await.unwrap();
    assert_eq!(due.len(), 6);
    assert_eq!(
        store.due_calls(NOW, 100, 100).await.unwrap().len(),
        1,
        "the test"
    );
    let later = NOW + Duration::HOUR;
    store.reschedule_call(&due[0], Some(later)).await.unwrap();
    let again = store.due_replay_calls(&numbers, later, 10).await.unwrap();
    assert!(again.iter().all(|call| call.replay == Some(whole.id)));
    assert_eq!(store.close_replays(NOW).await.unwrap(), 1);
    for call in &again {
        store.reschedule_call(call, None).await.unwrap();
    }
    assert_eq!(store.close_replays(NOW).await.unwrap(), 0);
    let shown = store.replays(no, None, None, 10).await.unwrap();
    assert_eq!(
        (shown[0].state, shown[0].ended_at),
        (ReplayState::Done, Some(NOW))
    );

    let outside = replay(NOW + second, NOW + second * 2, &types);
    store.create_replay(&outside, NOW).await.unwrap();
    assert!(carry_out(&world, outside.id, 1_000).await.is_empty());
    let bounded = replay(NOW - second, NOW + second, &types);
    store.create_replay(&bounded, NOW).await.unwrap();
    carry_out(&world, bounded.id, 3).await;
    let shown = store.replays(no, Some(bounded.id), None, 1).await.unwrap();
    assert_eq!((shown[0].events, shown[0].is_cut), (3, true));
    assert!(store.cancel_replay(no, bounded.id, NOW).await.unwrap());
    assert!(!store.cancel_replay(no, bounded.id, NOW).await.unwrap());
    assert!(
        !store
            .cancel_replay(EndpointNo(9_999), outside.id, NOW)
            .await
            .unwrap()
    );
    let shown = store.replays(no, Some(bounded.id), None, 1).await.unwrap();
    assert_eq!(
        (shown[0].state, shown[0].waiting),
        (ReplayState::Cancelled, 0)
    );
    assert_eq!(store.forget_replays(NOW).await.unwrap(), 0);
    assert!(store.forget_replays(NOW + second).await.unwrap() >= 2);
}

#[tokio::test]
async fn one_event_of_the_account_is_told_once_more() {
    let Some(world) = World::start().await else {
        return;
    };
    let (no, _) = endpoint(&world).await;
    let row = world.send().await;
    let (store, account) = (&world.store, world.account.no);
    let event = store.message_events(row.key.message).await.unwrap()[0].id;
    let ask = |account, event| {
        let id = WebhookReplayId::from_uuid(id_at(NOW));
        store.replay_event(id, account, no, event, NOW)
    };
    assert!(!ask(AccountNo(9_999), event).await.unwrap());
    assert!(!ask(account, event_at(NOW)).await.unwrap());
    assert!(store.replays(no, None, None, 10).await.unwrap().is_empty());
    assert!(ask(account, event).await.unwrap());
    let numbers = [(account.0 % 16) as i16];
    let due = store.due_replay_calls(&numbers, NOW, 10).await.unwrap();
    assert_eq!((due.len(), due[0].event_id), (1, event));
    let indexes = "SELECT count(*) FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
                   JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_am a ON a.oid = x.relam
                   WHERE c.relname ~ '^event_' AND c.relispartition AND a.amname = 'brin'";
    let partitions = "SELECT count(*) FROM pg_class WHERE relname ~ '^event_' AND relispartition AND relkind = 'r'";
    assert_eq!(world.count(indexes).await, world.count(partitions).await);
}
