//! Reads owned shards forward and sends every row where it belongs: to its path, to the ambiguous
//! ones, or out of the queue when it has expired. Reading takes nothing from the queue.
//!
//! The cursor is an optimisation, never the truth: rows can commit behind it. Every second it goes
//! back ten seconds, every minute to the beginning; what memory knows is passed over.

use std::collections::{BTreeMap, HashMap};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mail::domain_name::DomainName;
use store::{Cursor, PoolKind, PoolNo, QueueFlags, QueueRow, RecipientDomainNo, ShardNo, StoreError};
use time::OffsetDateTime;
use tokio::sync::Notify;

use super::ambiguity::{Suspicion, decide};
use super::park;
use super::settler::Unsettled;
use crate::delivery::{self, Attempted};
use crate::lanes::{Overflow, Waiting};
use crate::node::Node;
use crate::routing::{Route, RouteFailure};
use crate::session;
use crate::sync::lock;

const ROWS_A_SHARD: i64 = 500;
/// Without a hint the queue is read this often: deferred mail comes due without one.
const POLL_PERIOD: Duration = Duration::from_millis(200);
const FULL_MEMORY_PAUSE: Duration = Duration::from_millis(50);
const REWIND_PERIOD: Duration = Duration::from_secs(1);
const REWIND_BY: Duration = Duration::from_secs(10);
const SWEEP_PERIOD: Duration = Duration::from_secs(60);
/// When a pool has nowhere to send to, its mail is looked at again this much later.
const NO_WAY_PAUSE: Duration = Duration::from_secs(300);

/// Where each owned shard has been read to.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    state: Mutex<BTreeMap<ShardNo, Place>>,
    hint: Notify,
}

#[derive(Debug)]
struct Place {
    cursor: Cursor,
    /// The shard was read from its beginning to now since it was taken.
    read_through: bool,
}

impl Reader {
    /// Begins to read shards, from their beginnings.
    pub(crate) fn start(&self, shards: impl IntoIterator<Item = ShardNo>) {
        let place = || Place { cursor: Cursor::START, read_through: false };
        lock(&self.state).extend(shards.into_iter().map(|shard| (shard, place())));
        self.wake();
    }

    pub(crate) fn stop(&self, shard: ShardNo) {
        lock(&self.state).remove(&shard);
    }

    /// There may be news in the queue.
    pub(crate) fn wake(&self) {
        self.hint.notify_one();
    }

    fn cursors(&self, node: &Node) -> Vec<(ShardNo, Cursor)> {
        let state = lock(&self.state);
        let read = state.iter().filter(|(shard, _)| node.ownership.reads(**shard));
        read.map(|(shard, place)| (*shard, place.cursor)).collect()
    }

    fn rewind(&self, by: Option<Duration>) {
        for place in lock(&self.state).values_mut() {
            place.cursor = match by {
                Some(by) => Cursor { next_at: place.cursor.next_at - by, ..place.cursor },
                None => Cursor::START,
            };
        }
    }

    /// Moves the cursors behind what was read. Returns shards read through for the first time, and
    /// whether there is more to read at once.
    fn advance(&self, asked: &[(ShardNo, Cursor)], rows: &[QueueRow]) -> (Vec<ShardNo>, bool) {
        let mut counts: HashMap<ShardNo, i64> = HashMap::new();
        let mut state = lock(&self.state);
        for row in rows {
            *counts.entry(row.shard).or_default() += 1;
            if let Some(place) = state.get_mut(&row.shard) {
                place.cursor = Cursor::after(row);
            }
        }
        let more = counts.values().any(|count| *count >= ROWS_A_SHARD);
        let mut through = Vec::new();
        for (shard, _) in asked {
            let short = counts.get(shard).is_none_or(|count| *count < ROWS_A_SHARD);
            if let Some(place) = state.get_mut(shard).filter(|place| short && !place.read_through) {
                place.read_through = true;
                through.push(*shard);
            }
        }
        (through, more)
    }

    /// The loop. Ends when the node stops.
    pub(crate) async fn run(node: Arc<Node>) {
        let reader = &node.reader;
        let (mut rewound, mut swept) = (Instant::now(), Instant::now());
        while !node.shutdown.is_requested() {
            let mut hint = pin!(reader.hint.notified());
            hint.as_mut().enable();
            let mut pause = POLL_PERIOD;
            if node.memory.held() >= node.config.limits.waiting {
                pause = FULL_MEMORY_PAUSE;
            } else {
                if swept.elapsed() >= SWEEP_PERIOD {
                    swept = Instant::now();
                    node.paths.sweep(node.clock.now());
                    reader.rewind(None);
                } else if rewound.elapsed() >= REWIND_PERIOD {
                    rewound = Instant::now();
                    reader.rewind(Some(REWIND_BY));
                }
                match reader.read(&node).await {
                    Ok(true) => continue,
                    Ok(false) => {}
                    Err(error) => {
                        tracing::warn!(error = %error, "the queue cannot be read now");
                        pause = Duration::from_secs(1);
                    }
                }
            }
            tokio::select! {
                () = hint => {}
                () = tokio::time::sleep(pause) => {}
                () = node.shutdown.requested() => {}
            }
        }
    }

