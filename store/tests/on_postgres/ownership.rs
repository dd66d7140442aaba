//! Leases: one owner a shard, and a fair share of the readers.

use std::time::Duration;

use store::*;
use uuid::Uuid;

use crate::world::{NOW, TTL, World, node};

#[tokio::test]
async fn nodes_see_each_other_while_they_live() {
    let Some(world) = World::start().await else {
        return;
    };
    let (a, b, dead) = (node(), node(), node());
    world
        .store
        .heartbeat(dead, "dead", 0, Duration::ZERO)
        .await
        .unwrap();
    world
        .store
        .heartbeat(node(), "other group", -1, TTL)
        .await
        .unwrap();
    assert_eq!(world.store.heartbeat(a, "a", 0, TTL).await.unwrap(), [a]);
    let mut alive = world.store.heartbeat(b, "b", 0, TTL).await.unwrap();
    alive.sort();
    let mut expected = [a, b];
    expected.sort();
    assert_eq!(alive, expected);
}

#[tokio::test]
async fn a_shard_has_one_owner_until_it_lapses() {
    let Some(world) = World::start().await else {
        return;
    };
    let (a, b) = (node(), node());
    let shard = [ShardNo(3)];
    let first = world.store.take(a, &shard, TTL, 0).await.unwrap();
    assert_eq!(first, [(ShardNo(3), Epoch(1))]);
    assert_eq!(world.store.take(b, &shard, TTL, 0).await.unwrap(), []);
    let fence = Fence {
        owner: a,
        held: first,
    };
    let renewed = world.store.renew(&fence, TTL).await.unwrap();
    assert_eq!(renewed.still_held, shard);
    assert!(renewed.server_now.year() > 2000);

    let expired = world.store.renew(&fence, Duration::ZERO).await.unwrap();
    assert_eq!(expired.still_held, shard);
    let row = |rows: Vec<LeaseRow>| rows.into_iter().find(|row| row.shard == shard[0]).unwrap();
    let lease = row(world.store.shards(0).await.unwrap());
    assert!(lease.lapsed && lease.owner == Some(a));
    assert_eq!(
        world.store.take(b, &shard, TTL, 41).await.unwrap(),
        [(ShardNo(3), Epoch(42))]
    );
    assert_eq!(world.store.renew(&fence, TTL).await.unwrap().still_held, []);
    let lease = row(world.store.shards(0).await.unwrap());
    assert!(!lease.lapsed && lease.owner == Some(b) && lease.epoch == Epoch(42));
}

#[tokio::test]
async fn readers_of_the_log_are_shared_fairly_and_keep_their_place() {
    let Some(world) = World::start().await else {
        return;
    };
    let (a, b) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let store = &world.store;
    let alone = store.dispatchers_take(a, TTL, 16).await.unwrap();
    assert_eq!(alone.len(), 16);
    assert!(
        alone
            .iter()
            .all(|lease| lease.epoch == Epoch(1) && lease.cursor == LogCursor::START)
    );
    assert!(store.dispatchers_take(b, TTL, 8).await.unwrap().is_empty());

    let place = LogCursor {
        xid: 5_000_000_000,
        id: Uuid::from_u128(9),
    };
    let cursors = [(15, Epoch(1), place), (14, Epoch(9), place)];
    assert_eq!(store.dispatchers_save(a, &cursors).await.unwrap(), [15]);
    assert!(
        store
            .dispatchers_save(b, &[(15, Epoch(1), place)])
            .await
            .unwrap()
            .is_empty()
    );

    let half = store.dispatchers_take(a, TTL, 8).await.unwrap();
    assert_eq!(half.len(), 8);
    assert!(
        half.iter().all(|lease| lease.epoch == Epoch(1)),
        "renewed, not taken anew"
    );
    let other_half = store.dispatchers_take(b, TTL, 8).await.unwrap();
    assert_eq!(other_half.len(), 8);
    assert!(other_half.iter().all(|lease| lease.epoch == Epoch(2)));
    let moved = other_half.iter().find(|lease| lease.number == 15).unwrap();
    assert_eq!(moved.cursor, place);
    let late = store
        .dispatchers_save(a, &[(15, Epoch(1), LogCursor::START)])
        .await
        .unwrap();
    assert!(late.is_empty());

    let held: Vec<_> = half.iter().map(|lease| (lease.number, Epoch(9))).collect();
    store.dispatchers_release(a, &held).await.unwrap();
    assert_eq!(
        store.dispatchers_take(b, TTL, 16).await.unwrap().len(),
        8,
        "not those of another epoch"
    );
    let held: Vec<_> = half
        .iter()
        .map(|lease| (lease.number, lease.epoch))
        .collect();
    store.dispatchers_release(a, &held).await.unwrap();
    assert_eq!(store.dispatchers_take(b, TTL, 16).await.unwrap().len(), 16);
}

#[tokio::test]
async fn a_reader_whose_lease_lapsed_takes_it_anew() {
    let Some(world) = World::start().await else {
        return;
    };
    let owner = Uuid::from_u128(1);
    world
        .store
        .dispatchers_take(owner, Duration::ZERO, 1)
        .await
        .unwrap();
    let again = world.store.dispatchers_take(owner, TTL, 1).await.unwrap();
    assert_eq!(
        again[0].epoch,
        Epoch(2),
        "somebody else may have had it meanwhile"
    );
}

#[tokio::test]
async fn partitions_may_be_made_by_many_at_once() {
    let Some(world) = World::start().await else {
        return;
    };
    let days = || {
        let first = NOW.date();
        (0..5).map(move |day| first + time::Duration::days(day))
    };
    let (a, b) = tokio::join!(
        world.store.make_partitions(days()),
        world.store.make_partitions(days())
    );
    a.and(b).unwrap();
    assert_eq!(world.store.default_partition_rows().await.unwrap(), 0);
    let mut late = world.message();
    late.due_at = NOW + time::Duration::days(20);
    world
        .acceptor()
        .accept(world.request(vec![late]))
        .await
        .unwrap();
    assert_eq!(
        world.store.default_partition_rows().await.unwrap(),
        1,
        "content due too late"
    );
}

#[tokio::test]
async fn migrating_again_applies_nothing() {
    let Some(world) = World::start().await else {
        return;
    };
    assert!(Store::migrate(&world.url).await.unwrap().is_empty());
    world.store.ping().await.unwrap();
}

#[tokio::test]
async fn nobody_there_is_unavailable() {
    let refused = Store::connect(StoreOptions::new("postgres://nobody@%2Fnowhere/x")).await;
    assert!(refused.unwrap_err().is_unavailable());
    let wrong = Store::connect(StoreOptions::new("no url")).await;
    assert!(!wrong.unwrap_err().is_unavailable());
}
