//! The gate before the final dot: notes in PostgreSQL, many at a time, which deliveries may be
//! sent, and lets through only those that are still queued in a shard we still hold.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use store::{BatchPace, Epoch, Fence, QueueRow, ShardNo, StoreError};
use tokio::sync::{mpsc, oneshot, watch};

use super::barrier::Barrier;
use crate::node::Node;
use crate::sync::lock;

/// Intents in one statement at most.
const BATCH_MAX: usize = 200;
/// Statements under way at once.
const WORKERS: usize = 2;
const QUEUE_MAX: usize = 4_096;
/// With so many waiting a batch begins at once.
const BATCH_FULL: usize = 64;
/// The longest that a permit waits for others to join it.
const GATHERING_MAX: Duration = Duration::from_millis(15);
const TRIES_MAX: u32 = 3;
const TRY_PAUSE: Duration = Duration::from_millis(50);

/// The answer to "may I send the final dot?"
#[derive(Debug)]
pub(crate) enum Permit {
    /// Yes, and it is noted.
    Granted(Intent),
    /// No, for good: the delivery is not this node's (any more).
    Refused,
    /// Not now: nothing can be noted, or its outcome could not be kept.
    Closed(&'static str),
}

/// A noted intent, to be closed when its outcome is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Intent {
    shard: ShardNo,
    epoch: Epoch,
    batch: i64,
}

type Request = (QueueRow, oneshot::Sender<Permit>);

/// See the module.
#[derive(Debug)]
pub(crate) struct Gate {
    requests: mpsc::Sender<Request>,
    open: Mutex<OpenIntents>,
    door: watch::Sender<Door>,
    barrier: Barrier,
    pace: BatchPace,
}

/// Whether asking makes sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    Open,
    /// No outcome could be kept, or the leases are in doubt: open again when that is over.
    Shut,
    /// PostgreSQL failed us: open again after a renewal.
    NoDatabase,
}

/// Per shard and epoch, how many intents of each batch have no settled outcome.
#[derive(Debug, Default)]
struct OpenIntents {
    last_batch: i64,
    batches: HashMap<(ShardNo, Epoch), BTreeMap<i64, usize>>,
    /// First batch that is still kept in PostgreSQL.
    retired: HashMap<(ShardNo, Epoch), i64>,
}

impl Gate {
    pub(crate) fn new() -> (Self, mpsc::Receiver<Request>) {
        let (requests, queue) = mpsc::channel(QUEUE_MAX);
        let door = watch::Sender::new(Door::Open);
        (
            Self {
                requests,
                open: Mutex::default(),
                door,
                barrier: Barrier::default(),
                pace: BatchPace::new(Duration::ZERO, GATHERING_MAX),
            },
            queue,
        )
    }

    /// Asks for a permit.
    pub(crate) async fn ask(&self, row: &QueueRow) -> Permit {
        let (answer, permit) = oneshot::channel();
        if self.requests.send((row.clone(), answer)).await.is_err() {
            return Permit::Closed("the node is stopping");
        }
        permit
            .await
            .unwrap_or(Permit::Closed("the node is stopping"))
    }

    /// What keeps commands and the gate apart.
    pub(crate) fn barrier(&self) -> &Barrier {
        &self.barrier
    }

    /// Waits until asking makes sense: better than opening transactions only to break them off.
    pub(crate) async fn opened(&self) {
        let mut door = self.door.subscribe();
        // The sender lives in self, so this cannot fail.
        let _ = door.wait_for(|door| *door == Door::Open).await;
    }

    /// Opens the door again if it was shut for this reason.
    pub(crate) fn reopen(&self, reason: Door) {
        self.door.send_if_modified(|door| {
            let reopened = *door == reason && reason != Door::Open;
            if reopened {
                *door = Door::Open;
            }
            reopened
        });
    }

