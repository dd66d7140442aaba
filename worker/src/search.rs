//! Fills the index that mail is searched with from the event log, a second or so behind it. One
//! worker at a time does; rows and cursor are written in one statement, so that neither a crash nor
//! a second worker that believes to be the one loses or repeats a page.

use std::collections::HashMap;
use std::time::Duration;

use mail::ids::{EventId, MessageId, NodeId};
use service::clock::Clock;
use service::shutdown::Shutdown;
use store::{LogCursor, SearchLease, SearchPage, SearchRow, Store, StoreError};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::metrics::SearchMetrics;

const PAGE_EVENTS: i64 = 5_000;
/// Pause at the end of the log. Not shorter: most mail is delivered within a second, and a delivery
/// that was queued and delivered in the same page is written once instead of twice.
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
                // The cursor may be of any age.
                lowest: Uuid::nil(),
                renewed,
            },
        };
        if reader.at == reader.lease.cursor {
            return Ok(Some(reader));
        }
        // Nothing was found for a while: what was looked at need not be looked at again.
        let at = reader.at;
        let is_saved = self.store.write_search(&reader.lease, at, &[]).await?;
        Ok(is_saved.then(|| reader.saved(at)))
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
        let rows = latest(page.rows);
        reader.at = to;
        if !rows.is_empty() || !page.complete {
            if !self.store.write_search(&reader.lease, to, &rows).await? {
                return Ok(false);
            }
            reader.lease.cursor = to;
            self.metrics.rows.inc_by(rows.len() as u64);
        }
        self.metrics.lag_seconds.set(lag_secs);
        Ok(true)
    }
}

impl Reader {
    fn saved(mut self, at: LogCursor) -> Self {
        self.lease.cursor = at;
        self
    }
}

/// The last word of the log about each delivery.
fn latest(rows: Vec<SearchRow>) -> Vec<SearchRow> {
    let mut latest: HashMap<(MessageId, u16), SearchRow> = HashMap::with_capacity(rows.len());
    for row in rows {
        let key = (row.message, row.rcpt);
        // Of two with one number the later one counts, as when a message is shown.
        if latest
            .get(&key)
            .is_none_or(|known| known.sequence <= row.sequence)
        {
            latest.insert(key, row);
        }
    }
    latest.into_values().collect()
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

#[cfg(test)]
mod tests {
    use mail::event::DeliveryStatus;
    use store::{AccountNo, StreamNo};

    use super::*;

    fn row(rcpt: u16, sequence: u16, status: DeliveryStatus) -> SearchRow {
        SearchRow {
            message: MessageId::from_time_and_random(1, [7; 10]),
            rcpt,
            status,
            sequence,
            account: AccountNo(1),
            stream: StreamNo(1),
            test: false,
            sender: "hello@acme.test".into(),
            recipient: "ana@example.com".into(),
            tags: Vec::new(),
        }
    }

    #[test]
    fn of_each_delivery_the_last_word_counts() {
        let mut found = latest(vec![
            row(0, 1, DeliveryStatus::Queued),
            row(1, 1, DeliveryStatus::Queued),
            row(0, 3, DeliveryStatus::Delivered),
            row(0, 2, DeliveryStatus::Deferred),
            row(0, 3, DeliveryStatus::Bounced),
        ]);
        found.sort_by_key(|row| row.rcpt);
        assert_eq!(
            found,
            [
                row(0, 3, DeliveryStatus::Bounced),
                row(1, 1, DeliveryStatus::Queued)
            ]
        );
    }
}
