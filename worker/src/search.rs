//! Fills the index that mail is searched with from the event log, seconds behind it. One
//! worker at a time does; rows and cursor are written in one statement, so that neither a crash nor
//! a second worker that believes to be the one loses or repeats a page.

use std::time::Duration;

use mail::ids::{EventId, NodeId};
use service::clock::Clock;
use service::shutdown::Shutdown;
use store::{LogCursor, SearchLease, SearchPage, Store, StoreError};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::metrics::SearchMetrics;
use crate::search_pages::{Pages, Ready};

const PAGE_EVENTS: i64 = 5_000;
/// Pause at the end of the log. Not shorter: it is also how long a page waits for the next one.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_AFTER_ERROR: Duration = Duration::from_secs(2);
const LEASE_TTL: Duration = Duration::from_secs(15);
const RENEW_PERIOD: Duration = Duration::from_secs(5);
/// Events may be written long after the time in their id. Day partitions older than this are not
/// looked into once the end of the log was seen.
const LATENESS_MAX: time::Duration = time::Duration::days(35);

/// The duty, on one worker.
pub(crate) struct Indexer {
    pub(crate) store: Store,
    pub(crate) clock: Clock,
    pub(crate) metrics: SearchMetrics,
    /// Of the worker of this node; see [`Indexer::owner_of`].
    pub(crate) owner: Uuid,
}

/// Where the one reader stands.
struct Reader {
    /// With the cursor as it is saved.
    lease: SearchLease,
    /// Read up to here.
    at: LogCursor,
    /// Read, and behind the saved cursor.
    pages: Pages,
    /// Lowest event id worth looking at.
    lowest: Uuid,
    /// When the lease was renewed and the cursor saved.
    renewed: Instant,
}

impl Indexer {
    /// The worker of a node. Its id differs from the node's, which sends mail under it.
    pub(crate) fn owner_of(node: NodeId) -> Uuid {
        Uuid::from_u128(node.uuid().as_u128() ^ 1)
    }

    /// Works until shutdown and gives the lease back. Dropped instead, it loses nothing: the next
    /// reader starts at the saved cursor.
    pub(crate) async fn run(self, shutdown: Shutdown) {
        let mut reader = None;
        while !shutdown.is_requested() {
            let pause = match self.round(&mut reader).await {
                Ok(pause) => pause,
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "could not fill the search index"
                    );
                    // A page may have been written although nobody said so: start at what is saved.
                    reader = None;
                    Some(PAUSE_AFTER_ERROR)
                }
            };
            match pause {
                // Others of this thread have their turn between two pages.
                None => tokio::task::yield_now().await,
                Some(pause) => tokio::select! {
                    () = sleep(pause) => {}
                    () = shutdown.requested() => {}
                },
            }
        }
        if let Some(Reader { lease, .. }) = reader
            && let Err(error) = self.store.search_release(&lease).await
        {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "could not give the search index back"
            );
        }
    }

    /// One page; how long to wait for the next.
    async fn round(&self, slot: &mut Option<Reader>) -> Result<Option<Duration>, StoreError> {
        let is_due = |reader: &Reader| reader.renewed.elapsed() >= RENEW_PERIOD;
        if slot.as_ref().is_none_or(is_due) {
            *slot = self.take(slot.take()).await?;
        }
        self.metrics.reader.set(i64::from(slot.is_some()));
        let Some(reader) = slot else {
            self.metrics.lag_seconds.set(0.0);
            return Ok(Some(RENEW_PERIOD));
        };
        let page = self
            .store
            .read_search_log(reader.at, reader.lowest, PAGE_EVENTS)
            .await?;
        let is_complete = page.complete;
        if !self.write(reader, page).await? {
            // Taken by another: to be seen at the next renewal.
            *slot = None;
            return Ok(Some(RENEW_PERIOD));
        }
        Ok(is_complete.then_some(PAUSE))
    }

    /// Renews the lease, or takes it if it is free. A reader that had it all the time goes on where
    /// it is.
    async fn take(&self, before: Option<Reader>) -> Result<Option<Reader>, StoreError> {
        let renewed = Instant::now();
        let Some(lease) = self.store.search_take(self.owner, LEASE_TTL).await? else {
            return Ok(None);
        };
        let reader = match before.filter(|reader| reader.lease == lease) {
            Some(reader) => Reader { renewed, ..reader },
            None => Reader {
                lease,
                at: lease.cursor,
                pages: Pages::default(),
                // The cursor may be of any age.
                lowest: Uuid::nil(),
                renewed,
            },
        };
        if reader.at == reader.lease.cursor || !reader.pages.is_empty() {
            return Ok(Some(reader));
        }
        // Nothing was found for a while: what was looked at need not be looked at again.
        let at = reader.at;
        let is_saved = self.store.write_search(&reader.lease, at, &[], &[]);
        Ok(is_saved.await?.then(|| reader.saved(at)))
    }

    /// False when another reader has taken over.
    async fn write(&self, reader: &mut Reader, page: SearchPage) -> Result<bool, StoreError> {
        let now = self.clock.now();
        let (to, lag_secs) = if page.complete {
            reader.lowest = lowest_id(now - LATENESS_MAX);
            (LogCursor::at_horizon(page.horizon), 0.0)
        } else {
            let last = page.last.unwrap_or(reader.at);
            (last, age_secs(EventId::from_uuid(last.id), now))
        };
        reader.at = to;
        let ready = reader.pages.push(&page.events, to);
        if let Some(ready) = ready
            && !self.write_ready(reader, &ready).await?
        {
            return Ok(false);
        }
        self.metrics.lag_seconds.set(lag_secs);
        Ok(true)
    }

    async fn write_ready(&self, reader: &mut Reader, ready: &Ready) -> Result<bool, StoreError> {
        let rows = self.store.search_rows(&ready.new).await?;
        let (lease, changes) = (&reader.lease, &ready.changes);
        let written = self.store.write_search(lease, ready.to, &rows, changes);
        if !written.await? {
            return Ok(false);
        }
        reader.lease.cursor = ready.to;
        let rows = rows.len() + changes.len();
        self.metrics.rows.inc_by(rows as u64);
        Ok(true)
    }
}

impl Reader {
    fn saved(mut self, at: LogCursor) -> Self {
        self.lease.cursor = at;
        self
    }
}

/// Seconds since the event happened; 0 for one from a clock ahead of ours.
fn age_secs(event: EventId, now: time::OffsetDateTime) -> f64 {
    let now_ms = now.unix_timestamp_nanos() / 1_000_000;
    let age_ms = now_ms.saturating_sub(i128::from(event.unix_ms())).max(0);
    age_ms as f64 / 1_000.0
}

/// The lowest id an event of this time can have.
fn lowest_id(at: time::OffsetDateTime) -> Uuid {
    let unix_ms = u64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap_or(0);
    Uuid::from_u128(u128::from(unix_ms) << 80)
}
