//! Who owns the queue while the interface is tested: it carries commands out, and settles what it is
//! told to.

use std::time::Duration;

use mail::event::EventType;
use mail::ids::{EventId, MessageId, NodeId};
use store::{Cursor, EventFlags, Fence, NewEvent, QueueRow, Settlement, Store};
use tokio::task::JoinHandle;

use crate::platform::{Platform, fresh_uuid};

pub(crate) const TTL: Duration = Duration::from_secs(60);

/// Owns all shards, and carries commands out as long as it lives.
pub(crate) struct Owner {
    pub(crate) fence: Fence,
    task: JoinHandle<()>,
}

impl Owner {
    pub(crate) async fn start(platform: &Platform) -> Self {
        let store = platform.state.store.clone();
        let owner = NodeId::from_uuid(fresh_uuid());
        let shards = store.all_shards().await.unwrap();
        let held = store.take(owner, &shards, TTL, 0).await.unwrap();
        let fence = Fence { owner, held };
        let (state, own) = (platform.state.clone(), fence.clone());
        let task = tokio::spawn(async move {
            loop {
                let open = store.open_commands(&shards, 200, 50).await.unwrap();
                let found = store.find_commands(&open).await.unwrap();
                let now = state.clock.now();
                store.run_commands(&own, &found, now).await.unwrap();
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        Self { fence, task }
    }

    /// Delivers a message, as far as its events tell.
    pub(crate) async fn deliver(&self, store: &Store, rows: &[QueueRow]) {
        let event = |row: &QueueRow| NewEvent {
            id: EventId::from_uuid(fresh_uuid()),
            kind: EventType::EmailDelivered,
            sequence: row.attempt + 2,
            attempt: row.attempt + 1,
            flags: EventFlags::FINAL,
            class: None,
            code: None,
            enhanced: None,
            source: None,
            mx: None,
            tls: None,
            reply: None,
            duration_ms: None,
            transcript: None,
        };
        let settlements: Vec<Settlement> = rows
            .iter()
            .map(|row| Settlement {
                row: row.clone(),
                next: None,
                event: event(row),
            })
            .collect();
        let settled = store.settle(&self.fence, &settlements).await.unwrap();
        assert!(settled.iter().all(|one| *one));
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(crate) async fn queued(platform: &Platform, id: &str) -> Vec<QueueRow> {
    let id: MessageId = id.parse().unwrap();
    let shards = platform.state.store.all_shards().await.unwrap();
    let cursors: Vec<_> = shards.iter().map(|shard| (*shard, Cursor::START)).collect();
    let until = platform.state.clock.now() + Duration::from_secs(40 * 86_400);
    let mut rows = platform
        .state
        .store
        .poll(&cursors, until, 10_000)
        .await
        .unwrap();
    rows.retain(|row| row.key.message == id);
    rows.sort_by_key(|row| row.key.rcpt);
    rows
}
