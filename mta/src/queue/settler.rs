//! Outcomes on their way into PostgreSQL. An outcome is first journaled (then the connection may go
//! on), then settled with others in one statement, however long PostgreSQL takes to come back.
//! An outcome of a shard that was lost meanwhile is handed in to whoever owns it now.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mail::event::EventType;
use store::{EventFlags, HandIn, Settlement, ShardNo, StoreError};
use tokio::sync::mpsc;

use super::Intent;
use crate::journal::{JournalError, Ticket};
use crate::node::Node;

/// Outcomes in one statement at most.
const BATCH_MAX: usize = 200;
const WORKERS: usize = 2;
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
}

impl Settler {
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<Unsettled>) {
        let (outcomes, queue) = mpsc::unbounded_channel();
        (Self { outcomes, unsettled: AtomicUsize::new(0) }, queue)
    }

    /// Outcomes waiting for PostgreSQL. Bounded by the gate, which looks at it.
    pub(crate) fn unsettled(&self) -> usize {
        self.unsettled.load(Ordering::Relaxed)
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
            Err(error) => Err(JournalError::Write { source: Arc::new(std::io::Error::other(error)) }),
        };
        let (ticket, result) = match journaled {
            Ok(ticket) => (Some(ticket), Ok(())),
            Err(error) => (None, Err(error)),
        };
        self.queue(Unsettled { settlement, ticket, intent });
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
            if queue.lock().await.recv_many(&mut batch, BATCH_MAX).await == 0 {
                return;
            }
            let count = batch.len();
            node.metrics.settle_batch.observe(count as f64);
            settle_all(node, batch).await;
            node.settler.unsettled.fetch_sub(count, Ordering::Relaxed);
        }
    }
}

/// Settles a batch, waiting for PostgreSQL as long as it takes. Outcomes that it refuses as such
/// (never by design) are isolated by halving, so that one cannot hold up the others.
pub(crate) async fn settle_all(node: &Node, batch: Vec<Unsettled>) {
    let mut parts = vec![batch];
    let mut pause = RETRY_FIRST;
    while let Some(mut part) = parts.pop() {
        match settle(node, &part).await {
            Ok(settled) => {
                pause = RETRY_FIRST;
                node.events_committed.notify_one();
                conclude(node, part, &settled).await;
            }
            Err(error) if error.is_unavailable() => {
                tracing::warn!(error = %error, outcomes = part.len(), "PostgreSQL is away, outcomes wait in the journal");
                parts.push(part);
                tokio::select! {
                    () = tokio::time::sleep(pause) => pause = (pause * 2).min(RETRY_MAX),
                    () = node.killed.cancelled() => return,
                }
            }
            Err(error) if part.len() > 1 => {
                tracing::error!(error = %error, "a batch of outcomes was refused, trying its halves");
                let rest = part.split_off(part.len() / 2);
                parts.push(rest);
                parts.push(part);
            }
            Err(error) => {
                tracing::error!(error = %error, "an outcome was refused: settling it without its texts");
                node.metrics.settle_refused.inc();
                for outcome in &mut part {
                    strip(outcome);
                }
                match settle(node, &part).await {
                    Ok(settled) => conclude(node, part, &settled).await,
                    Err(error) => {
                        tracing::error!(error = %error, "still refused; it stays in the journal and is tried at the next start");
                        part.iter().for_each(|outcome| node.memory.settled(outcome.settlement.row.key));
                    }
                }
            }
        }
    }
}

async fn settle(node: &Node, part: &[Unsettled]) -> Result<Vec<bool>, StoreError> {
    let shards: HashSet<ShardNo> = part.iter().map(|outcome| outcome.settlement.row.shard).collect();
    let fence = node.ownership.fence(shards);
    if fence.held.is_empty() {
        return Ok(vec![false; part.len()]);
    }
    let settlements: Vec<Settlement> =
        part.iter().map(|outcome| outcome.settlement.clone()).collect();
    node.store.settle(&fence, &settlements).await
}

/// What follows from the answer: settled, settled earlier, or not ours to settle.
async fn conclude(node: &Node, part: Vec<Unsettled>, settled: &[bool]) {
    let mut lost = Vec::new();
    for (outcome, settled) in part.into_iter().zip(settled) {
        if *settled {
            count(node, &outcome.settlement);
            close(node, &outcome);
        } else {
            lost.push(outcome);
        }
    }
    if !lost.is_empty() {
        conclude_unsettled(node, lost).await;
    }
}

/// Nothing changed for these: either the attempt was settled before (replay, taken over), or the
/// shard is another's by now and its owner has to settle it. Handing in is right in both cases:
/// the owner settles what is still queued with that attempt number and drops the rest.
async fn conclude_unsettled(node: &Node, lost: Vec<Unsettled>) {
    let owned = owned_shards(node).await;
    let (gone, foreign): (Vec<_>, Vec<_>) =
        lost.into_iter().partition(|outcome| owned.contains(&outcome.settlement.row.shard));
    for outcome in &gone {
        node.metrics.settle_missing.inc();
        close(node, outcome);
    }
    if foreign.is_empty() {
        return;
    }
    let epoch = node.state_dir.epoch_floor();
    let hand_ins: Vec<HandIn> = foreign
        .iter()
        .map(|outcome| HandIn {
            shard: outcome.settlement.row.shard,
            epoch: store::Epoch(epoch),
            settlement: Some(outcome.settlement.clone()),
        })
        .collect();
    if patiently(node, "hand outcomes in", || node.store.hand_in(node.ownership.id(), &hand_ins)).await.is_some() {
        node.metrics.handed_in.inc_by(hand_ins.len() as u64);
        foreign.iter().for_each(|outcome| close(node, outcome));
    }
}

/// Shards whose lease row names this node at the epoch it knows.
async fn owned_shards(node: &Node) -> HashSet<ShardNo> {
    let held = node.ownership.held();
    let group = node.config.queue_group;
    let rows = patiently(node, "read the leases", || node.store.shards(group)).await.unwrap_or_default();
    rows.into_iter()
        .filter(|row| row.owner == Some(node.ownership.id()) && held.contains(&(row.shard, row.epoch)))
        .map(|row| row.shard)
        .collect()
}

/// Tries until PostgreSQL answers; `None` when the node is killed before that, or refused.
pub(crate) async fn patiently<T, F>(node: &Node, what: &str, mut work: impl FnMut() -> F) -> Option<T>
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
    node.memory.settled(outcome.settlement.row.key);
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
    node.metrics.outcomes.with_label_values(&[event.kind.as_str()]).inc();
    if ambiguous && event.kind == EventType::EmailDeferred {
        node.metrics.ambiguous.inc();
    }
    if settlement.next.is_none() {
        let age = node.clock.now() - settlement.row.first_at;
        node.metrics.queue_time.observe(age.as_seconds_f64().max(0.0));
    }
}

/// What remains when PostgreSQL will not have the whole: the outcome itself.
fn strip(outcome: &mut Unsettled) {
    let event = &mut outcome.settlement.event;
    event.reply = None;
    event.transcript = None;
    event.mx = None;
    event.tls = None;
    event.enhanced = None;
}
