//! The lanes: take all that waits, compress, commit, answer. A batch that PostgreSQL refuses is
//! halved until the request it does not like stands alone.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use mail::ids::MessageId;
use mail::retry::StreamClass;
use tokio::sync::{Mutex, Semaphore, mpsc};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::columns::{Columns, Committed};
use super::job::{Job, Shards};
use super::{AcceptObserver, Accepted, ClockNow};
use crate::connections::{Connections, within};
use crate::database::Store;
use crate::decode::stream_class_code;
use crate::error::{StoreError, lost_connection, lost_race};
use crate::hints::QueueHints;
use crate::numbers::ShardNo;
use crate::pace::BatchPace;
use crate::queue::{DeliveryKey, SHARDS_A_CLASS};

const OPERATION: &str = "accept mail";
const BATCH_MAX_DELIVERIES: usize = 256;
const BATCH_MAX_OCTETS: usize = 4 * 1024 * 1024;
/// With so many requests waiting a batch begins at once: more would make none of them cheaper.
const BATCH_FULL: usize = 64;
/// The longest that a request waits for others to join it.
const GATHERING_MAX: Duration = Duration::from_millis(20);
/// Big requests that commit at once: the rest of their connections is for everything else.
const ALONE_MAX: usize = 3;

/// What waits, shared by the lanes.
pub(super) struct Inbox {
    queue: Mutex<Waiting>,
    pace: BatchPace,
    shutdown: CancellationToken,
}

struct Waiting {
    receiver: mpsc::Receiver<Job>,
    /// Did not fit into the batch before.
    held: Option<Job>,
}

impl Inbox {
    pub(super) fn new(receiver: mpsc::Receiver<Job>, shutdown: CancellationToken) -> Self {
        Self {
            queue: Mutex::new(Waiting {
                receiver,
                held: None,
            }),
            pace: BatchPace::new(Duration::ZERO, GATHERING_MAX),
            shutdown,
        }
    }

    /// All that waits, within the bounds of a batch, at least one request; none at the end.
    async fn next_batch(&self) -> Option<Vec<Job>> {
        let mut waiting = self.queue.lock().await;
        let first = match waiting.held.take() {
            Some(job) => job,
            None => self.next_job(&mut waiting.receiver).await?,
        };
        self.pace.begin(waiting.receiver.len() >= BATCH_FULL).await;
        let (mut deliveries, mut octets) = (first.deliveries(), first.octets);
        let mut batch = vec![first];
        while let Ok(job) = waiting.receiver.try_recv() {
            deliveries += job.deliveries();
            octets += job.octets;
            if deliveries > BATCH_MAX_DELIVERIES || octets > BATCH_MAX_OCTETS {
                waiting.held = Some(job);
                break;
            }
            batch.push(job);
        }
        Some(batch)
    }

    async fn next_job(&self, receiver: &mut mpsc::Receiver<Job>) -> Option<Job> {
        tokio::select! {
            biased;
            () = self.shutdown.cancelled() => {
                receiver.close();
                receiver.recv().await
            }
            job = receiver.recv() => job,
        }
    }

    /// Everything that waits at this moment. Nothing when the other lane is looking: it either
    /// takes what there is or waits because there is nothing.
    fn take_all(&self) -> Vec<Job> {
        let Ok(mut waiting) = self.queue.try_lock() else {
            return Vec::new();
        };
        let mut jobs: Vec<Job> = waiting.held.take().into_iter().collect();
        while let Ok(job) = waiting.receiver.try_recv() {
            jobs.push(job);
        }
        jobs
    }
}

/// Commits batches until the inbox has ended.
pub(super) async fn run_lane(committer: Arc<Committer>, inbox: Arc<Inbox>, tracker: TaskTracker) {
    while let Some(batch) = inbox.next_batch().await {
        let Some(batch) = committer.prepare(batch).await else {
            continue;
        };
        let pool = committer.store.accept.clone();
        let began = Instant::now();
        let committed = committer.commit_all(&pool, batch, &tracker).await;
        inbox.pace.took(began.elapsed());
        let Err(error) = committed else {
            continue;
        };
        // Those that came meanwhile would wait for the same bad news one batch after another.
        for job in inbox.take_all() {
            job.answer(Err(error.clone()));
        }
    }
}

