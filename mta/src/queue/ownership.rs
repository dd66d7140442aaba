//! Which shards this node owns, and until when it may act on that.
//!
//! Live nodes share the shards of a queue group by rendezvous hashing, so that everybody agrees
//! without talking. A shard changes hands by release after draining, or by lapse. All that counts
//! is the fence in PostgreSQL; the deadline here only stops us from starting what would be refused.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use mail::ids::NodeId;
use mail::retry::StreamClass;
use store::{Epoch, Fence, LeaseRow, ShardNo, Store, StoreError};
use time::OffsetDateTime;

use crate::config::MtaConfig;
use crate::sync::lock;

/// The node's clock and the server's may differ by this much; beyond, no final dot is sent.
/// Half of it keeps `cancel_direct` (which trusts a minute) honest between any two nodes.
pub const CLOCK_SKEW_MAX: Duration = Duration::from_secs(20);

/// Shards this node owns.
#[derive(Debug)]
pub(crate) struct Ownership {
    id: NodeId,
    name: String,
    group: i16,
    ttl: Duration,
    real_time: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    held: BTreeMap<ShardNo, Epoch>,
    classes: BTreeMap<ShardNo, StreamClass>,
    /// Held, but another node's by rendezvous, and since when: no new work, released when drained.
    leaving: HashMap<ShardNo, Instant>,
    deadline: Option<Instant>,
    skewed: bool,
    /// Found lost and not yet told.
    lost: Vec<(ShardNo, Epoch)>,
}

impl Ownership {
    pub(crate) fn new(id: NodeId, config: &MtaConfig) -> Self {
        Self {
            id,
            name: config.node_name.clone(),
            group: config.queue_group,
            ttl: config.lease_ttl,
            real_time: config.real_time,
            state: Mutex::default(),
        }
    }

    pub(crate) fn id(&self) -> NodeId {
        self.id
    }

    /// The fence of those of `shards` that are held.
    pub(crate) fn fence(&self, shards: impl IntoIterator<Item = ShardNo>) -> Fence {
        let state = lock(&self.state);
        let mut held: Vec<(ShardNo, Epoch)> = shards
            .into_iter()
            .filter_map(|shard| state.held.get(&shard).map(|epoch| (shard, *epoch)))
            .collect();
        held.sort_unstable();
        held.dedup();
        Fence {
            owner: self.id,
            held,
        }
    }

    pub(crate) fn held(&self) -> Vec<(ShardNo, Epoch)> {
        lock(&self.state)
            .held
            .iter()
            .map(|(shard, epoch)| (*shard, *epoch))
            .collect()
    }

    pub(crate) fn holds(&self, shard: ShardNo) -> bool {
        lock(&self.state).held.contains_key(&shard)
    }

    /// Shards that take new work here, of one class.
    pub(crate) fn preferred(&self, class: StreamClass) -> Vec<ShardNo> {
        let state = lock(&self.state);
        let fits = |shard: &&ShardNo| {
            state.classes.get(shard) == Some(&class) && !state.leaving.contains_key(shard)
        };
        state.held.keys().filter(fits).copied().collect()
    }

    pub(crate) fn class_of(&self, shard: ShardNo) -> StreamClass {
        lock(&self.state)
            .classes
            .get(&shard)
            .copied()
            .unwrap_or(StreamClass::Transactional)
    }

    /// True while the leases are surely ours by the monotonic clock and the domain clock is right.
    pub(crate) fn may_start(&self, shard: ShardNo) -> bool {
        let state = lock(&self.state);
        !state.skewed
            && state
                .deadline
                .is_some_and(|deadline| Instant::now() < deadline)
            && state.held.contains_key(&shard)
    }

    /// True while what is held may be acted on at all.
    pub(crate) fn is_current(&self) -> bool {
        let state = lock(&self.state);
        !state.skewed
            && state
                .deadline
                .is_some_and(|deadline| Instant::now() < deadline)
    }

    /// True if new deliveries of the shard are to be read.
    pub(crate) fn reads(&self, shard: ShardNo) -> bool {
        let state = lock(&self.state);
        state.held.contains_key(&shard) && !state.leaving.contains_key(&shard)
    }

    /// Shards to be given away, and for how long they have been.
    pub(crate) fn leaving(&self) -> Vec<(ShardNo, Duration)> {
        let state = lock(&self.state);
        state
            .leaving
            .iter()
            .map(|(shard, since)| (*shard, since.elapsed()))
            .collect()
    }

    /// Renews what is held; nothing else, for a node that is stopping.
    pub(crate) async fn keep(&self, store: &Store, now: OffsetDateTime) -> Result<(), StoreError> {
        self.renew(store, Instant::now(), now).await
    }

