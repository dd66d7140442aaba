//! What an operator sees and does on the database itself: all accounts, their keys, pools, sources.
//! For commands on the operator's machine; nothing here asks whose request it is.

use std::net::IpAddr;

use mail::ids::{AccountId, ApiKeyId, PoolId};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::account::Account;
use crate::database::Store;
use crate::error::{During, StoreError};
use crate::numbers::{AccountNo, PoolNo};
use crate::pool::{Pool, PoolKind};

/// An account in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountRecord {
    /// Which.
    pub account: Account,
    /// Made at.
    pub created_at: OffsetDateTime,
    /// Keys that were not revoked and have not expired.
    pub keys: i64,
    /// Its sending domains that are verified.
    pub verified_domains: i64,
    /// Was shut out at; its keys are refused.
    pub disabled_at: Option<OffsetDateTime>,
}

/// A key in a list: enough to recognise it, not to use it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRecord {
    /// Outside.
    pub id: ApiKeyId,
    /// Whose, by name.
    pub account: String,
    /// The end of its text.
    pub hint: String,
    /// Reaches only the sandbox.
    pub test: bool,
    /// What it may do.
    pub scopes: Vec<String>,
    /// Made at.
    pub created_at: OffsetDateTime,
    /// Ends by itself at.
    pub expires_at: Option<OffsetDateTime>,
    /// Was ended at.
    pub revoked_at: Option<OffsetDateTime>,
}

/// An address mail was or is sent from, as nodes named it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceRecord {
    /// The number that events have.
    pub number: i32,
    /// None: the system of the node chooses.
    pub address: Option<IpAddr>,
    /// Name in EHLO.
    pub ehlo: String,
}

type KeyColumns = (
    Uuid,
    String,
    String,
    bool,
    Vec<String>,
    OffsetDateTime,
    Option<OffsetDateTime>,
    Option<OffsetDateTime>,
);

impl KeyRecord {
    fn from_columns(columns: KeyColumns) -> Self {
        let (id, account, hint, test, scopes, created_at, expires_at, revoked_at) = columns;
        Self {
            id: ApiKeyId::from_uuid(id),
            account,
            hint,
            test,
            scopes,
            created_at,
            expires_at,
            revoked_at,
        }
    }
}

