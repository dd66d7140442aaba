//! Sends deliveries back to the queue for later without an attempt: the surplus of a lane, and what
//! waits for a site that rests. One bulk statement; whatever it misses is read again by itself.

use store::{QueueRow, ShardNo};
use time::OffsetDateTime;

use crate::node::Node;

/// Rows in one statement at most.
const BATCH_MAX: usize = 1_000;

/// Parks rows until the given times and forgets them.
pub(crate) async fn park(node: &Node, rows: Vec<(QueueRow, OffsetDateTime)>) {
    for part in rows.chunks(BATCH_MAX) {
        let moves: Vec<(QueueRow, ShardNo, OffsetDateTime)> = part
            .iter()
            // A delivery is not parked past its end, or nobody would say that it expired.
            .map(|(row, until)| (row.clone(), row.shard, (*until).min(row.expires_at)))
            .collect();
        let fence = node.ownership.fence(part.iter().map(|(row, _)| row.shard));
        match node.store.park(&fence, &moves).await {
            Ok(_) => node.metrics.parked.inc_by(part.len() as u64),
            Err(error) => {
                tracing::warn!(error = %error, rows = part.len(), "could not park deliveries; they are read again")
            }
        }
        part.iter().for_each(|(row, _)| node.memory.forget(row.key));
    }
}
