//! Reads owned shards forward. Reading takes nothing from the queue and writes nothing.
//!
//! The cursor is an optimisation, never the truth: rows can commit behind it. Every second the two
//! seconds before it are read again, every ten seconds the twenty before, and one shard after the other
//! is read again from its beginning, each once a minute; what memory knows is passed over. (Ten seconds
//! every second found nothing sooner that ever happened, and with a backlog read each row ten times.)
//! All use cursors of their own: a slow look back never holds up the way forward.

use std::collections::{BTreeMap, HashMap};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mail::retry::StreamClass;
use store::{Cursor, QueueRow, ShardNo, StoreError};
use tokio::sync::Notify;

use super::dispatch;
use super::ownership::CLOCK_SKEW_MAX;
use crate::node::Node;
use crate::sync::lock;

const ROWS_A_SHARD: i64 = 500;
/// Without a hint the queue is read this often: deferred mail comes due without one.
const POLL_PERIOD: Duration = Duration::from_millis(200);
const FULL_MEMORY_PAUSE: Duration = Duration::from_millis(50);
const FAILURE_PAUSE: Duration = Duration::from_secs(1);
const LOOK_BACK_PERIOD: Duration = Duration::from_secs(1);
const LOOK_BACK: Duration = Duration::from_secs(2);
/// Of so many looks back one goes further.
const FAR_LOOK_EVERY: u32 = 10;
const FAR_LOOK_BACK: Duration = Duration::from_secs(20);
const SWEEP_PERIOD: Duration = Duration::from_secs(60);
/// Of the memory for deliveries broadcast mail may fill this share; the rest is for transactional.
const BROADCAST_SHARE: f64 = 0.8;

/// Where each owned shard has been read to.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    state: Mutex<BTreeMap<ShardNo, Place>>,
    hint: Notify,
}

#[derive(Debug)]
struct Place {
    cursor: Cursor,
    since: Instant,
    /// Every row that was due when the shard was taken has been read.
    read_through: bool,
}

type Cursors = Vec<(ShardNo, Cursor)>;

impl Reader {
    /// Begins to read shards, from their beginnings.
    pub(crate) fn start(&self, shards: impl IntoIterator<Item = ShardNo>) {
        let place = || Place {
            cursor: Cursor::START,
            since: Instant::now(),
            read_through: false,
        };
        lock(&self.state).extend(shards.into_iter().map(|shard| (shard, place())));
        self.wake();
    }

    pub(crate) fn stop(&self, shard: ShardNo) {
        lock(&self.state).remove(&shard);
    }

    /// Shards being read.
    pub(crate) fn shards(&self) -> Vec<ShardNo> {
        lock(&self.state).keys().copied().collect()
    }

    /// There may be news in the queue.
    pub(crate) fn wake(&self) {
        self.hint.notify_one();
    }

    /// Cursors of the shards that may be read now. A full memory stops broadcast mail first.
    fn cursors(&self, node: &Node) -> Cursors {
        let (held, room) = (node.memory.held(), node.config.limits.waiting);
        let broadcast_room = (room as f64 * BROADCAST_SHARE) as usize;
        let may = |shard: ShardNo| {
            let room = match node.ownership.class_of(shard) {
                StreamClass::Transactional => room,
                StreamClass::Broadcast => broadcast_room,
            };
            held < room && node.ownership.reads(shard)
        };
        let state = lock(&self.state);
        let readable = state.iter().filter(|(shard, _)| may(**shard));
        readable
            .map(|(shard, place)| (*shard, place.cursor))
            .collect()
    }

    /// Moves the cursors behind what was read. True if there is more to read at once.
    fn advance(&self, node: &Node, asked: &Cursors, rows: &[QueueRow]) -> bool {
        let counts = counts(rows);
        let mut state = lock(&self.state);
        for row in rows {
            if let Some(place) = state.get_mut(&row.shard) {
                place.cursor = Cursor::after(row);
            }
        }
        for (shard, _) in asked {
            let short = counts.get(shard).is_none_or(|count| *count < ROWS_A_SHARD);
            let Some(place) = state.get_mut(shard) else {
                continue;
            };
            // Not before all that was due by the last owner's clock is due by ours.
            if short && !place.read_through && place.since.elapsed() > 2 * CLOCK_SKEW_MAX {
                place.read_through = true;
                node.ambiguity.read_through(*shard);
            }
        }
        counts.values().any(|count| *count >= ROWS_A_SHARD)
    }

