//! Ownership of shards as it changes: renewing, taking, taking over, leaving. Renewal is a loop of
//! its own that nothing else can hold up; what follows from a change is done beside it.

use std::sync::Arc;
use std::time::Duration;

use store::{Epoch, HandIn, ShardNo};
use tokio::sync::mpsc;

use crate::node::Node;
use crate::queue::{Door, Unsettled, carry_out_first, patiently, settle_all, take_over};
use crate::sync::lock;

const LEASE_RETRY: Duration = Duration::from_millis(500);
/// How long a shard that is to be given away may wait for its deliveries under way.
const LEAVING_MAX: Duration = Duration::from_secs(10);

/// Renews and takes leases, and nothing that could keep it from that: what follows from a change is
/// done by [`follow_leases`]. A stopping node takes no more, and renews until it is drained.
pub(crate) async fn lease(node: Arc<Node>, taken: mpsc::UnboundedSender<Vec<(ShardNo, Epoch)>>) {
    while !node.killed.is_cancelled() {
        let round = if node.shutdown.is_requested() {
            node.ownership
                .keep(&node.store, node.clock.now())
                .await
                .map(|()| Vec::new())
        } else {
            let floor = node.state_dir.epoch_floor();
            node.ownership
                .round(&node.store, floor, node.clock.now())
                .await
        };
        let pause = match round {
            Ok(news) => {
                node.gate.reopen(Door::NoDatabase);
                // An empty list too: it says that PostgreSQL answered.
                let _ = taken.send(news);
                node.config.lease_ttl / 3
            }
            Err(error) => {
                tracing::warn!(error = %error, "the leases could not be renewed");
                LEASE_RETRY
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = node.gate.database_missed() => tokio::time::sleep(LEASE_RETRY).await,
            () = node.killed.cancelled() => {}
        }
    }
}

/// Does what changes of ownership ask for, one after the other. First of all it settles what the
/// journal holds: before that nothing is read.
pub(crate) async fn follow_leases(
    node: Arc<Node>,
    mut taken: mpsc::UnboundedReceiver<Vec<(ShardNo, Epoch)>>,
    replayed: Vec<Unsettled>,
) {
    let mut replayed = Some(replayed);
    while let Some(news) = taken.recv().await {
        if let Some(outcomes) = replayed.take() {
            settle_all(&node, outcomes).await;
            close_earlier_life(&node).await;
        }
        leave(&node, node.ownership.take_lost());
        if node.shutdown.is_requested() {
            continue;
        }
        enter(&node, news).await;
        release_leaving(&node, LEAVING_MAX).await;
    }
}

/// Shards that are another's now: nothing of theirs is started any more. What is under way ends, and
/// is handed in.
fn leave(node: &Node, lost: Vec<(ShardNo, Epoch)>) {
    for (shard, epoch) in &lost {
        tracing::info!(
            shard = shard.0,
            epoch = epoch.0,
            "a shard is another node's now"
        );
        node.reader.stop(*shard);
        let dropped = node.paths.extract(|waiting| waiting.row.shard == *shard);
        dropped
            .iter()
            .for_each(|waiting| node.memory.forget(waiting.row.key));
        node.ambiguity
            .lost(*shard)
            .into_iter()
            .for_each(|key| node.memory.forget(key));
    }
    lock(&node.lost).extend(lost);
}

async fn enter(node: &Arc<Node>, taken: Vec<(ShardNo, Epoch)>) {
    let Some(highest) = taken.iter().map(|(_, epoch)| epoch.0).max() else {
        return;
    };
    if let Err(error) = node.state_dir.raise_epoch_floor(highest) {
        tracing::error!(%error, "the highest epoch could not be written to the state directory");
    }
    let shards: Vec<ShardNo> = taken.iter().map(|(shard, _)| *shard).collect();
    if take_over(node, &taken).await {
        carry_out_first(node, &shards).await;
        tracing::info!(shards = shards.len(), "shards taken");
        node.reader.start(shards);
    } else {
        // Given back or lapsed: they are taken again, and then it may work.
        give_back(node, &shards).await;
    }
}

/// A restarted node has handed in all it knows: about the shards that others own now, nothing more
/// will come.
async fn close_earlier_life(node: &Node) {
    let epoch = Epoch(node.state_dir.epoch_floor());
    let group = node.config.queue_group;
    let rows = patiently(node, "read the leases", || node.store.shards(group)).await;
    let rows = rows.unwrap_or_default();
    let marks: Vec<HandIn> = rows
        .iter()
        .filter(|row| epoch.0 > 0 && !node.ownership.holds(row.shard))
        .map(|row| HandIn {
            shard: row.shard,
            epoch,
            settlement: None,
        })
        .collect();
    hand_in_marks(node, &marks).await;
}

async fn hand_in_marks(node: &Node, marks: &[HandIn]) {
    if !marks.is_empty() {
        patiently(node, "close what was handed in", || {
            node.store.hand_in(node.id(), marks)
        })
        .await;
    }
}

/// Shards that another live node should own go to it once nothing of theirs is in memory, or after
/// `patience`: one slow delivery must not keep the others of its shard waiting.
async fn release_leaving(node: &Node, patience: Duration) {
    let leaving = node.ownership.leaving();
    for (shard, _) in &leaving {
        let dropped = node.paths.extract(|waiting| waiting.row.shard == *shard);
        dropped
            .iter()
            .for_each(|waiting| node.memory.forget(waiting.row.key));
    }
    let ready: Vec<ShardNo> = leaving
        .into_iter()
        .filter(|(shard, since)| *since > patience || node.memory.held_of(*shard) == 0)
        .map(|(shard, _)| shard)
        .collect();
    give_back(node, &ready).await;
}

async fn give_back(node: &Node, shards: &[ShardNo]) {
    if shards.is_empty() {
        return;
    }
    match node.ownership.release(&node.store, shards).await {
        Ok(released) => leave(node, released),
        Err(error) => tracing::warn!(error = %error, "shards could not be released, trying again"),
    }
}

/// Once nothing of a lost shard is open any more, its new owner need not wait for us.
pub(crate) async fn mark_lost_shards(node: &Node) {
    let clear: Vec<(ShardNo, Epoch)> = {
        let mut lost = lock(&node.lost);
        let is_clear = |lease: &mut (ShardNo, Epoch)| node.gate.is_clear(lease.0, lease.1);
        lost.extract_if(.., is_clear).collect()
    };
    let marks: Vec<HandIn> = clear
        .into_iter()
        .map(|(shard, epoch)| HandIn {
            shard,
            epoch,
            settlement: None,
        })
        .collect();
    hand_in_marks(node, &marks).await;
}

#[cfg(test)]
mod tests;
