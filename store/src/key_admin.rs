//! What an account does with its API keys: makes, lists, rotates and revokes them; and when each was
//! last used. Who may do that is not decided here.

use mail::domain_name::DomainName;
use mail::ids::ApiKeyId;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::database::Store;
use crate::decode::domain_texts;
use crate::error::{During, StoreError};
use crate::key::{ApiKey, Columns, from_columns};
use crate::numbers::AccountNo;

/// A key to be made.
#[derive(Debug)]
pub struct NewApiKey<'a> {
    /// What it may do.
    pub key: &'a ApiKey,
    /// Over the whole secret text.
    pub secret_sha256: [u8; 32],
    /// What people recognise it by.
    pub hint: &'a str,
    /// What its account calls it; no control characters.
    pub name: &'a str,
    /// Now.
    pub created_at: OffsetDateTime,
}

/// Which keys somebody may see and change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeysOf<'a> {
    /// Those of this account,
    pub account: AccountNo,
    /// and of these only the test keys.
    pub only_test: bool,
    /// and of these only keys that are restricted to some of these domains; none: all.
    pub within_domains: Option<&'a [DomainName]>,
}

/// A key as its account sees it. Its own `expires_at` is that of the newest secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySummary {
    /// What it may do.
    pub key: ApiKey,
    /// What its account calls it.
    pub name: String,
    /// What people recognise it by.
    pub hint: String,
    /// Made at.
    pub created_at: OffsetDateTime,
    /// Used at, to about a minute.
    pub last_used_at: Option<OffsetDateTime>,
    /// The secret before the last rotation ends then.
    pub previous_until: Option<OffsetDateTime>,
    /// Ended at.
    pub revoked_at: Option<OffsetDateTime>,
}

#[derive(sqlx::FromRow)]
struct Row {
    id: Uuid,
    account: i32,
    test: bool,
    scopes: Vec<String>,
    domains: Option<Vec<String>>,
    networks: Option<Vec<String>>,
    expires_at: Option<OffsetDateTime>,
    name: String,
    hint: String,
    created_at: OffsetDateTime,
    last_used_at: Option<OffsetDateTime>,
    previous_until: Option<OffsetDateTime>,
    revoked_at: Option<OffsetDateTime>,
}

impl Row {
    fn summary(self) -> Result<KeySummary, StoreError> {
        let columns: Columns = (
            self.id,
            self.account,
            self.test,
            self.scopes,
            self.domains,
            self.networks,
            self.expires_at,
        );
        Ok(KeySummary {
            key: from_columns(columns)?,
            name: self.name,
            hint: self.hint,
            created_at: self.created_at,
            last_used_at: self.last_used_at,
            previous_until: self.previous_until,
            revoked_at: self.revoked_at,
        })
    }
}

