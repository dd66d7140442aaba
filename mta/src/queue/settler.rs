//! Outcomes on their way into PostgreSQL. An outcome is first journaled (then the connection may go
//! on), then settled with others in one statement, however long PostgreSQL takes to come back.
//! An outcome of a shard that was lost meanwhile is handed in to whoever owns it now.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mail::event::EventType;
use mail::ids::NodeId;
use store::{BatchPace, Epoch, EventFlags, Fence, HandIn, Settlement, ShardNo, StoreError};
use tokio::sync::mpsc;

use super::Intent;
use crate::journal::{JournalError, Ticket};
use crate::node::Node;
use crate::sync::lock;

/// Outcomes in one statement at most.
const BATCH_MAX: usize = 200;
/// A batch that PostgreSQL cannot finish is halved down to this size.
const HALVED_DOWN_TO: usize = 25;
const WORKERS: usize = 2;
/// With so many waiting a batch begins at once.
const BATCH_FULL: usize = 128;
/// Nobody waits for an outcome to be settled: it is journaled.
const GATHERING_MIN: Duration = Duration::from_millis(25);
const GATHERING_MAX: Duration = Duration::from_millis(50);
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(2);

/// An outcome that is not in PostgreSQL yet.
#[derive(Debug)]
pub(crate) struct Unsettled {
    pub(crate) settlement: Settlement,
    pub(crate) ticket: Option<Ticket>,
    pub(crate) intent: Option<Intent>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Settler {
    outcomes: mpsc::UnboundedSender<Unsettled>,
    unsettled: AtomicUsize,
    /// PostgreSQL will not have these. Their deliveries stay known, so that they are not sent again.
    refused: Mutex<Vec<Unsettled>>,
    pace: BatchPace,
}

impl Settler {
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<Unsettled>) {
        let (outcomes, queue) = mpsc::unbounded_channel();
        let settler = Self {
            outcomes,
            unsettled: AtomicUsize::new(0),
            refused: Mutex::default(),
            pace: BatchPace::new(GATHERING_MIN, GATHERING_MAX),
        };
        (settler, queue)
    }

    /// Outcomes waiting for PostgreSQL. Bounded by the gate, which looks at it.
    pub(crate) fn unsettled(&self) -> usize {
        self.unsettled.load(Ordering::Relaxed)
    }

    /// Outcomes that PostgreSQL refused.
    pub(crate) fn refused(&self) -> usize {
        lock(&self.refused).len()
    }

    /// Offers PostgreSQL again what it refused.
    pub(crate) fn retry_refused(&self) {
        let refused = std::mem::take(&mut *lock(&self.refused));
        refused.into_iter().for_each(|outcome| self.queue(outcome));
    }

    /// Keeps an outcome for good: journaled when this returns, settled soon.
    ///
    /// # Errors
    /// When the journal cannot take it. The outcome is queued for PostgreSQL all the same; only a
    /// crash before that would make it ambiguous.
    pub(crate) async fn submit(
        &self,
        node: &Node,
        settlement: Settlement,
        intent: Option<Intent>,
    ) -> Result<(), JournalError> {
        let journaled = match serde_json::to_vec(&settlement) {
            Ok(record) => node.journal.append(record).await,
            Err(error) => Err(JournalError::Write {
                source: Arc::new(std::io::Error::other(error)),
            }),
        };
        let (ticket, result) = match journaled {
            Ok(ticket) => (Some(ticket), Ok(())),
            Err(error) => (None, Err(error)),
        };
        self.queue(Unsettled {
            settlement,
            ticket,
            intent,
        });
        result
    }

    /// Queues an outcome that needs no journal: losing it repeats work, not mail.
    pub(crate) fn queue(&self, outcome: Unsettled) {
        self.unsettled.fetch_add(1, Ordering::Relaxed);
        if self.outcomes.send(outcome).is_err() {
            // Stopped: the journal has what matters.
            self.unsettled.fetch_sub(1, Ordering::Relaxed);
        }
    }

    pub(crate) const fn workers() -> usize {
        WORKERS
    }

