//! The end of sending domains and of their keys: at once for their account, later for mail that was
//! accepted before.

use mail::ids::DomainId;
use time::OffsetDateTime;

use crate::database::Store;
use crate::decode::domain_name;
use crate::error::{During, StoreError};
use crate::numbers::{AccountNo, DomainNo};

impl Store {
    /// Removes a domain of the account: nothing more is sent from it. Mail that was accepted still
    /// goes, signed as before; so the keys of a domain that was ever verified stay until
    /// [`Store::purge_domains`] takes them. False when there is none.
    ///
    /// # Errors
    /// Of the database.
    pub async fn remove_domain(
        &self,
        account: AccountNo,
        id: DomainId,
        at: OffsetDateTime,
    ) -> Result<bool, StoreError> {
        let removed: Option<(i32, String)> = sqlx::query_as(
            "WITH d AS (
               SELECT id, name, proved FROM domain
               WHERE account = $1 AND public_id = $2 AND removed_at IS NULL FOR UPDATE),
             kept AS (
               UPDATE domain SET removed_at = $3, verified_at = NULL, check_at = NULL,
                                 revision = revision + 1
               WHERE id IN (SELECT id FROM d WHERE proved)),
             keys AS (
               DELETE FROM dkim_key WHERE domain IN (SELECT id FROM d WHERE NOT proved)),
             gone AS (
               DELETE FROM domain WHERE id IN (SELECT id FROM d WHERE NOT proved))
             SELECT id, name FROM d",
        )
        .bind(account.0)
        .bind(id.uuid())
        .bind(at)
        .fetch_optional(&self.general)
        .await
        .during("remove a domain")?;
        let Some((no, name)) = removed else {
            return Ok(false);
        };
        self.forget_domain(account, domain_name(&name)?, DomainNo(no))
            .await;
        Ok(true)
    }

    /// Forgets domains removed before one time, and keys retired before another. Returns how many
    /// of each.
    ///
    /// # Errors
    /// Of the database.
    pub async fn purge_domains(
        &self,
        removed_before: OffsetDateTime,
        retired_before: OffsetDateTime,
    ) -> Result<(u64, u64), StoreError> {
        let operation = "purge domains";
        let domains = sqlx::query(
            "WITH d AS (SELECT id FROM domain WHERE removed_at < $1 FOR UPDATE SKIP LOCKED),
             keys AS (DELETE FROM dkim_key WHERE domain IN (SELECT id FROM d))
             DELETE FROM domain WHERE id IN (SELECT id FROM d)",
        )
        .bind(removed_before)
        .execute(&self.general)
        .await
        .during(operation)?;
        let keys = sqlx::query("DELETE FROM dkim_key WHERE retired_at < $1")
            .bind(retired_before)
            .execute(&self.general)
            .await
            .during(operation)?;
        Ok((domains.rows_affected(), keys.rows_affected()))
    }
}
