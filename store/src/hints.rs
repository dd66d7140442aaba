//! Hints between those who accept mail and those who send it. Any of them may be lost: owners also
//! poll, and acceptors choose any shard.

use std::collections::BTreeSet;
use std::sync::Arc;

use mail::retry::StreamClass;

use crate::content::StoredMessage;
use crate::numbers::ShardNo;
use crate::queue::QueueRow;
use crate::redis_wake::RedisWake;

/// Where to put new mail, and whom to tell about it. Called on the acceptor's tasks: must not wait.
pub trait QueueHints: Send + Sync {
    /// Shards of that class this process owns; empty when it owns none.
    fn preferred(&self, class: StreamClass) -> Vec<ShardNo>;

    /// Whether the messages themselves are of use to somebody in this process.
    fn takes_messages(&self) -> bool {
        false
    }

    /// These rows are committed, and these are messages of them: those that are due at once and
    /// whole, if [`takes_messages`](Self::takes_messages) says so.
    fn accepted(&self, rows: Vec<QueueRow>, messages: Vec<Arc<StoredMessage>>);

    /// Commands for these shards are noted.
    fn commanded(&self, _shards: &[ShardNo]) {}
}

/// Any shard, nobody to tell.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoHints;

impl QueueHints for NoHints {
    fn preferred(&self, _class: StreamClass) -> Vec<ShardNo> {
        Vec::new()
    }

    fn accepted(&self, _rows: Vec<QueueRow>, _messages: Vec<Arc<StoredMessage>>) {}
}

/// Wakes the owners of the shards over Redis.
#[derive(Debug, Clone)]
pub struct RedisHints {
    wake: RedisWake,
}

impl RedisHints {
    /// Hints through this connection.
    pub fn new(wake: RedisWake) -> Self {
        Self { wake }
    }
}

impl QueueHints for RedisHints {
    fn preferred(&self, _class: StreamClass) -> Vec<ShardNo> {
        Vec::new()
    }

    fn accepted(&self, rows: Vec<QueueRow>, _messages: Vec<Arc<StoredMessage>>) {
        let shards: BTreeSet<ShardNo> = rows.iter().map(|row| row.shard).collect();
        self.wake.publish(&shards.into_iter().collect::<Vec<_>>());
    }

    fn commanded(&self, shards: &[ShardNo]) {
        self.wake.publish(shards);
    }
}
