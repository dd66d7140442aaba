//! Deliveries that a node may have sent without anybody knowing: the final dot was allowed under an
//! older epoch and no outcome is settled. They wait for the old node's journal (hand in), at most
//! `ambiguous_hold`; then the stream's policy decides. Everything else of a shard goes at once.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Mutex;
use std::time::Duration;

use mail::ids::NodeId;
use store::{DeliveryKey, Epoch, HandIn, OpenIntent, QueueRow, Settlement, ShardNo};
use time::OffsetDateTime;
use uuid::Uuid;

use super::settler::{Unsettled, leases, patiently};
use crate::delivery::undecided;
use crate::node::Node;
use crate::sync::lock;

/// Entries read at once; settled in one statement.
const HAND_INS_MAX: i64 = 200;
const HAND_IN_PAUSE: Duration = Duration::from_millis(200);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Ambiguity {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    open: HashMap<DeliveryKey, Open>,
    waiting: HashMap<DeliveryKey, QueueRow>,
    /// Older epochs whose intents are still in PostgreSQL.
    older: HashMap<ShardNo, BTreeSet<Epoch>>,
    /// Shards of which every due row was read since they were taken.
    read_through: HashSet<ShardNo>,
}

#[derive(Debug)]
struct Open {
    shard: ShardNo,
    epoch: Epoch,
    owner: NodeId,
    attempt: u16,
    noted_at: OffsetDateTime,
    /// The old node has no outcome for it: nothing to wait for.
    closed: bool,
    /// Read, and not settled yet. What is never read was settled long ago.
    seen: bool,
}

/// What to do with a row that was read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Suspicion {
    /// Nothing is open about it.
    None,
    /// It is in doubt: its outcome may be handed in, or the stream's policy decides.
    Open,
}

impl Ambiguity {
    fn load(&self, me: NodeId, intents: Vec<OpenIntent>) {
        let mut state = lock(&self.state);
        for intent in intents {
            state
                .older
                .entry(intent.shard)
                .or_default()
                .insert(intent.epoch);
            let newer = state
                .open
                .get(&intent.key)
                .is_some_and(|open| open.attempt > intent.attempt);
            if !newer {
                let open = Open {
                    shard: intent.shard,
                    epoch: intent.epoch,
                    owner: intent.owner,
                    attempt: intent.attempt,
                    noted_at: intent.noted_at,
                    // Our own journal was replayed before: what it does not know nobody knows.
                    closed: intent.owner == me,
                    seen: false,
                };
                state.open.insert(intent.key, open);
            }
        }
    }

    /// Looks at a row that was read; keeps it if it is in doubt.
    pub(crate) fn suspect(&self, row: &QueueRow) -> Suspicion {
        let mut state = lock(&self.state);
        let State { open, waiting, .. } = &mut *state;
        match open.get_mut(&row.key) {
            Some(entry) if entry.attempt == row.attempt => {
                entry.seen = true;
                waiting.insert(row.key, row.clone());
                Suspicion::Open
            }
            Some(entry) if entry.attempt < row.attempt => {
                open.remove(&row.key);
                Suspicion::None
            }
            _ => Suspicion::None,
        }
    }

    /// Every due row of the shard was read since it was taken: what is open and was not seen is
    /// settled.
    pub(crate) fn read_through(&self, shard: ShardNo) {
        let mut state = lock(&self.state);
        state
            .open
            .retain(|_, open| open.shard != shard || open.seen);
        state.read_through.insert(shard);
    }

    /// Older epochs whose intents nobody needs any more.
    pub(crate) fn take_finished(&self) -> Vec<(ShardNo, Epoch)> {
        let mut state = lock(&self.state);
        let State {
            open,
            older,
            read_through,
            ..
        } = &mut *state;
        let busy: HashSet<ShardNo> = open.values().map(|open| open.shard).collect();
        older
            .extract_if(|shard, _| read_through.contains(shard) && !busy.contains(shard))
            .flat_map(|(shard, epochs)| epochs.into_iter().map(move |epoch| (shard, epoch)))
            .collect()
    }

    pub(crate) fn lost(&self, shard: ShardNo) -> Vec<DeliveryKey> {
        let mut state = lock(&self.state);
        state.open.retain(|_, open| open.shard != shard);
        state.older.remove(&shard);
        state.read_through.remove(&shard);
        state
            .waiting
            .extract_if(|_, row| row.shard == shard)
            .map(|(key, _)| key)
            .collect()
    }

    pub(crate) fn waiting(&self) -> usize {
        lock(&self.state).waiting.len()
    }

    /// The attempt has an outcome that is settled: no doubt is left.
    pub(crate) fn resolved(&self, key: DeliveryKey, attempt: u16) {
        let mut state = lock(&self.state);
        if state
            .open
            .get(&key)
            .is_some_and(|open| open.attempt == attempt)
        {
            state.open.remove(&key);
            state.waiting.remove(&key);
        }
    }