    /// A worker: settles all that waits, batch by batch.
    pub(crate) async fn work(
        node: &Node,
        queue: &tokio::sync::Mutex<mpsc::UnboundedReceiver<Unsettled>>,
    ) {
        loop {
            let mut batch = Vec::with_capacity(BATCH_MAX);
            let mut waiting = queue.lock().await;
            let Some(first) = waiting.recv().await else {
                return;
            };
            batch.push(first);
            let pace = &node.settler.pace;
            pace.begin(waiting.len() >= BATCH_FULL).await;
            batch.extend(std::iter::from_fn(|| waiting.try_recv().ok()).take(BATCH_MAX - 1));
            drop(waiting);
            let count = batch.len();
            node.metrics.settle_batch.observe(count as f64);
            let began = Instant::now();
            settle_all(node, batch).await;
            pace.took(began.elapsed());
            node.settler.unsettled.fetch_sub(count, Ordering::Relaxed);
        }
    }
}

/// Settles a batch, waiting for PostgreSQL as long as it takes. What it refuses as such (never by
/// design), or cannot finish in time, is isolated by halving, so that one outcome cannot hold up the
/// others.
pub(crate) async fn settle_all(node: &Node, outcomes: Vec<Unsettled>) {
    let mut parts = chunks(outcomes);
    let mut pause = RETRY_FIRST;
    while let Some(mut part) = parts.pop() {
        let fence = fence_of(node, &part);
        match settle(node, &fence, &part).await {
            Ok(settled) => {
                pause = RETRY_FIRST;
                node.events_committed.notify_one();
                conclude(node, part, &settled, &fence).await;
            }
            Err(error) if error.is_unavailable() => {
                tracing::warn!(error = %error, outcomes = part.len(), "PostgreSQL is away, outcomes wait in the journal");
                if part.len() > HALVED_DOWN_TO {
                    // Perhaps it is there and only too slow for so many.
                    parts.push(part.split_off(part.len() / 2));
                }
                parts.push(part);
                tokio::select! {
                    () = tokio::time::sleep(pause) => pause = (pause * 2).min(RETRY_MAX),
                    () = node.killed.cancelled() => return,
                }
            }
            Err(error) if part.len() > 1 => {
                tracing::error!(error = %error, "a batch of outcomes was refused, trying its halves");
                parts.push(part.split_off(part.len() / 2));
                parts.push(part);
            }
            Err(error) => {
                tracing::error!(error = %error, "an outcome was refused: settling it without its texts");
                node.metrics.settle_refused.inc();
                part.iter_mut().for_each(strip);
                match settle(node, &fence, &part).await {
                    Ok(settled) => conclude(node, part, &settled, &fence).await,
                    Err(error) => {
                        tracing::error!(error = %error, "still refused; its delivery stays as it is and is tried again in a minute");
                        lock(&node.settler.refused).extend(part);
                    }
                }
            }
        }
    }
}

fn chunks(outcomes: Vec<Unsettled>) -> Vec<Vec<Unsettled>> {
    let mut rest = outcomes.into_iter();
    let next = || {
        let part: Vec<Unsettled> = rest.by_ref().take(BATCH_MAX).collect();
        (!part.is_empty()).then_some(part)
    };
    let mut parts: Vec<Vec<Unsettled>> = std::iter::from_fn(next).collect();
    // They are taken from the end.
    parts.reverse();
    parts
}

fn fence_of(node: &Node, part: &[Unsettled]) -> Fence {
    let shards: HashSet<ShardNo> = part
        .iter()
        .map(|outcome| outcome.settlement.row.shard)
        .collect();
    node.ownership.fence(shards)
}

async fn settle(node: &Node, fence: &Fence, part: &[Unsettled]) -> Result<Vec<bool>, StoreError> {
    if fence.held.is_empty() {
        return Ok(vec![false; part.len()]);
    }
    let settlements: Vec<Settlement> = part
        .iter()
        .map(|outcome| outcome.settlement.clone())
        .collect();
    node.store.settle(fence, &settlements).await
}

/// What follows from the answer: settled, settled earlier, or not ours to settle.
async fn conclude(node: &Node, part: Vec<Unsettled>, settled: &[bool], fence: &Fence) {
    let mut unsettled = Vec::new();
    for (outcome, settled) in part.into_iter().zip(settled) {
        if *settled {
            count(node, &outcome.settlement);
            close(node, &outcome);
        } else {
            unsettled.push(outcome);
        }
    }
    if !unsettled.is_empty() {
        conclude_unsettled(node, unsettled, fence).await;
    }
}

