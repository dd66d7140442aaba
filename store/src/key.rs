//! API keys as whoever lets them in needs them: found by the SHA-256 of their secret, remembered for
//! seconds. What an account does with its keys is in `key_admin.rs`.

use std::sync::Arc;

use mail::domain_name::DomainName;
use mail::ids::ApiKeyId;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::database::Store;
use crate::decode::domain_name;
use crate::error::{During, StoreError};
use crate::key_admin::NewApiKey;
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
    /// The only domains it may send from; none: all of the account.
    pub domains: Option<Vec<DomainName>>,
    /// The only networks it may be used from, in CIDR notation; none: all.
    pub networks: Option<Vec<String>>,
    /// When this secret ends, by its own expiry or by a rotation. Must be compared with the clock
    /// by whoever lets the key in.
    pub expires_at: Option<OffsetDateTime>,
}

/// A key that somebody presented, and whether its account is let in at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PresentedKey {
    /// What it may do.
    pub key: Arc<ApiKey>,
    /// The operator shut the account out. Must be looked at by whoever lets the key in.
    pub account_disabled: bool,
}

impl Store {
    /// Makes a key of the account that is restricted to nothing. `secret_sha256` is over the whole
    /// secret text, `hint` is what people recognise it by.
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
        let key = ApiKey {
            id,
            account,
            test,
            scopes: scopes.to_vec(),
            domains: None,
            networks: None,
            expires_at,
        };
        self.add_key(&NewApiKey {
            key: &key,
            secret_sha256,
            hint,
            name: "",
            created_at: at,
        })
        .await
    }

    /// The key with that hash unless it was revoked, at most 5 s old; also by the hash it had
    /// before its last rotation. The caller looks at [`ApiKey::expires_at`] and at
    /// [`PresentedKey::account_disabled`].
    ///
    /// # Errors
    /// Of the database.
    pub async fn key_by_hash(
        &self,
        secret_sha256: &[u8; 32],
    ) -> Result<Option<PresentedKey>, StoreError> {
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

    async fn load_key(&self, secret_sha256: &[u8; 32]) -> Result<Option<PresentedKey>, StoreError> {
        let row: Option<PresentedColumns> = sqlx::query_as(
            "SELECT k.id, k.account, k.test, k.scopes, k.domains, k.networks, k.expires_at,
                    a.disabled_at IS NOT NULL
             FROM (SELECT id, account, test, scopes, domains, networks, expires_at FROM api_key
                   WHERE hash = $1 AND revoked_at IS NULL
                   UNION ALL
                   SELECT id, account, test, scopes, domains, networks,
                          least(expires_at, previous_until) FROM api_key
                   WHERE previous_hash = $1 AND revoked_at IS NULL
                   LIMIT 1) k
             JOIN account a ON a.id = k.account",
        )
        .bind(&secret_sha256[..])
        .fetch_optional(&self.general)
        .await
        .during("look up an API key")?;
        let presented = |row: PresentedColumns| {
            let (id, account, test, scopes, domains, networks, expires_at, account_disabled) = row;
            let columns = (id, account, test, scopes, domains, networks, expires_at);
            Ok(PresentedKey {
                key: Arc::new(from_columns(columns)?),
                account_disabled,
            })
        };
        row.map(presented).transpose()
    }
}

/// Those of `Columns`, and whether the account is disabled.
type PresentedColumns = (
    Uuid,
    i32,
    bool,
    Vec<String>,
    Option<Vec<String>>,
    Option<Vec<String>>,
    Option<OffsetDateTime>,
    bool,
);

/// As `ApiKey` has them, in its order.
pub(crate) type Columns = (
    Uuid,
    i32,
    bool,
    Vec<String>,
    Option<Vec<String>>,
    Option<Vec<String>>,
    Option<OffsetDateTime>,
);

pub(crate) fn from_columns(
    (id, account, test, scopes, domains, networks, expires_at): Columns,
) -> Result<ApiKey, StoreError> {
    let domains = domains.map(|names| names.iter().map(|name| domain_name(name)).collect());
    Ok(ApiKey {
        id: ApiKeyId::from_uuid(id),
        account: AccountNo(account),
        test,
        scopes,
        domains: domains.transpose()?,
        networks,
        expires_at,
    })
}