    /// The loop. Ends when the node stops.
    pub(crate) async fn run(node: Arc<Node>) {
        let reader = &node.reader;
        while !node.shutdown.is_requested() {
            let mut hint = pin!(reader.hint.notified());
            // Listen before looking, so that no hint is lost.
            hint.as_mut().enable();
            let pause = match reader.forward(&node).await {
                Ok(true) => continue,
                Ok(false) if node.memory.held() >= node.config.limits.waiting => FULL_MEMORY_PAUSE,
                Ok(false) => POLL_PERIOD,
                Err(error) => {
                    tracing::warn!(error = %error, "the queue cannot be read now");
                    FAILURE_PAUSE
                }
            };
            tokio::select! {
                () = hint => {}
                () = tokio::time::sleep(pause) => {}
                () = node.shutdown.requested() => {}
            }
        }
    }

    async fn forward(&self, node: &Arc<Node>) -> Result<bool, StoreError> {
        let asked = self.cursors(node);
        if asked.is_empty() {
            return Ok(false);
        }
        let rows = read(node, &asked).await?;
        let more = self.advance(node, &asked, &rows);
        dispatch(node, node.memory.admit(rows)).await?;
        Ok(more)
    }

    /// The loop that looks back. Ends when the node stops.
    pub(crate) async fn look_back(node: Arc<Node>) {
        let mut swept: Option<ShardNo> = None;
        let mut sweep_due = Instant::now();
        let mut looks = 0_u32;
        while !node.shutdown.is_requested() {
            tokio::select! {
                () = tokio::time::sleep(LOOK_BACK_PERIOD) => {}
                () = node.shutdown.requested() => return,
            }
            let ends = node.reader.cursors(&node);
            looks = looks.wrapping_add(1);
            let back = match looks.is_multiple_of(FAR_LOOK_EVERY) {
                true => FAR_LOOK_BACK,
                false => LOOK_BACK,
            };
            let recent = |(shard, end): &(ShardNo, Cursor)| {
                (
                    *shard,
                    Cursor {
                        next_at: end.next_at - back,
                        ..*end
                    },
                )
            };
            let mut starts: Cursors = ends.iter().map(recent).collect();
            if !ends.is_empty() && sweep_due.elapsed() >= SWEEP_PERIOD / ends.len() as u32 {
                sweep_due = Instant::now();
                let next = starts.iter_mut().find(|(shard, _)| Some(*shard) > swept);
                swept = next.map(|(shard, start)| {
                    *start = Cursor::START;
                    *shard
                });
            }
            if let Err(error) = reread(&node, starts, &ends).await {
                tracing::warn!(error = %error, "the queue cannot be read again now");
            }
        }
    }
}

/// Reads from `starts` up to `ends`, page by page.
async fn reread(node: &Arc<Node>, mut starts: Cursors, ends: &Cursors) -> Result<(), StoreError> {
    let ends: HashMap<ShardNo, Cursor> = ends.iter().copied().collect();
    while !starts.is_empty() && !node.shutdown.is_requested() {
        let rows = read(node, &starts).await?;
        let counts = counts(&rows);
        let mut last: HashMap<ShardNo, Cursor> = HashMap::new();
        last.extend(rows.iter().map(|row| (row.shard, Cursor::after(row))));
        dispatch(node, node.memory.admit(rows)).await?;
        starts = last
            .into_iter()
            .filter(|(shard, _)| {
                counts
                    .get(shard)
                    .is_some_and(|count| *count >= ROWS_A_SHARD)
            })
            .filter(|(shard, at)| ends.get(shard).is_some_and(|end| at < end))
            .collect();
    }
    Ok(())
}

/// One statement. Reads of a node follow each other: memory counts on it.
async fn read(node: &Node, cursors: &Cursors) -> Result<Vec<QueueRow>, StoreError> {
    let _turn = node.reading.lock().await;
    node.memory.read_begins();
    node.store
        .poll(cursors, node.clock.now(), ROWS_A_SHARD)
        .await
}

fn counts(rows: &[QueueRow]) -> HashMap<ShardNo, i64> {
    let mut counts = HashMap::new();
    for row in rows {
        *counts.entry(row.shard).or_default() += 1;
    }
    counts
}