/// Nothing changed for these. Where the fence still stands, it stood then: the attempt was settled
/// before. Where the shard is ours under another epoch, the fence was stale: once more. Otherwise
/// the shard is another's, whose owner has to settle it.
async fn conclude_unsettled(node: &Node, unsettled: Vec<Unsettled>, fence: &Fence) {
    let Some(leases) = leases(node).await else {
        return;
    };
    let me = Some(node.ownership.id());
    let (mut again, mut foreign) = (Vec::new(), Vec::new());
    for outcome in unsettled {
        let shard = outcome.settlement.row.shard;
        match leases.get(&shard) {
            Some((owner, epoch)) if *owner == me && fence.held.contains(&(shard, *epoch)) => {
                node.metrics.settle_missing.inc();
                close(node, &outcome);
            }
            Some((owner, _)) if *owner == me => again.push(outcome),
            _ => foreign.push(outcome),
        }
    }
    if !again.is_empty() {
        tokio::time::sleep(RETRY_FIRST).await;
        again
            .into_iter()
            .for_each(|outcome| node.settler.queue(outcome));
    }
    let epoch = Epoch(node.state_dir.epoch_floor());
    for part in foreign.chunks(BATCH_MAX) {
        let hand_ins: Vec<HandIn> = part
            .iter()
            .map(|outcome| HandIn {
                shard: outcome.settlement.row.shard,
                epoch,
                settlement: Some(outcome.settlement.clone()),
            })
            .collect();
        let work = || node.store.hand_in(node.ownership.id(), &hand_ins);
        if patiently(node, "hand outcomes in", work).await.is_some() {
            node.metrics.handed_in.inc_by(hand_ins.len() as u64);
            part.iter().for_each(|outcome| close(node, outcome));
        }
    }
}

/// Who holds which shard, by PostgreSQL. `None` when the node is killed before it answers.
pub(super) async fn leases(node: &Node) -> Option<HashMap<ShardNo, (Option<NodeId>, Epoch)>> {
    let group = node.config.queue_group;
    let rows = patiently(node, "read the leases", || node.store.shards(group)).await?;
    Some(
        rows.into_iter()
            .map(|row| (row.shard, (row.owner, row.epoch)))
            .collect(),
    )
}

/// Tries until PostgreSQL answers; `None` when the node is killed before that, or refused.
pub(crate) async fn patiently<T, F>(
    node: &Node,
    what: &str,
    mut work: impl FnMut() -> F,
) -> Option<T>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let mut pause = RETRY_FIRST;
    loop {
        match work().await {
            Ok(value) => return Some(value),
            Err(error) if !error.is_unavailable() => {
                tracing::error!(error = %error, "could not {what}");
                return None;
            }
            Err(error) => tracing::warn!(error = %error, "could not {what}, trying again"),
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(RETRY_MAX),
            () = node.killed.cancelled() => return None,
        }
    }
}

fn close(node: &Node, outcome: &Unsettled) {
    let row = &outcome.settlement.row;
    node.memory.settled(row.key, row.attempt);
    node.ambiguity.resolved(row.key, row.attempt);
    if let Some(intent) = outcome.intent {
        node.gate.close(intent);
    }
    if let Some(ticket) = outcome.ticket {
        node.journal.settled(ticket);
    }
}

fn count(node: &Node, settlement: &Settlement) {
    let event = &settlement.event;
    let ambiguous = event.flags.contains(EventFlags::AMBIGUOUS);
    node.metrics
        .outcomes
        .with_label_values(&[event.kind.as_str()])
        .inc();
    if let Some(class) = event.class {
        node.metrics
            .failures
            .with_label_values(&[event.kind.as_str(), class.as_str()])
            .inc();
    }
    if ambiguous && event.kind == EventType::EmailDeferred {
        node.metrics.ambiguous.inc();
    }
    if settlement.next.is_none() {
        let age = node.clock.now() - settlement.row.first_at;
        node.metrics
            .queue_time
            .observe(age.as_seconds_f64().max(0.0));
    }
}

/// What remains when PostgreSQL will not have the whole: the outcome itself.
fn strip(outcome: &mut Unsettled) {
    let event = &mut outcome.settlement.event;
    event.flags = event.flags.without(EventFlags::DEAD_RECIPIENT);
    event.reply = None;
    event.transcript = None;
    event.mx = None;
    event.tls = None;
    event.enhanced = None;
}

#[cfg(test)]
mod tests;
