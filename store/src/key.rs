//! API keys, known by the SHA-256 of their secret only.

use mail::ids::ApiKeyId;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::database::Store;
use crate::error::{During, StoreError};
use crate::numbers::AccountNo;

/// What a key may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// Outside.
    pub id: ApiKeyId,
    /// Whose.
    pub account: AccountNo,
    /// Reaches only the sandbox.
    pub test: bool,
    /// Such as `emails:send`.
    pub scopes: Vec<String>,
    /// Must be compared with the clock by whoever lets the key in.
    pub expires_at: Option<OffsetDateTime>,
}

impl Store {
    /// Makes a key of the account. `secret_sha256` is over the whole secret text, `hint` its first
    /// characters, by which people recognise it.
    ///
    /// # Errors
    /// `Conflict` when id or hash is taken; of the database.
    #[expect(clippy::too_many_arguments, reason = "one a column")]
    pub async fn create_key(
        &self,
        id: ApiKeyId,
        account: AccountNo,
        secret_sha256: [u8; 32],
        hint: &str,
        test: bool,
        scopes: &[String],
        at: OffsetDateTime,
        expires_at: Option<OffsetDateTime>,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO api_key (id, account, hash, hint, test, scopes, created_at, expires_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(id.uuid())
        .bind(account.0)
        .bind(&secret_sha256[..])
        .bind(hint)
        .bind(test)
        .bind(scopes)
        .bind(at)
        .bind(expires_at)
        .execute(&self.general)
        .await
        .unless_taken("create an API key", "API key")?;
        self.cache.unknown_keys.invalidate(&secret_sha256).await;
        Ok(())
    }

    /// The key with that hash unless it was revoked, at most 5 s old. The caller looks at
    /// [`ApiKey::expires_at`].
    ///
    /// # Errors
    /// Of the database.
    pub async fn key_by_hash(
        &self,
        secret_sha256: &[u8; 32],
    ) -> Result<Option<ApiKey>, StoreError> {
        if let Some(key) = self.cache.keys.get(secret_sha256).await {
            return Ok(Some(key));
        }
        if self.cache.unknown_keys.contains_key(secret_sha256) {
            return Ok(None);
        }
        let found = self.load_key(secret_sha256).await?;
        match &found {
            Some(key) => self.cache.keys.insert(*secret_sha256, key.clone()).await,
            None => self.cache.unknown_keys.insert(*secret_sha256, ()).await,
        }
        Ok(found)
    }

    async fn load_key(&self, secret_sha256: &[u8; 32]) -> Result<Option<ApiKey>, StoreError> {
        type Columns = (Uuid, i32, bool, Vec<String>, Option<OffsetDateTime>);
        let row: Option<Columns> = sqlx::query_as(
            "SELECT id, account, test, scopes, expires_at FROM api_key
             WHERE hash = $1 AND revoked_at IS NULL",
        )
        .bind(&secret_sha256[..])
        .fetch_optional(&self.general)
        .await
        .during("look up an API key")?;
        Ok(row.map(|(id, account, test, scopes, expires_at)| ApiKey {
            id: ApiKeyId::from_uuid(id),
            account: AccountNo(account),
            test,
            scopes,
            expires_at,
        }))
    }

    /// Ends a key; other processes may let it in for 5 s more. False when there is no such key or
    /// it was revoked before.
    ///
    /// # Errors
    /// Of the database.
    pub async fn revoke_key(&self, id: ApiKeyId, at: OffsetDateTime) -> Result<bool, StoreError> {
        let hash: Option<Vec<u8>> = sqlx::query_scalar(
            "UPDATE api_key SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL RETURNING hash",
        )
        .bind(id.uuid())
        .bind(at)
        .fetch_optional(&self.general)
        .await
        .during("revoke an API key")?;
        let Some(hash) = hash else { return Ok(false) };
        if let Ok(hash) = <[u8; 32]>::try_from(hash) {
            self.cache.keys.invalidate(&hash).await;
        }
        Ok(true)
    }
}