impl Store {
    /// All accounts, oldest first; keys count if they are good at `at`.
    ///
    /// # Errors
    /// Of the database.
    pub async fn account_records(
        &self,
        at: OffsetDateTime,
    ) -> Result<Vec<AccountRecord>, StoreError> {
        type Columns = (
            i32,
            Uuid,
            String,
            OffsetDateTime,
            i64,
            i64,
            Option<OffsetDateTime>,
        );
        let rows: Vec<Columns> = sqlx::query_as(
            "SELECT a.id, a.public_id, a.name, a.created_at,
                    (SELECT count(*) FROM api_key k WHERE k.account = a.id
                       AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > $1)),
                    (SELECT count(*) FROM domain d WHERE d.account = a.id
                       AND d.verified_at IS NOT NULL AND d.removed_at IS NULL),
                    a.disabled_at
             FROM account a ORDER BY a.id",
        )
        .bind(at)
        .fetch_all(&self.general)
        .await
        .during("list accounts")?;
        let record = |row: Columns| {
            let (no, id, name, created_at, keys, verified_domains, disabled_at) = row;
            AccountRecord {
                account: Account {
                    no: AccountNo(no),
                    id: AccountId::from_uuid(id),
                    name,
                },
                created_at,
                keys,
                verified_domains,
                disabled_at,
            }
        };
        Ok(rows.into_iter().map(record).collect())
    }

    /// The account of that id.
    ///
    /// # Errors
    /// Of the database.
    pub async fn account_by_id(&self, id: AccountId) -> Result<Option<Account>, StoreError> {
        let row: Option<(i32, String)> =
            sqlx::query_as("SELECT id, name FROM account WHERE public_id = $1")
                .bind(id.uuid())
                .fetch_optional(&self.general)
                .await
                .during("find an account by id")?;
        Ok(row.map(|(no, name)| Account {
            no: AccountNo(no),
            id,
            name,
        }))
    }

    /// Keys of one account or of all, oldest first, those that ended too.
    ///
    /// # Errors
    /// Of the database.
    pub async fn key_records(
        &self,
        account: Option<AccountNo>,
    ) -> Result<Vec<KeyRecord>, StoreError> {
        let rows: Vec<KeyColumns> = sqlx::query_as(
            "SELECT k.id, a.name, k.hint, k.test, k.scopes, k.created_at, k.expires_at, k.revoked_at
             FROM api_key k JOIN account a ON a.id = k.account
             WHERE $1::int4 IS NULL OR k.account = $1 ORDER BY k.id",
        )
        .bind(account.map(|account| account.0))
        .fetch_all(&self.general)
        .await
        .during("list API keys")?;
        Ok(rows.into_iter().map(KeyRecord::from_columns).collect())
    }

    /// Shuts the account out, or lets it in again; when it was shut out, the first time if it was
    /// already. Running processes may take 5 s to notice. Mail it has queued is not touched.
    ///
    /// # Errors
    /// Of the database.
    pub async fn set_account_disabled(
        &self,
        account: AccountNo,
        disabled: bool,
        at: OffsetDateTime,
    ) -> Result<Option<OffsetDateTime>, StoreError> {
        let disabled_at = sqlx::query_scalar(
            "UPDATE account SET disabled_at = CASE WHEN $2 THEN coalesce(disabled_at, $3) END
             WHERE id = $1 RETURNING disabled_at",
        )
        .bind(account.0)
        .bind(disabled)
        .bind(at)
        .fetch_one(&self.general)
        .await
        .during("disable or enable an account")?;
        self.cache.keys.invalidate_all();
        Ok(disabled_at)
    }

    /// Ends a key; running processes may let it in for 5 s more. False when there is no such key or it
    /// was ended before.
    ///
    /// # Errors
    /// Of the database.
    pub async fn end_key(&self, id: ApiKeyId, at: OffsetDateTime) -> Result<bool, StoreError> {
        let hash: Option<Vec<u8>> = sqlx::query_scalar(
            "UPDATE api_key SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL RETURNING hash",
        )
        .bind(id.uuid())
        .bind(at)
        .fetch_optional(&self.general)
        .await
        .during("end an API key")?;
        if let Some(Ok(hash)) = hash.as_deref().map(<[u8; 32]>::try_from) {
            self.cache.keys.invalidate(&hash).await;
        }
        Ok(hash.is_some())
    }

    /// All pools, oldest first.
    ///
    /// # Errors
    /// Of the database.
    pub async fn pools(&self) -> Result<Vec<Pool>, StoreError> {
        let rows: Vec<(i32, Uuid, String, i16)> =
            sqlx::query_as("SELECT id, public_id, name, kind FROM pool ORDER BY id")
                .fetch_all(&self.general)
                .await
                .during("list pools")?;
        let pool = |(no, id, name, kind)| {
            Ok(Pool {
                no: PoolNo(no),
                id: PoolId::from_uuid(id),
                name,
                kind: PoolKind::from_code(kind)?,
            })
        };
        rows.into_iter().map(pool).collect()
    }

    /// All sources that any node has named, oldest first.
    ///
    /// # Errors
    /// Of the database.
    pub async fn sources(&self) -> Result<Vec<SourceRecord>, StoreError> {
        let rows: Vec<(i32, Option<String>, String)> =
            sqlx::query_as("SELECT id, address, ehlo FROM source ORDER BY id")
                .fetch_all(&self.general)
                .await
                .during("list sources")?;
        let source = |(number, address, ehlo): (i32, Option<String>, String)| {
            let parsed = address.as_deref().map(str::parse::<IpAddr>).transpose();
            Ok(SourceRecord {
                number,
                address: parsed.map_err(|error| StoreError::corrupt("source address", error))?,
                ehlo,
            })
        };
        rows.into_iter().map(source).collect()
    }
}
