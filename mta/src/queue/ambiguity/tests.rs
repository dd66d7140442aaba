//! Doubt ends only by somebody who may end it: an entry that was handed in, or an open intent, is
//! never dropped because something could not be done just then.

use std::time::Duration;

use store::{Epoch, HandIn, QueueRow, ShardNo};

use super::{Suspicion, decide_undecided, settle_handed_in, take_over};
use crate::queue::Intent;
use crate::test_bed::{LONG_HOLD, TestBed, TestNode};

const SHARD: ShardNo = ShardNo(3);
const DELIVERED: i16 = 3;
const DEFERRED: i16 = 4;
const FINAL: i16 = 1;
const AMBIGUOUS: i16 = 2;
const ENTRIES: &str = "SELECT count(*) FROM hand_in";

/// A node that was allowed the final dots of these rows.
async fn node_in_mid_attempt(bed: &TestBed, rows: &[QueueRow]) -> (TestNode, Vec<Intent>) {
    let node = bed.node(10, LONG_HOLD).await;
    node.lease().await;
    node.admit(rows);
    let mut intents = Vec::new();
    for row in rows {
        intents.push(node.permit(row).await);
    }
    (node, intents)
}

/// Takes everything over and reads the shard as the reader does: all of it is in doubt.
async fn take_over_in_doubt(bed: &TestBed, owner: &TestNode) {
    bed.let_leases_lapse().await;
    let taken = owner.lease().await;
    assert!(take_over(&owner.node, &taken).await);
    for row in owner.admit(&bed.queued(SHARD).await) {
        assert_eq!(owner.node.ambiguity.suspect(&row), Suspicion::Open);
    }
    owner.node.ambiguity.read_through(SHARD);
}

#[tokio::test]
async fn what_was_handed_in_stays_for_the_next_owner_when_the_fence_is_stale() {
    TestBed::run(async |bed| {
        let rows = bed.send(SHARD, 1).await;
        let (first, intents) = node_in_mid_attempt(&bed, &rows).await;
        let (late, next) = (bed.node(20, LONG_HOLD).await, bed.node(30, LONG_HOLD).await);
        take_over_in_doubt(&bed, &late).await;
        // The shard changes hands again, and the second owner does not know it yet.
        bed.let_leases_lapse().await;
        let taken = next.lease().await;
        assert!(late.node.ownership.holds(SHARD));
        // Now the first one hands in what it learned, and that there is no more.
        first
            .delivered(&rows[0], intents[0], "250 2.0.0 taken")
            .await;
        first.settle().await;
        let mark = HandIn {
            shard: SHARD,
            epoch: Epoch(first.node.state_dir.epoch_floor()),
            settlement: None,
        };
        bed.store().hand_in(first.node.id(), &[mark]).await.unwrap();
        assert_eq!(bed.count(ENTRIES).await, 2);

        assert!(!settle_handed_in(&late.node, &[SHARD]).await, "try again");
        assert_eq!(bed.count(ENTRIES).await, 2, "neither outcome nor mark went");
        assert_eq!(bed.left().await, 1);
        assert_eq!(late.node.ambiguity.waiting(), 1, "and it is still in doubt");
        decide_undecided(&late.node).await;
        assert_eq!(late.node.settler.unsettled(), 0, "the mark closed nothing");

        assert!(take_over(&next.node, &taken).await);
        assert_eq!(bed.count(ENTRIES).await, 0);
        assert_eq!(bed.left().await, 0);
        assert_eq!(bed.events(&rows[0], DELIVERED, FINAL).await, 1);
        assert_eq!(bed.events(&rows[0], DEFERRED, 0).await, 0);
    })
    .await;
}

#[tokio::test]
async fn doubt_is_kept_while_the_stream_cannot_be_looked_up() {
    TestBed::run(async |bed| {
        let rows = bed.send(SHARD, 2).await;
        drop(node_in_mid_attempt(&bed, &rows).await);
        let owner = bed.node(20, Duration::ZERO).await;
        take_over_in_doubt(&bed, &owner).await;
        let node = &owner.node;
        assert_eq!(node.ambiguity.waiting(), 2);

        bed.execute("ALTER TABLE stream RENAME TO mislaid").await;
        for _ in 0..2 {
            decide_undecided(node).await;
            assert_eq!(node.ambiguity.waiting(), 2, "both wait on");
            assert_eq!(node.settler.unsettled(), 0, "nothing was decided");
            assert!(
                node.ambiguity.take_finished().is_empty(),
                "and their intents are needed"
            );
        }
        assert!(
            owner.admit(&bed.queued(SHARD).await).is_empty(),
            "reading them again is no news"
        );

        bed.execute("ALTER TABLE mislaid RENAME TO stream").await;
        decide_undecided(node).await;
        assert_eq!(node.ambiguity.waiting(), 0);
        assert!(
            node.ambiguity.take_finished().is_empty(),
            "open until it is settled"
        );
        owner.settle().await;
        for row in &rows {
            assert_eq!(bed.events(row, DEFERRED, AMBIGUOUS).await, 1);
        }
        let next_attempts = owner.admit(&bed.queued(SHARD).await);
        assert!(next_attempts.iter().all(|row| row.attempt == 1));
        assert_eq!(next_attempts.len(), 2, "the stream wants them sent again");
        assert_eq!(node.ambiguity.take_finished().len(), 1);
    })
    .await;
}
