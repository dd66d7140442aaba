//! A shard that another node should own goes to it, at the latest when patience ends; what was under
//! way then is settled by the new owner, and sent by nobody else.

use std::time::Duration;

use mail::retry::StreamClass;
use store::{CommandKind, Epoch, NewCommand, QueueRow, ShardNo};
use uuid::Uuid;

use super::{LEAVING_MAX, mark_lost_shards, release_leaving};
use crate::for_tests::{LONG_HOLD, TestBed, TestNode};
use crate::lanes::Waiting;
use crate::queue::{Suspicion, carry_out_first, decide_undecided, settle_handed_in, take_over};
use crate::routing::Route;

const DELIVERED: i16 = 3;
const FINAL: i16 = 1;

/// Two live nodes; the first holds all shards, some of which the second should have.
async fn two_nodes(bed: &TestBed) -> (TestNode, TestNode) {
    let (old, new) = (bed.node(10, LONG_HOLD).await, bed.node(20, LONG_HOLD).await);
    let all = old.lease().await.len();
    assert!(new.lease().await.is_empty(), "nothing is free");
    old.lease().await;
    let leaving = old.node.ownership.leaving().len();
    assert!(0 < leaving && leaving < all, "{leaving} of {all} leave");
    (old, new)
}

fn shards(leases: &[(ShardNo, Epoch)]) -> Vec<ShardNo> {
    leases.iter().map(|(shard, _)| *shard).collect()
}

/// What was handed in about a shard and is not dealt with.
async fn entries(bed: &TestBed, shard: ShardNo) -> i64 {
    let count = format!("SELECT count(*) FROM hand_in WHERE shard = {}", shard.0);
    bed.count(&count).await
}

/// A session is wanted for it, and none started.
fn waits_in_its_lane(node: &TestNode, row: QueueRow) {
    let node = &node.node;
    let source = node.source_of(&row);
    let class = StreamClass::Transactional;
    let route = Route::to_address("127.0.0.1:9".parse().unwrap()).into();
    let now = node.clock.now();
    let pushed = node
        .paths
        .push(Waiting { row, class }, source, route, now)
        .unwrap();
    assert!(pushed.is_some());
}

#[tokio::test]
async fn a_slow_delivery_does_not_keep_a_shard_from_its_new_owner() {
    TestBed::run(async |bed| {
        let (old, new) = two_nodes(&bed).await;
        let leaving = old.node.ownership.leaving();
        let shard = leaving.iter().map(|(shard, _)| *shard).min().unwrap();
        let rows = bed.send(shard, 2).await;
        let (slow, other) = (&rows[0], &rows[1]);
        old.admit(&rows);
        let intent = old.permit(slow).await;
        waits_in_its_lane(&old, other.clone());

        release_leaving(&old.node, LEAVING_MAX).await;
        assert!(old.node.ownership.holds(shard), "one attempt is under way");
        assert_eq!(old.node.memory.held(), 1, "what had not begun is let go");
        let quiet = leaving.iter().filter(|(other, _)| *other != shard);
        assert!(
            !quiet
                .clone()
                .any(|(other, _)| old.node.ownership.holds(*other))
        );
        let first = new.lease().await;
        assert_eq!(first.len(), quiet.count(), "shards without work go at once");

        release_leaving(&old.node, Duration::ZERO).await;
        assert!(!old.node.ownership.holds(shard), "patience has ended");
        let taken = new.lease().await;
        assert_eq!(shards(&taken), [shard]);
        assert!(take_over(&new.node, &taken).await);
        let read = new.admit(&bed.queued(shard).await);
        assert_eq!(read.len(), 2);
        assert_eq!(new.node.ambiguity.suspect(slow), Suspicion::Open);
        assert_eq!(new.node.ambiguity.suspect(other), Suspicion::None);
        decide_undecided(&new.node).await;
        assert_eq!(new.node.ambiguity.waiting(), 1, "the old owner may know");
        mark_lost_shards(&old.node).await;
        assert_eq!(entries(&bed, shard).await, 0, "its attempt is still open");

        old.delivered(slow, intent, "250 2.0.0 taken at last").await;
        old.settle().await;
        mark_lost_shards(&old.node).await;
        assert_eq!(entries(&bed, shard).await, 2, "the outcome, and no more");
        assert!(settle_handed_in(&new.node, &[shard]).await);
        assert_eq!(bed.events(slow, DELIVERED, FINAL).await, 1);
        assert_eq!(bed.queued(shard).await, rows[1..]);
        assert_eq!(new.node.ambiguity.waiting(), 0);
        assert_eq!(entries(&bed, shard).await, 0);
        assert_eq!(old.node.journal.unsettled(), 0);
    })
    .await;
}

#[tokio::test]
async fn a_new_owner_does_single_commands_first_and_those_of_actions_in_their_rounds() {
    TestBed::run(async |bed| {
        let owner = bed.node(10, LONG_HOLD).await;
        let shard = owner.lease().await[0].0;
        let rows = bed.send(shard, 2).await;
        let cancel = |row: &QueueRow, bulk| NewCommand {
            id: Uuid::new_v4(),
            shard,
            key: row.key,
            kind: CommandKind::Cancel,
            seen_at: Some(row.next_at),
            bulk,
        };
        let commands = [cancel(&rows[0], true), cancel(&rows[1], false)];
        let now = owner.node.clock.now();
        bed.store().note_commands(&commands, now).await.unwrap();
        carry_out_first(&owner.node, &[shard]).await;
        assert_eq!(bed.queued(shard).await, rows[..1]);
        let open = bed.store().open_commands(&[shard], 10, 10).await.unwrap();
        assert_eq!(open, commands[..1]);
    })
    .await;
}