pub(super) struct Committer {
    pub(super) store: Store,
    pub(super) clock_now: ClockNow,
    pub(super) hints: Arc<dyn QueueHints>,
    pub(super) observer: Arc<dyn AcceptObserver>,
    turn: AtomicUsize,
    alone: Semaphore,
}

impl Committer {
    pub(super) fn new(
        store: Store,
        clock_now: ClockNow,
        hints: Arc<dyn QueueHints>,
        observer: Arc<dyn AcceptObserver>,
    ) -> Self {
        Self {
            store,
            clock_now,
            hints,
            observer,
            turn: AtomicUsize::new(0),
            alone: Semaphore::new(ALONE_MAX),
        }
    }

    /// Commits a big request on a connection of the general pool.
    pub(super) fn spawn_alone(self: Arc<Self>, job: Job, tracker: &TaskTracker) {
        let pool = self.store.general.clone();
        let more = tracker.clone();
        tracker.spawn(async move {
            let turn = self.alone.acquire().await;
            if let Some(batch) = self.prepare(vec![job]).await {
                // The request has its answer either way.
                let _ = self.commit_all(&pool, batch, &more).await;
            }
            drop(turn);
        });
    }

    /// Gives the batch its shards and compresses its content off the reactor.
    async fn prepare(&self, mut batch: Vec<Job>) -> Option<Vec<Job>> {
        let shards = self.choose_shards();
        let packing = spawn_blocking(move || {
            for job in &mut batch {
                job.shards = Some(shards);
                job.pack();
            }
            batch
        });
        // None only when the runtime is going down: the callers hear that their jobs were dropped.
        packing.await.ok()
    }

    fn choose_shards(&self) -> Shards {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let choose = |class| {
            let preferred = self.hints.preferred(class);
            match preferred.len() {
                0 => any_shard(class, turn),
                length => preferred[turn % length],
            }
        };
        Shards {
            transactional: choose(StreamClass::Transactional),
            broadcast: choose(StreamClass::Broadcast),
        }
    }

    /// Commits the jobs, in halves where it must be, and answers all of them. An error is returned
    /// when the database is not there.
    async fn commit_all(
        self: &Arc<Self>,
        pool: &Connections,
        jobs: Vec<Job>,
        tracker: &TaskTracker,
    ) -> Result<(), StoreError> {
        let mut parts = vec![jobs];
        while let Some(mut part) = parts.pop() {
            let error = match self.commit(pool, &part).await {
                Ok(committed) => {
                    self.finish(part, committed, tracker);
                    continue;
                }
                Err(error) => error,
            };
            if error.is_unavailable() {
                for job in parts.into_iter().flatten().chain(part) {
                    job.answer(Err(error.clone()));
                }
                return Err(error);
            }
            if part.len() > 1 {
                let second = part.split_off(part.len() / 2);
                parts.extend([second, part]);
            } else {
                tracing::warn!(%error, "a request was refused by the database");
                part.into_iter()
                    .for_each(|job| job.answer(Err(error.clone())));
            }
        }
        Ok(())
    }

    /// Commits once; the same ids once more when the connection was lost meanwhile, or others were
    /// in the way.
    pub(super) async fn commit(
        &self,
        pool: &Connections,
        jobs: &[Job],
    ) -> Result<Committed, StoreError> {
        let started = Instant::now();
        let committed = match self.try_commit(pool, jobs).await {
            Err(Failure::Statement(error)) if lost_race(&error) => self
                .try_commit(pool, jobs)
                .await
                .map_err(Failure::before_commit)?,
            Err(Failure::Statement(error)) if lost_connection(&error) => {
                let second = self.try_commit(pool, jobs).await;
                let second = second.map_err(Failure::after_unknown)?;
                Committed {
                    // Perhaps it was the first try that stored them: then only their events say it.
                    suppressed: self.suppressed_before(jobs).await,
                    ..second
                }
            }
            other => other.map_err(Failure::before_commit)?,
        };
        let deliveries = jobs.iter().map(Job::deliveries).sum();
        let octets = jobs.iter().map(|job| job.octets).sum();
        self.observer
            .committed(deliveries, octets, started.elapsed());
        Ok(committed)
    }

