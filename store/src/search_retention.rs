//! Days of the search index end with the mail they tell of.

use std::time::Duration;

use sqlx::Connection;
use time::Date;

use crate::connections::within_limit;
use crate::database::Store;
use crate::error::{During, StoreError};
use crate::partitions::PARTITION_LOCK;

/// More than it can wait for its lock.
const PATIENCE: Duration = Duration::from_secs(20);

impl Store {
    /// Drops the days before `today` of the search index whose messages are gone; how many tables
    /// that were.
    ///
    /// # Errors
    /// Of the database; also when somebody reads such a day for long. What could be dropped is.
    pub async fn drop_search_partitions(&self, today: Date) -> Result<usize, StoreError> {
        let operation = "drop days of the search index";
        let ended: Vec<String> = sqlx::query_scalar(
            "SELECT c.relname::text
             FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
             WHERE i.inhparent IN ('email_search'::regclass, 'email_span'::regclass)
               AND c.relname ~ '_[0-9]{8}$'
               AND to_date(right(c.relname, 8), 'YYYYMMDD') < $1
               AND to_regclass('message_' || right(c.relname, 8)) IS NULL
             ORDER BY c.relname",
        )
        .bind(today)
        .fetch_all(&self.general)
        .await
        .during(operation)?;
        for partition in &ended {
            let mut checkout = self.general.checkout().await.during(operation)?;
            let dropped = within_limit(PATIENCE, drop_one(checkout.raw(), partition)).await;
            checkout.give_back(&dropped);
            dropped.during(operation)?;
        }
        Ok(ended.len())
    }
}

async fn drop_one(connection: &mut sqlx::PgConnection, partition: &str) -> Result<(), sqlx::Error> {
    let mut transaction = connection.begin().await?;
    // Not beside one who makes partitions; and those who list wait behind us, so not for long.
    sqlx::query("SELECT pg_advisory_xact_lock($1)")
        .bind(PARTITION_LOCK)
        .execute(&mut *transaction)
        .await?;
    sqlx::query("SET LOCAL lock_timeout = '500ms'")
        .execute(&mut *transaction)
        .await?;
    sqlx::query("SELECT drop_search_partition($1)")
        .bind(partition)
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await
}