    /// A node has nothing more to hand in about a shard, up to an epoch.
    fn close(&self, shard: ShardNo, owner: NodeId, epoch: Epoch) {
        let mut state = lock(&self.state);
        let theirs =
            |open: &&mut Open| open.shard == shard && open.owner == owner && open.epoch <= epoch;
        state
            .open
            .values_mut()
            .filter(theirs)
            .for_each(|open| open.closed = true);
    }

    /// Waiting rows for which nothing will come any more. They stay open until they are settled.
    fn take_undecided(&self, now: OffsetDateTime, hold: Duration) -> Vec<QueueRow> {
        let mut state = lock(&self.state);
        let State { open, waiting, .. } = &mut *state;
        let over = |key: &DeliveryKey| {
            open.get(key)
                .is_none_or(|open| open.closed || open.noted_at + hold <= now)
        };
        waiting
            .extract_if(|key, _| over(key))
            .map(|(_, row)| row)
            .collect()
    }

    /// The decision could not be made now.
    fn put_back(&self, row: QueueRow) {
        lock(&self.state).waiting.insert(row.key, row);
    }
}

/// Learns what is undecided about shards just taken, and settles what was handed in about them.
/// After this they can be read. False when PostgreSQL will not say.
pub(crate) async fn take_over(node: &Node, taken: &[(ShardNo, Epoch)]) -> bool {
    let opened = patiently(node, "read open intents", || node.store.open_intents(taken)).await;
    let Some(intents) = opened else { return false };
    node.ambiguity.load(node.ownership.id(), intents);
    let shards: Vec<ShardNo> = taken.iter().map(|(shard, _)| *shard).collect();
    while !settle_handed_in(node, &shards).await {
        if node.killed.is_cancelled() {
            return false;
        }
        tokio::time::sleep(HAND_IN_PAUSE).await;
    }
    true
}

/// Settles what was handed in about these shards. False if that has to be tried again.
pub(crate) async fn settle_handed_in(node: &Node, shards: &[ShardNo]) -> bool {
    loop {
        let entries = match node.store.handed_in(shards, HAND_INS_MAX).await {
            Ok(entries) if entries.is_empty() => return true,
            Ok(entries) => entries,
            Err(error) => {
                tracing::warn!(error = %error, "could not read what was handed in");
                return false;
            }
        };
        if !accept(node, entries).await {
            return false;
        }
    }
}

/// Lets the stream's policy decide about deliveries for which no outcome will come.
pub(crate) async fn decide_undecided(node: &Node) {
    let hold = node.config.ambiguous_hold;
    for row in node.ambiguity.take_undecided(node.clock.now(), hold) {
        match undecided(node, row.clone()).await {
            Ok(settlement) => {
                node.settler.queue(Unsettled {
                    settlement,
                    ticket: None,
                    intent: None,
                });
            }
            Err(error) => {
                tracing::warn!(error = %error, "could not look up a stream; the delivery waits on");
                node.ambiguity.put_back(row);
            }
        }
    }
}

/// Settles outcomes in one statement and closes what marks say. An entry goes only if the fence it
/// was dealt with under was good: under a stale one "not settled" means nothing, and the entry is
/// the next owner's.
async fn accept(node: &Node, entries: Vec<(Uuid, NodeId, HandIn)>) -> bool {
    let fence = node
        .ownership
        .fence(entries.iter().map(|(.., entry)| entry.shard));
    let settlements: Vec<Settlement> = entries
        .iter()
        .filter_map(|(.., entry)| entry.settlement.clone())
        .collect();
    let settled = match node.store.settle(&fence, &settlements).await {
        Ok(settled) => settled,
        Err(error) => {
            tracing::warn!(error = %error, "could not settle what was handed in, trying again");
            return false;
        }
    };
    let Some(leases) = leases(node).await else {
        return false;
    };
    let me = Some(node.ownership.id());
    let good = |shard: ShardNo| {
        leases
            .get(&shard)
            .is_some_and(|(owner, epoch)| *owner == me && fence.held.contains(&(shard, *epoch)))
    };
    for (settlement, settled) in settlements.iter().zip(settled) {
        if settled {
            node.metrics
                .outcomes
                .with_label_values(&[settlement.event.kind.as_str()])
                .inc();
        }
        if settled || good(settlement.row.shard) {
            node.ambiguity
                .resolved(settlement.row.key, settlement.row.attempt);
            node.memory
                .settled(settlement.row.key, settlement.row.attempt);
        }
    }
    let done: Vec<&(Uuid, NodeId, HandIn)> = entries
        .iter()
        .filter(|(.., entry)| good(entry.shard))
        .collect();
    for (_, owner, entry) in done.iter().filter(|(.., entry)| entry.settlement.is_none()) {
        node.ambiguity.close(entry.shard, *owner, entry.epoch);
    }
    let ids: Vec<Uuid> = done.iter().map(|(id, ..)| *id).collect();
    if let Err(error) = node.store.drop_handed_in(&ids).await {
        tracing::warn!(error = %error, "could not clear what was handed in; it is read again");
        return false;
    }
    ids.len() == entries.len()
}

#[cfg(test)]
mod tests;