    /// One round: say that we live, renew, take what is ours, note what is not.
    pub(crate) async fn round(
        &self,
        store: &Store,
        epoch_floor: i64,
        now: OffsetDateTime,
    ) -> Result<Vec<(ShardNo, Epoch)>, StoreError> {
        let begun = Instant::now();
        // First of all: what is held must not lapse because something else takes long.
        self.renew(store, begun, now).await?;
        let alive = store
            .heartbeat(self.id, &self.name, self.group, self.ttl)
            .await?;
        let rows = store.shards(self.group).await?;
        let wanted: HashSet<ShardNo> = rows
            .iter()
            .map(|row| row.shard)
            .filter(|shard| rendezvous(*shard, &alive) == Some(self.id))
            .collect();
        let free = self.note(&rows, &wanted);
        if free.is_empty() {
            return Ok(Vec::new());
        }
        let taken = store.take(self.id, &free, self.ttl, epoch_floor).await?;
        let mut state = lock(&self.state);
        state.held.extend(taken.iter().copied());
        state.deadline = Some(begun + self.usable());
        Ok(taken)
    }

    /// Shards found lost since the last call.
    pub(crate) fn take_lost(&self) -> Vec<(ShardNo, Epoch)> {
        std::mem::take(&mut lock(&self.state).lost)
    }

    /// Renews what is held and notes what turned out to be lost.
    async fn renew(
        &self,
        store: &Store,
        begun: Instant,
        now: OffsetDateTime,
    ) -> Result<(), StoreError> {
        let fence = Fence {
            owner: self.id,
            held: self.held(),
        };
        if fence.held.is_empty() {
            return Ok(());
        }
        let renewed = store.renew(&fence, self.ttl).await?;
        let still: HashSet<ShardNo> = renewed.still_held.into_iter().collect();
        let mut state = lock(&self.state);
        state.deadline = Some(begun + self.usable());
        let skew = (renewed.server_now - now).abs();
        state.skewed = self.real_time && skew > CLOCK_SKEW_MAX;
        if state.skewed {
            tracing::error!(
                skew_secs = skew.whole_seconds(),
                "the clock of this machine and PostgreSQL's differ too much: nothing is sent until they \
                 agree (check NTP on both)"
            );
        }
        for (shard, epoch) in fence.held {
            if !still.contains(&shard) && state.held.get(&shard) == Some(&epoch) {
                state.held.remove(&shard);
                state.leaving.remove(&shard);
                state.lost.push((shard, epoch));
            }
        }
        Ok(())
    }

    /// Remembers classes and who has to leave; returns the wanted shards that can be taken.
    fn note(&self, rows: &[LeaseRow], wanted: &HashSet<ShardNo>) -> Vec<ShardNo> {
        let mut state = lock(&self.state);
        state.classes = rows.iter().map(|row| (row.shard, row.class)).collect();
        let State { held, leaving, .. } = &mut *state;
        leaving.retain(|shard, _| !wanted.contains(shard));
        for shard in held.keys().filter(|shard| !wanted.contains(shard)) {
            leaving.entry(*shard).or_insert_with(Instant::now);
        }
        rows.iter()
            .filter(|row| wanted.contains(&row.shard) && !state.held.contains_key(&row.shard))
            .filter(|row| row.lapsed || row.owner.is_none_or(|owner| owner == self.id))
            .map(|row| row.shard)
            .collect()
    }

    /// Gives shards back. Returns under which epochs they were held.
    pub(crate) async fn release(
        &self,
        store: &Store,
        shards: &[ShardNo],
    ) -> Result<Vec<(ShardNo, Epoch)>, StoreError> {
        let fence = self.fence(shards.iter().copied());
        if fence.held.is_empty() {
            return Ok(Vec::new());
        }
        store.release(&fence).await?;
        let mut state = lock(&self.state);
        for (shard, _) in &fence.held {
            state.held.remove(shard);
            state.leaving.remove(shard);
        }
        Ok(fence.held)
    }

    /// How long after its request a lease is surely ours: the margin covers slow clocks and the
    /// time between a check and what it allowed.
    fn usable(&self) -> Duration {
        self.ttl - self.ttl / 3
    }
}

/// The live node with the highest hash for this shard: all nodes compute the same answer, and a
/// node that comes or goes moves only its own share.
fn rendezvous(shard: ShardNo, alive: &[NodeId]) -> Option<NodeId> {
    alive.iter().copied().max_by_key(|node| {
        let (high, low) = node.uuid().as_u64_pair();
        (mix(mix(high) ^ mix(low ^ shard.0 as u64)), node.uuid())
    })
}

/// The finaliser of SplitMix64: nodes built by different compilers must agree, so the standard
/// library's hasher will not do.
fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn node(number: u128) -> NodeId {
        NodeId::from_uuid(Uuid::from_u128(number))
    }

    #[test]
    fn every_shard_has_one_owner_and_a_death_moves_only_its_own() {
        let all = [node(1), node(2), node(3)];
        let survivors = [node(1), node(3)];
        for shard in (0..64).map(ShardNo) {
            let before = rendezvous(shard, &all).unwrap();
            let after = rendezvous(shard, &survivors).unwrap();
            if before != node(2) {
                assert_eq!(before, after, "shard {shard:?} moved without need");
            }
        }
        assert_eq!(rendezvous(ShardNo(1), &[]), None);
    }

    #[test]
    fn shards_spread_over_nodes() {
        let all = [node(10), node(20)];
        let first = (0..64)
            .filter(|n| rendezvous(ShardNo(*n), &all) == Some(node(10)))
            .count();
        assert!((16..=48).contains(&first), "{first} of 64");
    }
}