    /// Resolves when PostgreSQL fails the gate: a renewal may bring it back sooner than its turn.
    pub(crate) async fn database_missed(&self) {
        let mut door = self.door.subscribe();
        door.mark_unchanged();
        let _ = door.wait_for(|door| *door == Door::NoDatabase).await;
    }

    fn shut(&self, reason: Door) {
        self.door.send_if_modified(|door| {
            let changed = *door != reason;
            *door = reason;
            changed
        });
    }

    /// The intent's outcome is settled, or no dot was sent and none will be.
    pub(crate) fn close(&self, intent: Intent) {
        lock(&self.open).close(intent, 1);
    }

    /// Granted intents without a settled outcome.
    pub(crate) fn open_count(&self) -> usize {
        lock(&self.open)
            .batches
            .values()
            .flat_map(BTreeMap::values)
            .sum()
    }

    /// True if the shard has none under this epoch.
    pub(crate) fn is_clear(&self, shard: ShardNo, epoch: Epoch) -> bool {
        lock(&self.open)
            .batches
            .get(&(shard, epoch))
            .is_none_or(BTreeMap::is_empty)
    }

    /// What can be retired: per shard and epoch the first batch to keep, where it moved on.
    pub(crate) fn retirable(&self, held: &[(ShardNo, Epoch)]) -> Vec<(ShardNo, Epoch, i64)> {
        let mut open = lock(&self.open);
        let OpenIntents {
            last_batch,
            batches,
            retired,
        } = &mut *open;
        // Of a lost shard only what is still open matters: for the mark that ends its handing in.
        batches.retain(|lease, open| held.contains(lease) || !open.is_empty());
        retired.retain(|lease, _| held.contains(lease));
        let mut out = Vec::new();
        for (lease, open) in batches.iter().filter(|(lease, _)| held.contains(lease)) {
            let first = open
                .first_key_value()
                .map_or(*last_batch + 1, |(batch, _)| *batch);
            if retired.insert(*lease, first) != Some(first) {
                out.push((lease.0, lease.1, first));
            }
        }
        out
    }

    /// The workers that note intents. Ends when the node drops its gate's sender or stops.
    pub(crate) async fn work(node: &Node, queue: &tokio::sync::Mutex<mpsc::Receiver<Request>>) {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        loop {
            batch.clear();
            let mut waiting = queue.lock().await;
            let Some(first) = waiting.recv().await else {
                return;
            };
            batch.push(first);
            node.gate.pace.begin(waiting.len() >= BATCH_FULL).await;
            batch.extend(std::iter::from_fn(|| waiting.try_recv().ok()).take(BATCH_MAX - 1));
            drop(waiting);
            node.metrics.intent_batch.observe(batch.len() as f64);
            let began = Instant::now();
            node.gate.note(node, &mut batch).await;
            node.gate.pace.took(began.elapsed());
        }
    }

    pub(crate) const fn workers() -> usize {
        WORKERS
    }

