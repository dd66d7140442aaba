//! Duties that keep the database in shape, each a loop of its own: partitions ahead of time,
//! rows that have served their purpose, and the numbers behind two alarms.
//! Safe in any number of workers at once; never touches the queue.

use std::time::Duration;

use mail::ids::EventId;
use service::background::{Loop, Round};
use service::clock::Clock;
use service::shutdown::Shutdown;
use store::{Store, StoreError};
use time::Date;
use tokio::sync::Notify;

use crate::metrics::UpkeepMetrics;
use crate::webhooks::lowest_id;

/// Yesterday's partitions too: what was accepted before midnight may be written after it.
const PARTITION_DAYS_BACK: i64 = 1;
/// Far enough that a worker may be missed for a week.
const PARTITION_DAYS_AHEAD: i64 = 7;
/// Content is filed under the day it is due: as far ahead as anything may be scheduled, and the
/// same week on top.
const CONTENT_DAYS_AHEAD: i64 = 30 + PARTITION_DAYS_AHEAD + 1;
/// How long a repeated request finds its first answer.
const IDEMPOTENCY_KEPT: time::Duration = time::Duration::hours(24);
/// How long the answer to a command can be asked for; whoever waits for one gives up in seconds.
const COMMANDS_KEPT: time::Duration = time::Duration::hours(1);
/// How long calls are shown to their accounts.
const CALLS_KEPT: time::Duration = time::Duration::days(7);
/// How long a replay is shown after its end.
const REPLAYS_KEPT: time::Duration = time::Duration::days(30);
/// How long calls wait for a disabled webhook to be enabled; as long as calls are repeated.
const DISABLED_CALLS_KEPT: time::Duration = time::Duration::days(3);
/// Calls of disabled webhooks that one statement forgets.
const FORGOTTEN_AT_ONCE: i64 = 5_000;
/// Newest messages the sandbox keeps.
const SANDBOX_KEPT: i64 = 1_000;
/// The one queue group that the schema knows.
const QUEUE_GROUP: i16 = 0;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// What the duties work with.
#[derive(Clone)]
pub(crate) struct Upkeep {
    pub(crate) store: Store,
    pub(crate) clock: Clock,
    pub(crate) metrics: UpkeepMetrics,
    pub(crate) shutdown: Shutdown,
}

impl Upkeep {
    /// Runs every duty until shutdown.
    pub(crate) async fn run(self) {
        tokio::join!(
            self.repeat("partitions", HOUR, || self.make_partitions()),
            self.repeat("search_retention", HOUR, || self.drop_search_days()),
            self.repeat("idempotency", HOUR, || self.age_out_idempotency()),
            self.repeat("commands", 15 * MINUTE, || self.age_out_commands()),
            self.repeat("sandbox", Duration::from_secs(60), || self.trim_sandbox()),
            self.repeat("webhooks", HOUR, || self.trim_webhooks()),
            self.repeat("write_age", Duration::from_secs(15), || self
                .measure_write_age()),
            self.repeat("unowned_shards", Duration::from_secs(15), || self
                .count_unowned_shards()),
        );
    }

