//! The loops of a node: leases, reading, intents, outcomes, fetches, housekeeping. Starts them in
//! the right order, and stops them in the reverse one.

use std::sync::Arc;
use std::time::Duration;

use mail::text::DbText;
use store::{QueueRow, RedisWake, Settlement, ShardNo};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio_util::task::TaskTracker;

use crate::delivery::Contents;
use crate::leasing::{follow_leases, lease, mark_lost_shards};
use crate::node::{Node, Replays};
use crate::queue::{
    Commands, Door, Gate, Reader, Settler, Unsettled, decide_undecided, dispatch, settle_handed_in,
};
use crate::session;
use crate::sync::lock;

const HOUSEKEEPING_PERIOD: Duration = Duration::from_secs(1);
const GAUGES_EVERY: u32 = 15;
const STAFF_EVERY: u32 = 5;
const SWEEP_EVERY: u32 = 60;
/// How long a stopping node waits for attempts in flight, and then for their outcomes.
const DRAIN_SESSIONS: Duration = Duration::from_secs(30);
const DRAIN_OUTCOMES: Duration = Duration::from_secs(10);

type Receiver<T> = Mutex<mpsc::Receiver<T>>;

/// The receiving ends of the node's queues, and what it starts with.
#[derive(Debug)]
pub(crate) struct Queues {
    pub(crate) intents: Receiver<(QueueRow, oneshot::Sender<crate::queue::Permit>)>,
    pub(crate) outcomes: Mutex<mpsc::UnboundedReceiver<Unsettled>>,
    pub(crate) fetches: Receiver<crate::delivery::FetchRequest>,
    pub(crate) replayed: Replays,
    pub(crate) wake: Option<RedisWake>,
}

/// Runs the node until shutdown is requested, then drains it.
pub(crate) async fn run(node: Arc<Node>, queues: Queues, handoff: mpsc::Receiver<Vec<QueueRow>>) {
    let Queues {
        intents,
        outcomes,
        fetches,
        replayed,
        wake,
    } = queues;
    let replayed = decode(&node, replayed);
    let tasks = TaskTracker::new();
    let intents = Arc::new(intents);
    let outcomes = Arc::new(outcomes);
    let fetches = Arc::new(fetches);
    for _ in 0..Settler::workers() {
        let (node, queue) = (node.clone(), outcomes.clone());
        tasks.spawn(async move { stoppable(&node, Settler::work(&node, &queue)).await });
    }
    for _ in 0..Gate::workers() {
        let (node, queue) = (node.clone(), intents.clone());
        tasks.spawn(async move { stoppable(&node, Gate::work(&node, &queue)).await });
    }
    for _ in 0..Contents::workers() {
        let (node, queue) = (node.clone(), fetches.clone());
        tasks.spawn(async move { stoppable(&node, Contents::work(&node, &queue)).await });
    }
    let (taken, news) = mpsc::unbounded_channel();
    tasks.spawn(lease(node.clone(), taken));
    tasks.spawn(follow_leases(node.clone(), news, replayed));
    let reading = tasks.spawn(Reader::run(node.clone()));
    let looking_back = tasks.spawn(Reader::look_back(node.clone()));
    let commanded = tasks.spawn(Commands::run(node.clone()));
    tasks.spawn(receive_handoff(node.clone(), handoff));
    tasks.spawn(housekeeping(node.clone()));
    if let Some(wake) = wake {
        let node = node.clone();
        tasks.spawn(async move { stoppable(&node, follow(&node, wake)).await });
    }
    node.shutdown.requested().await;
    let _ = tokio::join!(reading, looking_back, commanded);
    drain(&node).await;
    node.killed.cancel();
    tasks.close();
    tasks.wait().await;
    node.journal.close().await;
}

async fn stoppable(node: &Node, work: impl Future<Output = ()>) {
    tokio::select! {
        () = work => {}
        () = node.killed.cancelled() => {}
    }
}

