//! DKIM keys of sending domains: sealed in the database, ready to sign in memory.

use std::sync::Arc;

use mail::dkim::{Signer, SigningKey};
use time::OffsetDateTime;

use crate::cache::cached;
use crate::database::Store;
use crate::decode::domain_name;
use crate::error::{During, StoreError};
use crate::numbers::DomainNo;
use crate::seal::Sealer;

/// Binds a sealed key to its row.
fn place(domain: DomainNo, selector: &str) -> String {
    format!("dkim_key/{}/{selector}", domain.0)
}

/// A key as its row holds it.
pub(crate) struct SealedKey {
    pub(crate) seal_key: i32,
    pub(crate) private_key: Vec<u8>,
    pub(crate) public_txt: String,
}

impl SealedKey {
    pub(crate) fn new(
        domain: DomainNo,
        selector: &str,
        key: &SigningKey,
        sealer: &Sealer,
    ) -> Result<Self, StoreError> {
        let invalid = |detail: String| StoreError::Invalid {
            what: "DKIM key",
            detail,
        };
        let der = key
            .to_pkcs8_der()
            .map_err(|error| invalid(error.to_string()))?;
        let public_txt = key
            .public_txt()
            .map_err(|error| invalid(error.to_string()))?;
        let (seal_key, private_key) = sealer
            .seal(&der, place(domain, selector).as_bytes())
            .map_err(|error| invalid(error.to_string()))?;
        Ok(Self {
            seal_key,
            private_key,
            public_txt,
        })
    }
}

impl Store {
    /// Adds a key to a domain; it signs from now on (elsewhere within a minute).
    ///
    /// # Errors
    /// `Conflict` when the domain has that selector; `Invalid` when the key cannot be written or
    /// sealed; of the database.
    pub async fn add_dkim_key(
        &self,
        domain: DomainNo,
        selector: &str,
        key: &SigningKey,
        sealer: &Sealer,
        at: OffsetDateTime,
    ) -> Result<(), StoreError> {
        let sealed = SealedKey::new(domain, selector, key, sealer)?;
        sqlx::query(
            "INSERT INTO dkim_key (domain, selector, seal_key, private_key, public_txt, created_at)
             VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(domain.0)
        .bind(selector)
        .bind(sealed.seal_key)
        .bind(sealed.private_key)
        .bind(sealed.public_txt)
        .bind(at)
        .execute(&self.general)
        .await
        .unless_taken("add a DKIM key", "DKIM selector")?;
        self.cache.signers.invalidate(&domain).await;
        Ok(())
    }

    /// The domain's keys that sign, newest first, at most a minute old. Empty when it has none.
    ///
    /// # Errors
    /// `Corrupt` when a key does not open with the master keys given; of the database.
    pub async fn dkim_signers(
        &self,
        domain: DomainNo,
        sealer: &Sealer,
    ) -> Result<Arc<Vec<Signer>>, StoreError> {
        cached(
            &self.cache.signers,
            domain,
            self.load_signers(domain, sealer),
        )
        .await
    }

    async fn load_signers(
        &self,
        domain: DomainNo,
        sealer: &Sealer,
    ) -> Result<Arc<Vec<Signer>>, StoreError> {
        let rows: Vec<(String, String, i32, Vec<u8>)> = sqlx::query_as(
            "SELECT d.name, k.selector, k.seal_key, k.private_key
             FROM dkim_key k JOIN domain d ON d.id = k.domain
             WHERE k.domain = $1 AND NOT k.waiting AND k.retired_at IS NULL
             ORDER BY k.created_at DESC, k.selector",
        )
        .bind(domain.0)
        .fetch_all(&self.general)
        .await
        .during("read DKIM keys")?;
        let open = |(name, selector, seal_key, sealed): (String, String, i32, Vec<u8>)| {
            let der = sealer
                .open(seal_key, &sealed, place(domain, &selector).as_bytes())
                .map_err(|error| StoreError::corrupt("DKIM key", error))?;
            let key = SigningKey::from_pem_or_der(&der)
                .map_err(|error| StoreError::corrupt("DKIM key", error))?;
            Signer::new(domain_name(&name)?, &selector, key)
                .map_err(|error| StoreError::corrupt("DKIM selector", error))
        };
        rows.into_iter()
            .map(open)
            .collect::<Result<Vec<_>, _>>()
            .map(Arc::new)
    }

    /// Selector and TXT record of the domain's keys, newest first, for those who publish them.
    ///
    /// # Errors
    /// Of the database.
    pub async fn dkim_records(
        &self,
        domain: DomainNo,
    ) -> Result<Vec<(String, String)>, StoreError> {
        sqlx::query_as(
            "SELECT selector, public_txt FROM dkim_key WHERE domain = $1
             ORDER BY created_at DESC, selector",
        )
        .bind(domain.0)
        .fetch_all(&self.general)
        .await
        .during("read DKIM records")
    }
}
