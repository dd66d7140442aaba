//! An outcome that PostgreSQL refuses costs itself at most: the others of its batch are settled, and
//! it is kept, not sent again, until PostgreSQL takes it.

use store::{QueueRow, ShardNo};

use crate::test_bed::{LONG_HOLD, TestBed, TestNode};

const SHARD: ShardNo = ShardNo(5);
const COUNT: usize = 60;
const UNLUCKY: usize = 41;
const DELIVERED: i16 = 3;
const FINAL: i16 = 1;
const FINALS: &str = "SELECT count(*) FROM event WHERE type = 3 AND flags & 1 = 1";

/// A node that has sent `COUNT` deliveries and read their replies; the unlucky one's is another.
async fn sent(bed: &TestBed, unlucky_reply: &str) -> (TestNode, Vec<QueueRow>) {
    let rows = bed.send(SHARD, COUNT).await;
    let sender = bed.node(10, LONG_HOLD).await;
    sender.lease().await;
    assert_eq!(sender.admit(&rows).len(), COUNT);
    for (number, row) in rows.iter().enumerate() {
        let intent = sender.permit(row).await;
        let reply = if number == UNLUCKY {
            unlucky_reply
        } else {
            "250 2.0.0 taken"
        };
        sender.delivered(row, intent, reply).await;
    }
    assert_eq!(sender.node.settler.unsettled(), COUNT);
    (sender, rows)
}

#[tokio::test]
async fn a_reply_that_was_read_is_journaled_without_asking_postgresql() {
    TestBed::run(async |bed| {
        let rows = bed.send(SHARD, 1).await;
        let sender = bed.node(10, LONG_HOLD).await;
        sender.lease().await;
        sender.admit(&rows);
        let intent = sender.permit(&rows[0]).await;
        // The stream's policy is for doubt only.
        bed.execute("ALTER TABLE stream RENAME TO mislaid").await;
        sender.delivered(&rows[0], intent, "250 2.0.0 taken").await;
        assert_eq!(sender.node.journal.unsettled(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_refused_text_costs_the_text_and_not_the_outcome() {
    TestBed::run(async |bed| {
        bed.execute(
            "ALTER TABLE event ADD CONSTRAINT manners CHECK (reply NOT LIKE '%unspeakable%')",
        )
        .await;
        let (sender, rows) = sent(&bed, "250 2.0.0 something unspeakable").await;
        sender.settle().await;
        assert_eq!(bed.count(FINALS).await, COUNT as i64);
        assert_eq!(bed.events(&rows[UNLUCKY], DELIVERED, FINAL).await, 1);
        let wordless = format!("{FINALS} AND reply IS NULL");
        assert_eq!(bed.count(&wordless).await, 1, "the others keep theirs");
        assert_eq!(sender.node.metrics.settle_refused.get(), 1);
        let settler = &sender.node.settler;
        assert_eq!((settler.refused(), sender.node.memory.held()), (0, 0));
        assert_eq!((sender.node.journal.unsettled(), bed.left().await), (0, 0));
    })
    .await;
}

#[tokio::test]
async fn a_refused_outcome_is_kept_and_not_sent_again_until_postgresql_takes_it() {
    TestBed::run(async |bed| {
        let (sender, rows) = sent(&bed, "250 2.0.0 taken").await;
        let (node, unlucky) = (&sender.node, &rows[UNLUCKY]);
        bed.execute(&format!(
            "ALTER TABLE event ADD CONSTRAINT grudge CHECK (subject <> '{}')",
            unlucky.key.message.uuid()
        ))
        .await;
        for _ in 0..2 {
            node.settler.retry_refused();
            sender.settle().await;
            assert_eq!(bed.count(FINALS).await, COUNT as i64 - 1, "the others");
            assert_eq!(node.settler.refused(), 1, "it is kept");
            assert_eq!(node.journal.unsettled(), 1, "also over a crash");
            assert_eq!(node.gate.open_count(), 1, "and noted as in doubt");
            // Its row is read again and again, and is no news.
            for _ in 0..3 {
                let queued = bed.queued(SHARD).await;
                assert_eq!(queued.len(), 1);
                assert!(sender.admit(&queued).is_empty(), "it would be sent again");
            }
        }
        bed.execute("ALTER TABLE event DROP CONSTRAINT grudge")
            .await;
        assert_eq!(bed.events(unlucky, DELIVERED, FINAL).await, 0);
        node.settler.retry_refused();
        sender.settle().await;
        assert_eq!(bed.events(unlucky, DELIVERED, FINAL).await, 1);
        assert_eq!(bed.count(FINALS).await, COUNT as i64);
        assert_eq!((node.settler.refused(), node.journal.unsettled()), (0, 0));
        assert_eq!((node.gate.open_count(), node.memory.held()), (0, 0));
        assert_eq!(bed.left().await, 0);
    })
    .await;
}
