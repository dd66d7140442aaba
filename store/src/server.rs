//! What the PostgreSQL server says about itself, for benchmarks and the `doctor`. Reads numbers;
//! changes nothing.

use crate::database::Store;
use crate::error::{During, StoreError};

impl Store {
    /// Numbers of the master keys that sealed what is stored.
    ///
    /// # Errors
    /// Of the database.
    pub async fn seal_keys_in_use(&self) -> Result<Vec<i32>, StoreError> {
        sqlx::query_scalar(
            "SELECT seal_key FROM dkim_key UNION SELECT seal_key FROM webhook_endpoint",
        )
        .fetch_all(&self.general)
        .await
        .during("read which master keys are in use")
    }

    /// Octets of write-ahead log written since the cluster was made: the difference of two
    /// readings is what happened in between, by everyone.
    ///
    /// # Errors
    /// Of the database; a standby has no such position.
    pub async fn wal_position(&self) -> Result<u64, StoreError> {
        let octets: i64 =
            sqlx::query_scalar("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::int8")
                .fetch_one(&self.general)
                .await
                .during("read the position of the write-ahead log")?;
        u64::try_from(octets).map_err(|_| StoreError::corrupt("write-ahead log position", octets))
    }

    /// Octets of this database on disk, indexes included, without write-ahead log.
    ///
    /// # Errors
    /// Of the database.
    pub async fn database_size(&self) -> Result<u64, StoreError> {
        let octets: i64 = sqlx::query_scalar("SELECT pg_database_size(current_database())")
            .fetch_one(&self.general)
            .await
            .during("read the size of the database")?;
        u64::try_from(octets).map_err(|_| StoreError::corrupt("database size", octets))
    }
}