impl Store {
    /// Makes a key.
    ///
    /// # Errors
    /// `Conflict` when id or hash is taken; of the database.
    pub async fn add_key(&self, new: &NewApiKey<'_>) -> Result<(), StoreError> {
        let key = new.key;
        let domains = key.domains.as_deref().map(domain_texts);
        sqlx::query(
            "INSERT INTO api_key (id, account, hash, hint, test, scopes, created_at, expires_at,
                                  name, domains, networks)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        )
        .bind(key.id.uuid())
        .bind(key.account.0)
        .bind(&new.secret_sha256[..])
        .bind(new.hint)
        .bind(key.test)
        .bind(&key.scopes)
        .bind(new.created_at)
        .bind(key.expires_at)
        .bind(new.name)
        .bind(domains)
        .bind(&key.networks)
        .execute(&self.general)
        .await
        .unless_taken("create an API key", "API key")?;
        self.cache.unknown_keys.invalidate(&new.secret_sha256).await;
        Ok(())
    }

    /// Keys that are neither revoked nor expired.
    ///
    /// # Errors
    /// Of the database.
    pub async fn count_keys(
        &self,
        account: AccountNo,
        at: OffsetDateTime,
    ) -> Result<i64, StoreError> {
        sqlx::query_scalar(
            "SELECT count(*) FROM api_key
             WHERE account = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $2)",
        )
        .bind(account.0)
        .bind(at)
        .fetch_one(&self.general)
        .await
        .during("count API keys")
    }

    /// Oldest first, continuing after the key `after`; revoked and expired ones too.
    ///
    /// # Errors
    /// Of the database.
    pub async fn keys(
        &self,
        of: KeysOf<'_>,
        limit: i64,
        after: Option<ApiKeyId>,
    ) -> Result<Vec<KeySummary>, StoreError> {
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT id, account, test, scopes, domains, networks, expires_at, name, hint,
                    created_at, last_used_at, previous_until, revoked_at
             FROM api_key WHERE account = $1 AND id > $3 AND (test OR NOT $2)
                                AND ($5::text[] IS NULL OR domains <@ $5)
             ORDER BY id LIMIT $4",
        )
        .bind(of.account.0)
        .bind(of.only_test)
        .bind(after.map_or(Uuid::nil(), ApiKeyId::uuid))
        .bind(limit)
        .bind(of.within_domains.map(domain_texts))
        .fetch_all(&self.general)
        .await
        .during("list API keys")?;
        rows.into_iter().map(Row::summary).collect()
    }

    /// One key.
    ///
    /// # Errors
    /// Of the database.
    pub async fn key(
        &self,
        of: KeysOf<'_>,
        id: ApiKeyId,
    ) -> Result<Option<KeySummary>, StoreError> {
        let row: Option<Row> = sqlx::query_as(
            "SELECT id, account, test, scopes, domains, networks, expires_at, name, hint,
                    created_at, last_used_at, previous_until, revoked_at
             FROM api_key WHERE account = $1 AND id = $3 AND (test OR NOT $2)
                                AND ($4::text[] IS NULL OR domains <@ $4)",
        )
        .bind(of.account.0)
        .bind(of.only_test)
        .bind(id.uuid())
        .bind(of.within_domains.map(domain_texts))
        .fetch_optional(&self.general)
        .await
        .during("read an API key")?;
        row.map(Row::summary).transpose()
    }

    /// Gives a key another secret; the one before is accepted until `previous_until`, an older one
    /// no more. Other processes may notice up to 5 s later. False when there is no such key or it
    /// has ended.
    ///
    /// # Errors
    /// `Conflict` when the hash is taken; of the database.
    pub async fn rotate_key(
        &self,
        of: KeysOf<'_>,
        id: ApiKeyId,
        secret_sha256: [u8; 32],
        hint: &str,
        previous_until: OffsetDateTime,
        at: OffsetDateTime,
    ) -> Result<bool, StoreError> {
        let before: Option<(Vec<u8>, Option<Vec<u8>>)> = sqlx::query_as(
            "WITH before AS (
               SELECT id, hash, previous_hash FROM api_key
               WHERE account = $1 AND id = $3 AND (test OR NOT $2) AND revoked_at IS NULL
                     AND (expires_at IS NULL OR expires_at > $7)
                     AND ($8::text[] IS NULL OR domains <@ $8)
               FOR NO KEY UPDATE)
             UPDATE api_key SET hash = $4, hint = $5, previous_hash = before.hash,
                                previous_until = $6
             FROM before WHERE api_key.id = before.id
             RETURNING before.hash, before.previous_hash",
        )
        .bind(of.account.0)
        .bind(of.only_test)
        .bind(id.uuid())
        .bind(&secret_sha256[..])
        .bind(hint)
        .bind(previous_until)
        .bind(at)
        .bind(of.within_domains.map(domain_texts))
        .fetch_optional(&self.general)
        .await
        .unless_taken("rotate an API key", "API key")?;
        let Some((hash, previous)) = before else {
            return Ok(false);
        };
        self.cache.unknown_keys.invalidate(&secret_sha256).await;
        self.forget_hashes([Some(hash), previous]).await;
        Ok(true)
    }

    /// Ends a key with all its secrets; other processes may let it in for 5 s more. The first
    /// revocation's time stays. False when there is no such key.
    ///
    /// # Errors
    /// Of the database.
    pub async fn revoke_key(
        &self,
        of: KeysOf<'_>,
        id: ApiKeyId,
        at: OffsetDateTime,
    ) -> Result<bool, StoreError> {
        let hashes: Option<(Vec<u8>, Option<Vec<u8>>)> = sqlx::query_as(
            "UPDATE api_key SET revoked_at = coalesce(revoked_at, $4)
             WHERE account = $1 AND id = $3 AND (test OR NOT $2)
                   AND ($5::text[] IS NULL OR domains <@ $5)
             RETURNING hash, previous_hash",
        )
        .bind(of.account.0)
        .bind(of.only_test)
        .bind(id.uuid())
        .bind(at)
        .bind(of.within_domains.map(domain_texts))
        .fetch_optional(&self.general)
        .await
        .during("revoke an API key")?;
        let Some((hash, previous)) = hashes else {
            return Ok(false);
        };
        self.forget_hashes([Some(hash), previous]).await;
        Ok(true)
    }

    async fn forget_hashes(&self, hashes: [Option<Vec<u8>>; 2]) {
        for hash in hashes.into_iter().flatten() {
            if let Ok(hash) = <[u8; 32]>::try_from(hash) {
                self.cache.keys.invalidate(&hash).await;
            }
        }
    }

    /// Notes when keys were last used; never turns a time back. Rows that another process holds
    /// at the moment are passed over: it writes about the same minute.
    ///
    /// # Errors
    /// Of the database.
    pub async fn note_key_uses(
        &self,
        uses: &[(ApiKeyId, OffsetDateTime)],
    ) -> Result<u64, StoreError> {
        let (ids, times): (Vec<Uuid>, Vec<OffsetDateTime>) =
            uses.iter().map(|(id, at)| (id.uuid(), *at)).unzip();
        let done = sqlx::query(
            "WITH used AS (SELECT id, at FROM unnest($1::uuid[], $2::timestamptz[]) AS u (id, at)),
             free AS (
               SELECT api_key.id, used.at FROM used JOIN api_key USING (id)
               WHERE api_key.last_used_at IS NULL OR api_key.last_used_at < used.at
               FOR NO KEY UPDATE OF api_key SKIP LOCKED)
             UPDATE api_key SET last_used_at = free.at FROM free WHERE api_key.id = free.id",
        )
        .bind(ids)
        .bind(times)
        .execute(&self.general)
        .await
        .during("note the use of API keys")?;
        Ok(done.rows_affected())
    }
}
