//! What a sink has seen: counters, and how many different messages. Bounded memory.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

/// Ids remembered for telling repeats; about 16 bytes each. What comes beyond is `untracked`.
const IDS_MAX: usize = 20_000_000;

/// The counters of a sink at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct StatsSnapshot {
    /// Copies accepted: one per message and recipient.
    pub(crate) received: u64,
    /// Different pairs of id and recipient among them.
    pub(crate) distinct: u64,
    /// Copies whose id and recipient had been accepted before.
    pub(crate) duplicates: u64,
    /// Copies without an id header.
    pub(crate) without_id: u64,
    /// Copies that came after the memory for ids was full.
    pub(crate) untracked: u64,
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
    /// Octets of accepted content.
    pub(crate) bytes: u64,
    /// Messages that came through TLS.
    pub(crate) tls: u64,
}

/// Live counters, shared by all sessions.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    received: AtomicU64,
    duplicates: AtomicU64,
    without_id: AtomicU64,
    untracked: AtomicU64,
    refused: AtomicU64,
    deferred: AtomicU64,
    dropped: AtomicU64,
    held: AtomicU64,
    connections: AtomicU64,
    connections_total: AtomicU64,
    bytes: AtomicU64,
    tls: AtomicU64,
    /// Hashes of 64 bits: among 20 million ids a false repeat has a chance of 1 in 90,000.
    seen: Mutex<HashSet<u64>>,
    hasher: RandomState,
}

impl Stats {
    pub(crate) fn connected(&self) {
        add(&self.connections, 1);
        add(&self.connections_total, 1);
    }

    pub(crate) fn disconnected(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn held(&self) {
        add(&self.held, 1);
    }

    pub(crate) fn released(&self) {
        self.held.fetch_sub(1, Ordering::Relaxed);
    }

    /// A command that was answered with this code on purpose.
    pub(crate) fn not_accepted(&self, result: &str) {
        add(
            match result {
                "deferred" => &self.deferred,
                "refused" => &self.refused,
                _ => &self.dropped,
            },
            1,
        );
    }

    pub(crate) fn accepted_content(&self, octets: usize, tls: bool) {
        add(&self.bytes, octets as u64);
        add(&self.tls, u64::from(tls));
    }

    /// One accepted copy.
    pub(crate) fn accepted_copy(&self, id: Option<&str>, recipient: &str) {
        add(&self.received, 1);
        let Some(id) = id else {
            return add(&self.without_id, 1);
        };
        let hash = self.hasher.hash_one((id, recipient));
        // Counting goes on after a panic elsewhere: a set of numbers cannot be half changed.
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.contains(&hash) {
            add(&self.duplicates, 1);
        } else if seen.len() < IDS_MAX {
            seen.insert(hash);
        } else {
            add(&self.untracked, 1);
        }
    }

    pub(crate) fn snapshot(&self) -> StatsSnapshot {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let distinct = self
            .seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len() as u64;
        StatsSnapshot {
            received: get(&self.received),
            distinct,
            duplicates: get(&self.duplicates),
            without_id: get(&self.without_id),
            untracked: get(&self.untracked),
            refused: get(&self.refused),
            deferred: get(&self.deferred),
            dropped: get(&self.dropped),
            held: get(&self.held),
            connections: get(&self.connections),
            connections_total: get(&self.connections_total),
            bytes: get(&self.bytes),
            tls: get(&self.tls),
        }
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
        for (id, recipient) in [("1", "a"), ("1", "b"), ("2", "a"), ("1", "a")] {
            stats.accepted_copy(Some(id), recipient);
        }
        stats.accepted_copy(None, "a");
        let seen = stats.snapshot();
        assert_eq!((seen.received, seen.distinct, seen.duplicates), (5, 3, 1));
        assert_eq!(seen.without_id, 1);
    }
}
