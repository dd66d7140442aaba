//! Which dispatchers this process holds, and the cursors it leaves for the next holder.
//! Leases decide who makes calls, never whether: one held by two for a moment means calls made
//! twice.

use std::time::Duration;

use mail::ids::NodeId;
use store::StoreError;
use tokio::time::Instant;
use uuid::Uuid;

use super::super::{DISPATCHERS, warn};
use super::{Dispatcher, count};

const TTL: Duration = Duration::from_secs(15);
pub(super) const RENEW_PERIOD: Duration = Duration::from_secs(5);
/// While events come in. After a crash, what was done since the last save is done again.
pub(super) const SAVE_PERIOD: Duration = Duration::from_secs(1);

/// Workers announce themselves like nodes of a queue group that no mail belongs to.
const WORKERS_GROUP: i16 = -1;

/// Who holds the dispatchers of this process.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    owner: Uuid,
    name: String,
}

impl Identity {
    /// The worker of a node. Its id differs from the node's, which sends mail under it.
    pub(crate) fn of_node(node: NodeId, name: String) -> Self {
        Self {
            owner: Uuid::from_u128(node.uuid().as_u128() ^ 1),
            name,
        }
    }

    fn node(&self) -> NodeId {
        NodeId::from_uuid(self.owner)
    }
}

impl Dispatcher {
    /// Renews the leases, takes free ones up to the fair share, and follows the result.
    pub(super) async fn renew(&mut self) {
        // First, as the fair share may have shrunk: who gets the rest should start here.
        self.save().await;
        if let Err(error) = self.take().await {
            warn(&error, "could not renew the webhook dispatchers");
        }
        let failing = self.webhooks.health.failing();
        self.webhooks.metrics.endpoints_failing.set(count(failing));
    }

    async fn take(&mut self) -> Result<(), StoreError> {
        let (store, who) = (&self.webhooks.store, &self.identity);
        let alive = store
            .heartbeat(who.node(), &who.name, WORKERS_GROUP, TTL)
            .await?;
        let share = (DISPATCHERS as usize).div_ceil(alive.len().max(1));
        let leases = store.dispatchers_take(who.owner, TTL, share).await?;
        let is_new = self.window.hold(&leases);
        self.announce();
        if is_new {
            // The cursor of a new lease may be of any age.
            self.lowest = Uuid::nil();
            self.next_read = Instant::now();
            for endpoint in self.webhooks.store.endpoints_with_pending().await? {
                self.webhooks.health.suspect(endpoint);
            }
        }
        Ok(())
    }

    /// Writes down how far everything is done.
    pub(super) async fn save(&mut self) {
        self.next_save = Instant::now() + RENEW_PERIOD;
        let cursors = self.window.to_save();
        if cursors.is_empty() {
            return;
        }
        let store = &self.webhooks.store;
        match store.dispatchers_save(self.identity.owner, &cursors).await {
            Ok(still_held) => {
                self.window.saved(&cursors, &still_held);
                self.announce();
            }
            Err(error) => warn(&error, "could not save the webhook cursors"),
        }
    }

    /// Gives every lease back, for others to take at once.
    pub(super) async fn release(&self) -> Result<(), StoreError> {
        let (store, who) = (&self.webhooks.store, &self.identity);
        let held = self.window.held();
        store.dispatchers_release(who.owner, &held).await?;
        // Counted among the living no more, so that the others' fair share grows at once.
        store
            .heartbeat(who.node(), &who.name, WORKERS_GROUP, Duration::ZERO)
            .await?;
        Ok(())
    }

    fn announce(&self) {
        let numbers = self.window.numbers();
        self.webhooks.metrics.dispatchers.set(count(numbers.len()));
        self.webhooks.held.send_replace(numbers);
    }
}
