//! A command whose end is not known still keeps its delivery from being sent.

use std::time::Duration;

use store::{CommandKind, NewCommand, ShardNo};
use uuid::Uuid;

use super::round;
use crate::for_tests::{LONG_HOLD, TestBed};

const SHARD: ShardNo = ShardNo(3);

#[tokio::test]
async fn a_command_without_an_answer_keeps_its_delivery_from_the_gate() {
    TestBed::run(async |bed| {
        let rows = bed.send(SHARD, 1).await;
        let key = rows[0].key;
        let sender = bed.node(10, LONG_HOLD).await;
        sender.lease().await;
        let cancel = NewCommand {
            id: Uuid::new_v4(),
            shard: SHARD,
            key,
            kind: CommandKind::Cancel,
            seen_at: None,
            bulk: false,
        };
        let now = sender.node.clock.now();
        bed.store().note_commands(&[cancel], now).await.unwrap();
        // What the statement writes last is refused: it fails after it was begun.
        bed.execute("ALTER TABLE queue_command ADD CONSTRAINT broken CHECK (result IS NULL)")
            .await;
        let barrier = sender.node.gate.barrier();
        assert!(barrier.begin(key), "nothing is wanted of it yet");
        barrier.end([key]);

        assert!(round(&sender.node, &[SHARD], 0).await.is_err());
        assert!(!barrier.begin(key), "it may be sent after it was cancelled");

        bed.execute("ALTER TABLE queue_command DROP CONSTRAINT broken")
            .await;
        // It is carried out once nothing of the first try can be on its way any more.
        while bed.left().await > 0 {
            let _barred_until_then = round(&sender.node, &[SHARD], 0).await.unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(barrier.begin(key));
    })
    .await;
}
