//! What a sink has seen: counters, how many different messages, and which are missing. Bounded
//! memory.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::sequence::Sequences;
use super::shared::Fate;

/// Copies of one generation of [`Seen`]; about 16 bytes each. A repeat is told when it comes
/// within so many copies of the first, and within twice as many at most.
const GENERATION_MAX: usize = 4_000_000;

/// The counters of a sink at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StatsSnapshot {
    /// Copies accepted: one per message and recipient.
    pub(crate) received: u64,
    /// Different pairs of id and recipient among them.
    pub(crate) distinct: u64,
    /// Copies whose id and recipient had been accepted before.
    pub(crate) duplicates: u64,
    /// Copies without an id header.
    pub(crate) without_id: u64,
    /// Numbers that were passed over: of ids such as `a-17`, those below the highest of their
    /// series that have not come.
    pub(crate) missing: u64,
    /// Commands answered 5xx on purpose.
    pub(crate) refused: u64,
    /// Commands answered 4xx on purpose.
    pub(crate) deferred: u64,
    /// Connections closed on purpose without a reply.
    pub(crate) dropped: u64,
    /// Messages held without a reply now.
    pub(crate) held: u64,
    /// Connections open now.
    pub(crate) connections: u64,
    /// Connections since the start.
    pub(crate) connections_total: u64,
    /// Octets of accepted content, as they came on the wire.
    pub(crate) bytes: u64,
    /// Messages that came through TLS.
    pub(crate) tls: u64,
    /// Calls of POST /webhooks.
    pub(crate) webhook_calls: u64,
}

/// Live counters, shared by all sessions.
#[derive(Debug, Default)]
pub(super) struct Stats {
    received: AtomicU64,
    without_id: AtomicU64,
    refused: AtomicU64,
    deferred: AtomicU64,
    dropped: AtomicU64,
    held: AtomicU64,
    connections: AtomicU64,
    connections_total: AtomicU64,
    bytes: AtomicU64,
    tls: AtomicU64,
    webhook_calls: AtomicU64,
    seen: Mutex<Seen>,
    hasher: RandomState,
}

/// The ids that came: two generations of hashes. When the younger is full the older is forgotten.
#[derive(Debug, Default)]
struct Seen {
    /// 64 bits: among eight million ids a false repeat has a chance of 1 in half a million.
    young: HashSet<u64>,
    old: HashSet<u64>,
    distinct: u64,
    duplicates: u64,
    sequences: Sequences,
}

impl Seen {
    fn note(&mut self, hash: u64, id: &str, generation_max: usize) {
        if self.old.contains(&hash) || !self.young.insert(hash) {
            self.duplicates += 1;
            return;
        }
        self.distinct += 1;
        self.sequences.note(id);
        if self.young.len() >= generation_max {
            self.old = std::mem::take(&mut self.young);
        }
    }
}

impl Stats {
    pub(super) fn connected(&self) {
        add(&self.connections, 1);
        add(&self.connections_total, 1);
    }

    pub(super) fn disconnected(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn held(&self) {
        add(&self.held, 1);
    }

    pub(super) fn released(&self) {
        self.held.fetch_sub(1, Ordering::Relaxed);
    }

    /// A command that was answered so on purpose.
    pub(super) fn not_accepted(&self, fate: Fate) {
        add(
            match fate {
                Fate::Deferred => &self.deferred,
                Fate::Refused => &self.refused,
                Fate::Accepted | Fate::Dropped | Fate::Held => &self.dropped,
            },
            1,
        );
    }

    pub(super) fn webhook_called(&self) {
        add(&self.webhook_calls, 1);
    }

    pub(super) fn accepted_content(&self, octets: u64, tls: bool) {
        add(&self.bytes, octets);
        add(&self.tls, u64::from(tls));
    }

    /// One accepted copy.
    pub(super) fn accepted_copy(&self, id: Option<&str>, recipient: &str) {
        add(&self.received, 1);
        match id {
            None => add(&self.without_id, 1),
            Some(id) => {
                let hash = self.hasher.hash_one((id, recipient));
                self.seen().note(hash, id, GENERATION_MAX);
            }
        }
    }

    pub(super) fn snapshot(&self) -> StatsSnapshot {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let seen = self.seen();
        StatsSnapshot {
            received: get(&self.received),
            distinct: seen.distinct,
            duplicates: seen.duplicates,
            missing: seen.sequences.missing(),
            without_id: get(&self.without_id),
            refused: get(&self.refused),
            deferred: get(&self.deferred),
            dropped: get(&self.dropped),
            held: get(&self.held),
            connections: get(&self.connections),
            connections_total: get(&self.connections_total),
            bytes: get(&self.bytes),
            tls: get(&self.tls),
            webhook_calls: get(&self.webhook_calls),
        }
    }

    /// What is known of each series of ids, as JSON.
    ///
    /// # Errors
    /// It cannot be written as JSON.
    pub(super) fn series(&self) -> serde_json::Result<serde_json::Value> {
        serde_json::to_value(self.seen().sequences.report())
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        // Counting goes on after a panic elsewhere: sets of numbers cannot be half changed.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_are_told_by_id_and_recipient() {
        let stats = Stats::default();
        for (id, recipient) in [("x-0", "a"), ("x-0", "b"), ("x-2", "a"), ("x-0", "a")] {
            stats.accepted_copy(Some(id), recipient);
        }
        stats.accepted_copy(None, "a");
        let seen = stats.snapshot();
        assert_eq!((seen.received, seen.distinct, seen.duplicates), (5, 3, 1));
        assert_eq!((seen.without_id, seen.missing), (1, 1));
    }

    #[test]
    fn old_ids_are_forgotten_and_the_last_ones_are_not() {
        let mut seen = Seen::default();
        for hash in 0..100 {
            seen.note(hash, "", 10);
        }
        assert!(seen.young.len() + seen.old.len() <= 20);
        for hash in 90..100 {
            seen.note(hash, "", 10);
        }
        assert_eq!((seen.distinct, seen.duplicates), (100, 10));
        seen.note(1, "", 10);
        assert_eq!(seen.duplicates, 10);
    }
}
