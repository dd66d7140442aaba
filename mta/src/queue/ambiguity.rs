//! Deliveries that a node may have sent without anybody knowing: the final dot was allowed under an
//! older epoch and no outcome is settled. They wait for the old node's journal (hand in), at most
//! `ambiguous_hold`; then the stream's policy decides. Everything else of a shard goes at once.

use std::collections::{BTreeSet, HashMap};
use std::sync::Mutex;
use std::time::Duration;

use mail::ids::NodeId;
use store::{DeliveryKey, Epoch, HandIn, OpenIntent, QueueRow, ShardNo};
use time::OffsetDateTime;

use super::settler::{Unsettled, patiently};
use crate::delivery::undecided;
use crate::node::Node;
use crate::sync::lock;

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
}

/// What to do with a row that was read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Suspicion {
    /// Nothing is open about it.
    None,
    /// Its outcome may still be handed in.
    Wait,
    /// Nobody will ever tell: the stream's policy decides.
    Undecided,
}

impl Ambiguity {
    fn load(&self, me: NodeId, intents: Vec<OpenIntent>) {
        let mut state = lock(&self.state);
        for intent in intents {
            state.older.entry(intent.shard).or_default().insert(intent.epoch);
            let newer = state.open.get(&intent.key).is_some_and(|open| open.attempt > intent.attempt);
            if !newer {
                let open = Open {
                    shard: intent.shard,
                    epoch: intent.epoch,
                    owner: intent.owner,
                    attempt: intent.attempt,
                    noted_at: intent.noted_at,
                    // Our own journal was replayed before: what it does not know nobody knows.
                    closed: intent.owner == me,
                };
                state.open.insert(intent.key, open);
            }
        }
    }

    /// Looks at a row that was read; keeps it if it has to wait.
    pub(crate) fn suspect(&self, row: &QueueRow, now: OffsetDateTime, hold: Duration) -> Suspicion {
        let mut state = lock(&self.state);
        let State { open, waiting, .. } = &mut *state;
        match open.get(&row.key) {
            Some(entry) if entry.attempt == row.attempt => {
                if entry.closed || entry.noted_at + hold <= now {
                    open.remove(&row.key);
                    return Suspicion::Undecided;
                }
                waiting.insert(row.key, row.clone());
                Suspicion::Wait
            }
            Some(_) => {
                open.remove(&row.key);
                Suspicion::None
            }
            None => Suspicion::None,
        }
    }

    /// The whole shard was read once since it was taken: what was open and not seen is settled.
    /// Returns older epochs whose intents nobody needs any more.
    pub(crate) fn read_through(&self, shard: ShardNo) -> Vec<(ShardNo, Epoch)> {
        let mut state = lock(&self.state);
        let State { open, waiting, older } = &mut *state;
        open.retain(|key, entry| entry.shard != shard || waiting.contains_key(key));
        if waiting.values().any(|row| row.shard == shard) {
            return Vec::new();
        }
        older.remove(&shard).into_iter().flatten().map(|epoch| (shard, epoch)).collect()
    }

    pub(crate) fn lost(&self, shard: ShardNo) -> Vec<DeliveryKey> {
        let mut state = lock(&self.state);
        state.open.retain(|_, open| open.shard != shard);
        state.older.remove(&shard);
        state.waiting.extract_if(|_, row| row.shard == shard).map(|(key, _)| key).collect()
    }

    pub(crate) fn waiting(&self) -> usize {
        lock(&self.state).waiting.len()
    }

    fn resolved(&self, key: DeliveryKey) {
        let mut state = lock(&self.state);
        state.open.remove(&key);
        state.waiting.remove(&key);
    }

    /// A node has nothing more to hand in about a shard, up to an epoch.
    fn close(&self, shard: ShardNo, owner: NodeId, epoch: Epoch) {
        let mut state = lock(&self.state);
        let theirs = |open: &&mut Open| {
            open.shard == shard && open.owner == owner && open.epoch <= epoch
        };
        state.open.values_mut().filter(theirs).for_each(|open| open.closed = true);
    }

