//! Partitions of a day: made ahead of time, beside running accepts and settles.

use std::time::Duration;

use sqlx::{Connection, PgConnection};
use time::Date;

use crate::connections::within_limit;
use crate::database::Store;
use crate::error::{During, StoreError};

/// Each has a partition a day.
const PARENTS: [&str; 8] = [
    "message",
    "event",
    "content_1",
    "content_7",
    "content_30",
    "email_search",
    "email_span",
    "webhook_call",
];
const CONTENT_PARENTS: [&str; 3] = ["content_1", "content_7", "content_30"];
/// Any number: only one process at a time makes a partition.
pub(crate) const PARTITION_LOCK: i64 = 0x706f_7374_7061_7274;
/// Tries for one partition that something reads for long.
const TRIES: u32 = 5;
const LOCK_NOT_AVAILABLE: &str = "55P03";
/// Of the bounds of a DEFAULT partition, when it would lose a day of which it holds rows.
const CHECK_VIOLATION: &str = "23514";
/// More than `TRIES` waits for the lock of a partition; nobody waits for the result.
const PATIENCE: Duration = Duration::from_secs(20);

impl Store {
    /// Makes what is missing of the partitions of these UTC days.
    ///
    /// # Errors
    /// Of the database, also when a DEFAULT partition is read by something that takes minutes;
    /// `DayInDefault` if nothing else is wrong than that one holds rows of such a day already. What
    /// could be made is made all the same.
    pub async fn make_partitions(
        &self,
        days: impl Iterator<Item = Date>,
    ) -> Result<(), StoreError> {
        self.make_days(&PARENTS, days).await
    }

    /// Makes what is missing of the partitions of content that is due on these UTC days: it is
    /// filed under the day it is due, which may be far ahead.
    ///
    /// # Errors
    /// As [`Store::make_partitions`].
    pub async fn make_content_partitions(
        &self,
        days: impl Iterator<Item = Date>,
    ) -> Result<(), StoreError> {
        self.make_days(&CONTENT_PARENTS, days).await
    }

    async fn make_days(
        &self,
        parents: &[&'static str],
        days: impl Iterator<Item = Date>,
    ) -> Result<(), StoreError> {
        let operation = "make partitions";
        let (mut result, mut in_default) = (Ok(()), None);
        for day in days {
            for table in parents {
                let mut checkout = self.general.checkout().await.during(operation)?;
                let made = within_limit(PATIENCE, make_patiently(checkout.raw(), table, day)).await;
                checkout.give_back(&made);
                match made {
                    Err(error) if sqlstate_is(&error, CHECK_VIOLATION) => {
                        in_default = Some(StoreError::DayInDefault { table, day });
                    }
                    made => result = result.and(made.during(operation)),
                }
            }
        }
        result.and(in_default.map_or(Ok(()), Err))
    }

    /// Rows that no day's partition took, at most 1,000 a table. Any number above zero means that
    /// partitions were made too late.
    ///
    /// # Errors
    /// Of the database.
    pub async fn default_partition_rows(&self) -> Result<i64, StoreError> {
        sqlx::query_scalar(
            "SELECT (SELECT count(*) FROM (SELECT FROM message_default LIMIT 1000) t)
                  + (SELECT count(*) FROM (SELECT FROM event_default LIMIT 1000) t)
                  + (SELECT count(*) FROM (SELECT FROM content_1_default LIMIT 1000) t)
                  + (SELECT count(*) FROM (SELECT FROM content_7_default LIMIT 1000) t)
                  + (SELECT count(*) FROM (SELECT FROM content_30_default LIMIT 1000) t)
                  + (SELECT count(*) FROM (SELECT FROM email_search_default LIMIT 1000) t)
                  + (SELECT count(*) FROM (SELECT FROM email_span_default LIMIT 1000) t)
                  + (SELECT count(*) FROM (SELECT FROM webhook_call_default LIMIT 1000) t)",
        )
        .fetch_one(&self.general)
        .await
        .during("count rows outside of partitions")
    }
}

fn sqlstate_is(error: &sqlx::Error, state: &str) -> bool {
    matches!(error, sqlx::Error::Database(error) if error.code().as_deref() == Some(state))
}

async fn make_patiently(
    connection: &mut PgConnection,
    parent: &str,
    day: Date,
) -> Result<(), sqlx::Error> {
    let mut made = make(connection, parent, day).await;
    for _ in 1..TRIES {
        match &made {
            Err(error) if sqlstate_is(error, LOCK_NOT_AVAILABLE) => {}
            _ => break,
        }
        made = make(connection, parent, day).await;
    }
    made
}

/// While it waits for a lock, those who come after it wait too: hence the short `lock_timeout`.
async fn make(connection: &mut PgConnection, parent: &str, day: Date) -> Result<(), sqlx::Error> {
    let mut transaction = connection.begin().await?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)")
        .bind(PARTITION_LOCK)
        .execute(&mut *transaction)
        .await?;
    sqlx::query("SET LOCAL lock_timeout = '500ms'")
        .execute(&mut *transaction)
        .await?;
    sqlx::query("SELECT make_day_partition($1, $2)")
        .bind(parent)
        .bind(day)
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await
}
