//! The published half of DKIM keys, for a verifier that asks us instead of the DNS.

use mail::domain_name::DomainName;

use crate::database::Store;
use crate::error::{During, StoreError};

impl Store {
    /// The TXT record that belongs at `selector._domainkey.domain` (RFC 6376 section 3.6.1). Where
    /// several accounts registered the domain, one that has proved it goes first.
    ///
    /// # Errors
    /// Of the database.
    pub async fn dkim_public_txt(
        &self,
        selector: &str,
        domain: &DomainName,
    ) -> Result<Option<String>, StoreError> {
        sqlx::query_scalar(
            "SELECT k.public_txt FROM domain d JOIN dkim_key k ON k.domain = d.id
             WHERE d.name = $1 AND k.selector = $2
             ORDER BY d.verified_at IS NULL, k.created_at DESC LIMIT 1",
        )
        .bind(domain.as_str())
        .bind(selector)
        .fetch_optional(&self.general)
        .await
        .during("find a DKIM record")
    }
}