    /// Waiting rows for which nothing will come any more.
    fn take_undecided(&self, now: OffsetDateTime, hold: Duration) -> Vec<QueueRow> {
        let mut state = lock(&self.state);
        let State { open, waiting, .. } = &mut *state;
        let over = |key: &DeliveryKey| {
            open.get(key).is_none_or(|open| open.closed || open.noted_at + hold <= now)
        };
        let rows: Vec<QueueRow> =
            waiting.extract_if(|key, _| over(key)).map(|(_, row)| row).collect();
        for row in &rows {
            open.remove(&row.key);
        }
        rows
    }
}

/// Learns what is undecided about shards just taken. After this they can be read.
pub(crate) async fn take_over(node: &Node, taken: &[(ShardNo, Epoch)]) -> bool {
    let opened = patiently(node, "read open intents", || node.store.open_intents(taken)).await;
    let Some(intents) = opened else { return false };
    node.ambiguity.load(node.ownership.id(), intents);
    settle_handed_in(node).await;
    true
}

/// Settles what other nodes handed in about our shards, then what nobody will tell about.
pub(crate) async fn settle_handed_in(node: &Node) {
    let shards: Vec<ShardNo> = node.ownership.held().into_iter().map(|(shard, _)| shard).collect();
    match node.store.handed_in(&shards).await {
        Ok(entries) if !entries.is_empty() => accept(node, entries).await,
        Ok(_) => {}
        Err(error) => tracing::warn!(error = %error, "could not read what was handed in"),
    }
    let hold = node.config.ambiguous_hold;
    for row in node.ambiguity.take_undecided(node.clock.now(), hold) {
        decide(node, row).await;
    }
}

async fn accept(node: &Node, entries: Vec<(uuid::Uuid, NodeId, HandIn)>) {
    let ids: Vec<uuid::Uuid> = entries.iter().map(|(id, ..)| *id).collect();
    // Outcomes before "nothing more": a mark closes what no outcome came for.
    let (outcomes, marks): (Vec<_>, Vec<_>) =
        entries.into_iter().partition(|(.., entry)| entry.settlement.is_some());
    for (_, _, entry) in outcomes {
        if let Some(settlement) = entry.settlement {
            let key = settlement.row.key;
            let fence = node.ownership.fence([settlement.row.shard]);
            // Not settled means that it was settled before, or that this shard is lost again; then
            // the entry stays for the next owner.
            if !node.ownership.holds(settlement.row.shard) {
                continue;
            }
            match node.store.settle(&fence, std::slice::from_ref(&settlement)).await {
                Ok(settled) => {
                    node.ambiguity.resolved(key);
                    node.memory.settled(key);
                    if settled == [true] {
                        let kind = settlement.event.kind.as_str();
                        node.metrics.outcomes.with_label_values(&[kind]).inc();
                    }
                }
                Err(error) => {
                    tracing::warn!(error = %error, "could not settle what was handed in, trying again");
                    return;
                }
            }
        }
    }
    for (_, owner, entry) in marks {
        node.ambiguity.close(entry.shard, owner, entry.epoch);
    }
    if let Err(error) = node.store.drop_handed_in(&ids).await {
        tracing::warn!(error = %error, "could not clear what was handed in; it is read again");
    }
}

/// Lets the stream's policy decide about a delivery of which nobody knows whether it was sent.
pub(crate) async fn decide(node: &Node, row: QueueRow) {
    match undecided(node, row.clone()).await {
        Ok(settlement) => {
            node.settler.queue(Unsettled { settlement, ticket: None, intent: None });
        }
        Err(error) => {
            tracing::warn!(error = %error, "could not look up a stream; the delivery is read again");
            node.memory.forget(row.key);
        }
    }
}