    async fn try_commit(&self, pool: &Connections, jobs: &[Job]) -> Result<Committed, Failure> {
        let mut checkout = pool.checkout().await.map_err(Failure::Connect)?;
        let columns = Columns::of(jobs);
        let committed = within(columns.commit(checkout.raw(), (self.clock_now)())).await;
        checkout.give_back(&committed);
        committed.map_err(Failure::Statement)
    }

    /// Answers jobs after their commit. Those that lost their key to another request are looked
    /// into beside the lane: strangers do not wait for it.
    pub(super) fn finish(
        self: &Arc<Self>,
        jobs: Vec<Job>,
        committed: Committed,
        tracker: &TaskTracker,
    ) {
        let (losers, stored): (Vec<Job>, Vec<Job>) = jobs
            .into_iter()
            .partition(|job| committed.lost.contains(&job.request_id));
        self.stored(stored, committed.suppressed.as_ref());
        for job in losers {
            tracker.spawn(self.clone().resolve(job));
        }
    }

    /// Answers jobs that are stored. Where nobody could say which of their deliveries are suppressed
    /// nobody is told of new rows: those that there are will be found in the queue.
    pub(super) fn stored(&self, jobs: Vec<Job>, suppressed: Option<&HashSet<DeliveryKey>>) {
        let is_suppressed = |key: &DeliveryKey| suppressed.is_some_and(|keys| keys.contains(key));
        if suppressed.is_some() && !jobs.is_empty() {
            let rows = jobs.iter().flat_map(Job::queue_rows);
            let rows = rows.filter(|row| !is_suppressed(&row.key)).collect();
            let messages = match self.hints.takes_messages() {
                true => jobs.iter().flat_map(Job::messages_due).collect(),
                false => Vec::new(),
            };
            self.hints.accepted(rows, messages);
        }
        for job in jobs {
            let ended: HashSet<DeliveryKey> = match suppressed {
                Some(keys) if !keys.is_empty() => {
                    let keys = job.queue_rows().map(|row| row.key);
                    keys.filter(is_suppressed).collect()
                }
                _ => HashSet::new(),
            };
            job.answer(Ok(if ended.is_empty() {
                Accepted::Stored
            } else {
                Accepted::Screened { suppressed: ended }
            }));
        }
    }

    /// Deliveries of these jobs, which are stored, that an earlier try ended at once. None when the
    /// database cannot tell now, which is no reason to call stored mail refused.
    pub(super) async fn suppressed_before(&self, jobs: &[Job]) -> Option<HashSet<DeliveryKey>> {
        let messages = jobs.iter().flat_map(|job| &job.request.messages);
        let ids: Vec<MessageId> = messages.map(|message| message.id).collect();
        let mut told = self.store.suppressed_at_accept(&ids).await;
        if told.is_err() {
            // The connection may have been lost with the one before.
            told = self.store.suppressed_at_accept(&ids).await;
        }
        told.inspect_err(
            |error| tracing::warn!(%error, "mail is stored, who was suppressed is not known"),
        )
        .ok()
    }
}

/// Where a commit failed: before it was sent nothing can have happened.
enum Failure {
    Connect(sqlx::Error),
    Statement(sqlx::Error),
}

impl Failure {
    fn before_commit(self) -> StoreError {
        let (Self::Connect(error) | Self::Statement(error)) = self;
        StoreError::from_sqlx(OPERATION, error)
    }

    /// The first try may have been committed, so only a refusal of the rows themselves is certain.
    fn after_unknown(self) -> StoreError {
        let (Self::Connect(error) | Self::Statement(error)) = self;
        match StoreError::from_sqlx(OPERATION, error) {
            StoreError::Unavailable {
                operation,
                source: Some(source),
            } => StoreError::CommitUnknown { operation, source },
            other => other,
        }
    }
}

/// A shard of the default queue group, each in its turn.
fn any_shard(class: StreamClass, turn: usize) -> ShardNo {
    let number = i16::try_from(turn % SHARDS_A_CLASS as usize).unwrap_or(0);
    ShardNo(stream_class_code(class) * SHARDS_A_CLASS + number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shard_of_a_class_has_its_turn() {
        let shards = |class| {
            (0..16)
                .map(|turn| any_shard(class, turn).0)
                .collect::<HashSet<i16>>()
        };
        assert_eq!(shards(StreamClass::Transactional), (0..8).collect());
        assert_eq!(shards(StreamClass::Broadcast), (8..16).collect());
    }
}
