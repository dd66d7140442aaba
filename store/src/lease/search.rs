//! Who reads the event log for the search index, and how far it has come. One reader at a time; the
//! others take over when it lapses.

use std::time::Duration;

use uuid::Uuid;

use crate::database::Store;
use crate::error::{During, StoreError};
use crate::numbers::Epoch;
use crate::webhook_log::LogCursor;

/// `$1` owner, `$2` seconds.
const TAKE: &str = "
UPDATE search_reader l
SET owner = $1::uuid, expires_at = now() + make_interval(secs => $2::float8),
    epoch = CASE WHEN l.owner = $1::uuid AND l.expires_at >= now() THEN l.epoch ELSE l.epoch + 1 END
WHERE l.number = 0 AND (l.owner IS NULL OR l.owner = $1::uuid OR l.expires_at < now())
RETURNING l.epoch, l.cursor_xid::text, l.cursor_id";

/// The right to fill the search index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SearchLease {
    /// Whose.
    pub owner: Uuid,
    /// How often it was taken.
    pub epoch: Epoch,
    /// What of the log is in the index.
    pub cursor: LogCursor,
}

impl Store {
    /// Takes or renews the lease for `ttl`; none while another owner holds it.
    ///
    /// # Errors
    /// Of the database.
    pub async fn search_take(
        &self,
        owner: Uuid,
        ttl: Duration,
    ) -> Result<Option<SearchLease>, StoreError> {
        let row: Option<(i64, String, Uuid)> = sqlx::query_as(TAKE)
            .bind(owner)
            .bind(ttl.as_secs_f64())
            .fetch_optional(&self.general)
            .await
            .during("take the search index")?;
        row.map(|(epoch, xid, id)| {
            Ok(SearchLease {
                owner,
                epoch: Epoch(epoch),
                cursor: LogCursor::from_columns(&xid, id)?,
            })
        })
        .transpose()
    }

    /// Gives the lease back, if it is still held under this epoch.
    ///
    /// # Errors
    /// Of the database; then it lapses by itself.
    pub async fn search_release(&self, lease: &SearchLease) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE search_reader SET owner = NULL, expires_at = '-infinity'
             WHERE number = 0 AND owner = $1 AND epoch = $2",
        )
        .bind(lease.owner)
        .bind(lease.epoch.0)
        .execute(&self.general)
        .await
        .during("release the search index")?;
        Ok(())
    }
}