    /// One read of all shards. True if there is more at once.
    async fn read(&self, node: &Arc<Node>) -> Result<bool, StoreError> {
        let asked = self.cursors(node);
        if asked.is_empty() {
            return Ok(false);
        }
        node.memory.read_begins();
        let rows = node.store.poll(&asked, node.clock.now(), ROWS_A_SHARD).await?;
        let (through, more) = self.advance(&asked, &rows);
        let news = node.memory.admit(rows);
        dispatch(node, news).await?;
        for shard in through {
            node.old_intents.extend(node.ambiguity.read_through(shard));
        }
        Ok(more)
    }
}

/// Sends admitted rows where they belong.
pub(crate) async fn dispatch(node: &Arc<Node>, rows: Vec<QueueRow>) -> Result<(), StoreError> {
    if rows.is_empty() {
        return Ok(());
    }
    let now = node.clock.now();
    let mut groups: HashMap<(Option<PoolNo>, RecipientDomainNo), Vec<QueueRow>> = HashMap::new();
    for row in rows {
        if row.expires_at <= now {
            expire(node, row, now);
            continue;
        }
        if row.flags.contains(QueueFlags::HELD) {
            // Somebody has to decide; the row is here only because its time was moved.
            node.memory.forget(row.key);
            continue;
        }
        match node.ambiguity.suspect(&row, now, node.config.ambiguous_hold) {
            Suspicion::None => groups.entry((row.pool, row.domain)).or_default().push(row),
            Suspicion::Wait => {}
            Suspicion::Undecided => decide(node, row).await,
        }
    }
    if groups.is_empty() {
        return Ok(());
    }
    let (keys, groups): (Vec<_>, Vec<_>) = groups.into_iter().unzip();
    let numbers: Vec<RecipientDomainNo> = keys.iter().map(|(_, domain)| *domain).collect();
    let names = match node.store.recipient_domain_names(&numbers).await {
        Ok(names) => names,
        Err(error) => {
            groups.iter().flatten().for_each(|row| node.memory.forget(row.key));
            return Err(error);
        }
    };
    for (((pool, _), domain), rows) in keys.into_iter().zip(names).zip(groups) {
        let node = node.clone();
        node.clone().work.spawn(async move { route(&node, pool, domain, rows).await });
    }
    Ok(())
}

fn expire(node: &Node, row: QueueRow, now: OffsetDateTime) {
    let settlement = delivery::expired(row, now);
    node.settler.queue(Unsettled { settlement, ticket: None, intent: None });
}

/// Finds the way of one domain's rows and queues them on their paths.
async fn route(node: &Arc<Node>, pool: Option<PoolNo>, domain: DomainName, rows: Vec<QueueRow>) {
    match find_route(node, pool, &domain).await {
        Ok(Way::Route(route)) => enqueue(node, rows, &route).await,
        Ok(Way::Failed(failure)) => {
            for row in rows {
                let attempted = Attempted::not_routed(row, &failure);
                delivery::conclude(node, attempted, None).await;
            }
        }
        Ok(Way::None(reason)) => {
            node.metrics.own_faults.with_label_values(&["no_way"]).inc();
            tracing::error!(reason, deliveries = rows.len(), "mail waits because it cannot be routed");
            let until = node.clock.now() + NO_WAY_PAUSE;
            park(node, rows.into_iter().map(|row| (row, until)).collect()).await;
        }
        Err(error) => {
            tracing::warn!(error = %error, "a pool could not be looked up; its mail is read again");
            rows.iter().for_each(|row| node.memory.forget(row.key));
        }
    }
}

enum Way {
    Route(Arc<Route>),
    Failed(RouteFailure),
    /// The operator has to do something first.
    None(&'static str),
}

async fn find_route(
    node: &Node,
    pool: Option<PoolNo>,
    domain: &DomainName,
) -> Result<Way, StoreError> {
    let kind = match pool {
        None => PoolKind::Direct,
        Some(no) => match node.store.pool_by_no(no).await? {
            Some(pool) => pool.kind,
            None => return Ok(Way::None("its pool does not exist any more")),
        },
    };
    if kind == PoolKind::Sandbox {
        return Ok(match &node.sandbox_route {
            Some(route) => Way::Route(route.clone()),
            None => Way::None("this node has no sandbox: set [sandbox] listen in the configuration"),
        });
    }
    let Ok(_turn) = node.lookups.acquire().await else { return Ok(Way::None("the node is stopping")) };
    Ok(match node.router.route(domain).await {
        Ok(route) => Way::Route(route),
        Err(failure) => Way::Failed(failure),
    })
}

async fn enqueue(node: &Arc<Node>, rows: Vec<QueueRow>, route: &Arc<Route>) {
    let now = node.clock.now();
    let mut overflow = Vec::new();
    for row in rows {
        let class = node.ownership.class_of(row.shard);
        let source = node.source_of(&row);
        match node.paths.push(Waiting { row, class }, source, route.clone(), now) {
            Ok(None) => {}
            Ok(Some(path)) => session::spawn(node, path),
            Err(Overflow { waiting, until }) => overflow.push((waiting.row, until)),
        }
    }
    if !overflow.is_empty() {
        park(node, overflow).await;
    }
}