/// Attempts in flight end, their outcomes are settled, the shards go back.
async fn drain(node: &Arc<Node>) {
    node.work.close();
    if tokio::time::timeout(DRAIN_SESSIONS, node.work.wait())
        .await
        .is_err()
    {
        tracing::warn!(
            "some SMTP sessions did not end in time; what they sent is journaled or an open intent"
        );
    }
    let settled = async {
        while node.settler.unsettled() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    if tokio::time::timeout(DRAIN_OUTCOMES, settled).await.is_err() {
        tracing::warn!(
            "some outcomes are not settled; they are in the journal and follow at the next start"
        );
        return;
    }
    retire_intents(node).await;
    let shards: Vec<ShardNo> = node
        .ownership
        .held()
        .into_iter()
        .map(|(shard, _)| shard)
        .collect();
    let release = node.ownership.release(&node.store, &shards);
    if !matches!(
        tokio::time::timeout(DRAIN_OUTCOMES, release).await,
        Ok(Ok(_))
    ) {
        tracing::warn!("the shards could not be released; they lapse by themselves");
    }
}

/// The journal's records as settlements. One that cannot be read is reported, not fatal: its
/// delivery is then an open intent like any other.
fn decode(node: &Node, replayed: Replays) -> Vec<Unsettled> {
    let mut outcomes = Vec::with_capacity(replayed.len());
    for record in replayed {
        match serde_json::from_slice::<Settlement>(&record.payload) {
            Ok(settlement) => {
                outcomes.push(Unsettled {
                    settlement,
                    ticket: Some(record.ticket),
                    intent: None,
                });
            }
            Err(error) => {
                let start = DbText::from_remote(&record.payload, 200);
                tracing::error!(%error, record = start.as_str(), "a journal record cannot be read");
                node.journal.settled(record.ticket);
            }
        }
    }
    if !outcomes.is_empty() {
        tracing::info!(
            outcomes = outcomes.len(),
            "outcomes of an earlier life are settled first"
        );
    }
    outcomes
}

/// Rows that an acceptor in this process just committed go to their lanes without being read.
async fn receive_handoff(node: Arc<Node>, mut handoff: mpsc::Receiver<Vec<QueueRow>>) {
    while let Some(rows) = tokio::select! {
        rows = handoff.recv() => rows,
        () = node.shutdown.requested() => None,
    } {
        let news = node.memory.admit(rows);
        if let Err(error) = dispatch(&node, news).await {
            tracing::warn!(error = %error, "accepted deliveries are read from the queue instead");
        }
    }
}

/// Wakes the reader when another process accepted something. Hints may be lost; the reader polls.
async fn follow(node: &Node, wake: RedisWake) {
    let mut hints = wake.subscribe();
    while let Some(shard) = hints.recv().await {
        if node.ownership.reads(shard) {
            node.reader.wake();
        }
        if node.ownership.holds(shard) {
            node.commands.wake();
        }
    }
}

async fn housekeeping(node: Arc<Node>) {
    let mut round = 0u32;
    while !node.killed.is_cancelled() {
        tokio::select! {
            () = tokio::time::sleep(HOUSEKEEPING_PERIOD) => {}
            () = node.killed.cancelled() => return,
        }
        retire_intents(&node).await;
        settle_handed_in(&node, &node.reader.shards()).await;
        decide_undecided(&node).await;
        mark_lost_shards(&node).await;
        if node.cannot_keep_outcomes().is_none() && node.ownership.is_current() {
            node.gate.reopen(Door::Shut);
        }
        show(&node);
        node.contents.sweep();
        if round.is_multiple_of(STAFF_EVERY) && !node.shutdown.is_requested() {
            for path in node.paths.abandoned(node.clock.now()) {
                session::spawn(&node, path);
            }
        }
        if round.is_multiple_of(SWEEP_EVERY) {
            node.settler.retry_refused();
            node.paths.sweep(node.clock.now());
            lock(&node.surplus).sweep(node.clock.now());
        }
        if round.is_multiple_of(GAUGES_EVERY) {
            show_depth(&node).await;
        }
        round = round.wrapping_add(1);
    }
}

async fn retire_intents(node: &Node) {
    let held = node.ownership.held();
    let mut low = node.gate.retirable(&held);
    let finished = node.ambiguity.take_finished().into_iter();
    // Attempts of an earlier epoch of this life may still be under way.
    let finished = finished.filter(|(shard, epoch)| node.gate.is_clear(*shard, *epoch));
    low.extend(finished.map(|(shard, epoch)| (shard, epoch, i64::MAX)));
    if low.is_empty() {
        return;
    }
    let fence = node.ownership.fence(low.iter().map(|(shard, ..)| *shard));
    if let Err(error) = node.store.retire_intents(&fence, &low).await {
        // They are retired with the next batch that moves on, or at the next take-over.
        tracing::warn!(error = %error, "intents could not be retired");
    }
}

fn show(node: &Node) {
    let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    node.metrics.connections.set(gauge(node.paths.sessions()));
    node.metrics.held.set(gauge(node.memory.held()));
    node.metrics.unsettled.set(gauge(node.settler.unsettled()));
    node.metrics.open_intents.set(gauge(node.gate.open_count()));
    node.metrics.shards.set(gauge(node.ownership.held().len()));
    node.metrics.undecided.set(gauge(node.ambiguity.waiting()));
}

async fn show_depth(node: &Node) {
    let now = node.clock.now();
    let mine = |shard: &ShardNo| node.ownership.holds(*shard);
    match node.store.queue_depths(now).await {
        Ok(depths) => {
            let depths = depths.iter().filter(|depth| mine(&depth.shard));
            let (mut due, mut oldest) = (0, now);
            for depth in depths {
                due += depth.due;
                oldest = depth.oldest_due.map_or(oldest, |first| first.min(oldest));
            }
            node.metrics.queue_due.set(due);
            node.metrics
                .queue_oldest
                .set((now - oldest).whole_seconds());
        }
        Err(error) => tracing::debug!(error = %error, "the queue's depth cannot be read now"),
    }
}