    async fn repeat<F>(&self, name: &'static str, period: Duration, duty: impl Fn() -> F)
    where
        F: Future<Output = Result<(), StoreError>>,
    {
        let pace = Loop {
            name,
            period,
            backoff_max: BACKOFF_MAX,
        };
        let never_hinted = Notify::new();
        let round = || {
            let work = duty();
            async move { work.await.map(|()| Round::Idle) }
        };
        pace.run(&self.clock, &never_hinted, &self.shutdown, round)
            .await;
    }

    async fn make_partitions(&self) -> Result<(), StoreError> {
        let strays = self.store.default_partition_rows().await?;
        self.metrics.default_partition_rows.set(strays);
        if strays > 0 {
            tracing::error!(
                rows = strays,
                "rows found no day partition and are in DEFAULT ones"
            );
        }
        // One at a time: a day whose rows are in the DEFAULT partition already cannot be made any
        // more, and must not keep the days after it from being made.
        let mut result = Ok(());
        for day in partition_days(self.clock.now().date()) {
            result = result.and(self.store.make_partitions(std::iter::once(day)).await);
        }
        for day in content_days(self.clock.now().date()) {
            let made = self.store.make_content_partitions(std::iter::once(day));
            result = result.and(made.await);
        }
        result
    }

    async fn drop_search_days(&self) -> Result<(), StoreError> {
        let today = self.clock.now().date();
        let dropped = self.store.drop_search_partitions(today).await?;
        if dropped > 0 {
            tracing::info!(dropped, "days of the search index ended with their mail");
        }
        Ok(())
    }

    async fn age_out_idempotency(&self) -> Result<(), StoreError> {
        self.store
            .age_out_idempotency(self.clock.now() - IDEMPOTENCY_KEPT)
            .await?;
        Ok(())
    }

    async fn age_out_commands(&self) -> Result<(), StoreError> {
        let before = self.clock.now() - COMMANDS_KEPT;
        self.store.age_out_commands(before).await?;
        Ok(())
    }

    async fn trim_sandbox(&self) -> Result<(), StoreError> {
        self.store.trim_sandbox(SANDBOX_KEPT).await?;
        Ok(())
    }

    async fn trim_webhooks(&self) -> Result<(), StoreError> {
        let (store, now) = (&self.store, self.clock.now());
        store.forget_previous_secrets(now).await?;
        store.forget_replays(now - REPLAYS_KEPT).await?;
        let before = EventId::from_uuid(lowest_id(now - DISABLED_CALLS_KEPT));
        while store
            .drop_calls_of_disabled(before, FORGOTTEN_AT_ONCE)
            .await?
            > 0
        {}
        store.drop_orphaned_calls().await?;
        store.drop_calls_before((now - CALLS_KEPT).date()).await?;
        Ok(())
    }

    async fn measure_write_age(&self) -> Result<(), StoreError> {
        let age = self.store.oldest_write_transaction_age().await?;
        self.metrics
            .oldest_write_seconds
            .set(age.map_or(0.0, |age| age.as_secs_f64()));
        Ok(())
    }

    async fn count_unowned_shards(&self) -> Result<(), StoreError> {
        let shards = self.store.shards(QUEUE_GROUP).await?;
        let unowned = shards
            .iter()
            .filter(|shard| shard.owner.is_none() || shard.lapsed)
            .count();
        let unowned = i64::try_from(unowned).unwrap_or(i64::MAX);
        self.metrics.shards_unowned.set(unowned);
        Ok(())
    }
}

fn partition_days(today: Date) -> impl Iterator<Item = Date> {
    (-PARTITION_DAYS_BACK..=PARTITION_DAYS_AHEAD)
        .filter_map(move |days| today.checked_add(time::Duration::days(days)))
}

/// The days after those, for content that is due then.
fn content_days(today: Date) -> impl Iterator<Item = Date> {
    (PARTITION_DAYS_AHEAD + 1..=CONTENT_DAYS_AHEAD)
        .filter_map(move |days| today.checked_add(time::Duration::days(days)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::date;

    #[test]
    fn partitions_reach_from_yesterday_to_a_week_ahead() {
        let days: Vec<Date> = partition_days(date!(2026 - 12 - 27)).collect();
        assert_eq!(days.len(), 9);
        assert_eq!(days.first(), Some(&date!(2026 - 12 - 26)));
        assert_eq!(days.last(), Some(&date!(2027 - 01 - 03)));
        let days: Vec<Date> = content_days(date!(2026 - 12 - 27)).collect();
        assert_eq!(days.first(), Some(&date!(2027 - 01 - 04)));
        assert_eq!(days.last(), Some(&date!(2027 - 02 - 03)));
    }
}