    async fn note(&self, node: &Node, batch: &mut Vec<Request>) {
        if let Some(reason) = node.cannot_keep_outcomes() {
            self.shut(Door::Shut);
            return answer_all(batch, || Permit::Closed(reason));
        }
        batch.retain_mut(|(row, answer)| {
            let may = node.ownership.may_start(row.shard);
            if !may {
                let held = node.ownership.holds(row.shard);
                let no = if held {
                    self.shut(Door::Shut);
                    Permit::Closed("the lease may have lapsed")
                } else {
                    Permit::Refused
                };
                let answer = std::mem::replace(answer, oneshot::channel().0);
                let _ = answer.send(no);
                return false;
            }
            let free = self.barrier.begin(row.key);
            if !free {
                // Something else is wanted of it: should it stay as it is, it is read again.
                let answer = std::mem::replace(answer, oneshot::channel().0);
                let _ = answer.send(Permit::Refused);
            }
            free
        });
        if batch.is_empty() {
            return;
        }
        let fence = node.ownership.fence(batch.iter().map(|(row, _)| row.shard));
        let epochs: HashMap<ShardNo, Epoch> = fence.held.iter().copied().collect();
        let noted = self.note_patiently(node, batch, &fence, &epochs).await;
        self.barrier.end(batch.iter().map(|(row, _)| row.key));
        match noted {
            Ok((number, granted)) => {
                for ((row, answer), granted) in batch.drain(..).zip(granted) {
                    let intent = epochs.get(&row.shard).map(|epoch| Intent {
                        shard: row.shard,
                        epoch: *epoch,
                        batch: number,
                    });
                    let permit = match intent {
                        Some(intent) if granted => Permit::Granted(intent),
                        Some(intent) => {
                            self.close(intent);
                            Permit::Refused
                        }
                        None => Permit::Refused,
                    };
                    if let Err(Permit::Granted(intent)) = answer.send(permit) {
                        // Whoever asked has gone (its connection broke): no dot will be sent.
                        self.close(intent);
                    }
                }
            }
            Err(error) => {
                // Perhaps noted, perhaps not: listed as open after a crash at worst, never sent.
                tracing::warn!(error = %error, "intents could not be noted: no final dot until PostgreSQL is back");
                self.shut(Door::NoDatabase);
                answer_all(batch, || Permit::Closed("PostgreSQL cannot be reached"));
            }
        }
    }

    /// A lost connection is tried again on a new one before the gate shuts. Under a new number: the
    /// first try may have been noted.
    async fn note_patiently(
        &self,
        node: &Node,
        batch: &[Request],
        fence: &Fence,
        epochs: &HashMap<ShardNo, Epoch>,
    ) -> Result<(i64, Vec<bool>), StoreError> {
        let rows: Vec<&QueueRow> = batch.iter().map(|(row, _)| row).collect();
        let mut tries = 0;
        loop {
            tries += 1;
            let number = self.register(batch, epochs);
            match node
                .store
                .note_intents(fence, &rows, number, node.clock.now())
                .await
            {
                Ok(granted) => return Ok((number, granted)),
                Err(error) => {
                    self.unregister(batch, epochs, number);
                    if !error.is_unavailable() || tries == TRIES_MAX {
                        return Err(error);
                    }
                    tokio::time::sleep(TRY_PAUSE).await;
                }
            }
        }
    }

    /// Counts the batch as open before it is asked for: its rows may exist from that moment on.
    fn register(&self, batch: &[Request], epochs: &HashMap<ShardNo, Epoch>) -> i64 {
        let mut open = lock(&self.open);
        open.last_batch += 1;
        let number = open.last_batch;
        for (row, _) in batch {
            if let Some(epoch) = epochs.get(&row.shard) {
                let lease = (row.shard, *epoch);
                *open
                    .batches
                    .entry(lease)
                    .or_default()
                    .entry(number)
                    .or_default() += 1;
            }
        }
        number
    }

    fn unregister(&self, batch: &[Request], epochs: &HashMap<ShardNo, Epoch>, number: i64) {
        let mut open = lock(&self.open);
        for (row, _) in batch {
            if let Some(epoch) = epochs.get(&row.shard) {
                open.close(
                    Intent {
                        shard: row.shard,
                        epoch: *epoch,
                        batch: number,
                    },
                    1,
                );
            }
        }
    }
}

impl OpenIntents {
    fn close(&mut self, intent: Intent, count: usize) {
        let Some(batches) = self.batches.get_mut(&(intent.shard, intent.epoch)) else {
            return;
        };
        if let Some(open) = batches.get_mut(&intent.batch) {
            *open = open.saturating_sub(count);
            if *open == 0 {
                batches.remove(&intent.batch);
            }
        }
    }
}

fn answer_all(batch: &mut Vec<Request>, permit: impl Fn() -> Permit) {
    for (_, answer) in batch.drain(..) {
        let _ = answer.send(permit());
    }
}
