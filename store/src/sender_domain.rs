//! Sending domains: what an account has registered and what it has proved.

use mail::domain_name::DomainName;
use mail::ids::DomainId;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::cache::cached;
use crate::database::Store;
use crate::decode::domain_name;
use crate::error::{During, StoreError};
use crate::numbers::{AccountNo, DomainNo};

/// A domain of an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SenderDomain {
    /// Inside.
    pub no: DomainNo,
    /// Outside.
    pub id: DomainId,
    /// Whose.
    pub account: AccountNo,
    /// Its name.
    pub name: DomainName,
    /// The account has proved that the domain is its own.
    pub verified: bool,
    /// The subdomain its bounces return to; none when they return to the platform's domain.
    pub return_path: Option<OwnReturnPath>,
}

/// A subdomain of the sending domain that leads bounces to the platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnReturnPath {
    /// The subdomain.
    pub domain: DomainName,
    /// For deliveries first due at this time or later: those before keep what they began with.
    pub from: OffsetDateTime,
}

/// The columns of a [`SenderDomain`].
macro_rules! columns {
    () => {
        "id, public_id, account, name, verified_at IS NOT NULL, return_path_label, return_path_from"
    };
}

type Columns = (i32, Uuid, i32, String, bool, String, Option<OffsetDateTime>);

impl SenderDomain {
    fn from_columns(
        (no, id, account, name, verified, label, from): Columns,
    ) -> Result<Self, StoreError> {
        let own_path = |from| {
            let domain = domain_name(&format!("{label}.{name}"))?;
            Ok::<_, StoreError>(OwnReturnPath { domain, from })
        };
        Ok(Self {
            return_path: from.map(own_path).transpose()?,
            no: DomainNo(no),
            id: DomainId::from_uuid(id),
            account: AccountNo(account),
            name: domain_name(&name)?,
            verified,
        })
    }
}

impl Store {
    /// Registers a domain, not verified yet.
    ///
    /// # Errors
    /// `Conflict` when the account has it already; of the database.
    pub async fn create_domain(
        &self,
        id: DomainId,
        account: AccountNo,
        name: &DomainName,
        at: OffsetDateTime,
    ) -> Result<SenderDomain, StoreError> {
        let no: i32 = sqlx::query_scalar(
            "INSERT INTO domain (public_id, account, name, created_at) VALUES ($1, $2, $3, $4)
             RETURNING id",
        )
        .bind(id.uuid())
        .bind(account.0)
        .bind(name.as_str())
        .bind(at)
        .fetch_one(&self.general)
        .await
        .unless_taken("register a domain", "domain")?;
        self.cache
            .sender_domains
            .invalidate(&(account, name.clone()))
            .await;
        Ok(SenderDomain {
            no: DomainNo(no),
            id,
            account,
            name: name.clone(),
            verified: false,
            return_path: None,
        })
    }

    /// Notes that the operator vouches for the account's right to the domain, whatever its records
    /// say; the first proof's time stays.
    ///
    /// # Errors
    /// `Conflict` when another account has proved it; of the database.
    pub async fn verify_domain(&self, no: DomainNo, at: OffsetDateTime) -> Result<(), StoreError> {
        let row: Option<Columns> = sqlx::query_as(concat!(
            "UPDATE domain SET verified_at = coalesce(verified_at, $2), vouched = true,
                                   proved = true, failed_at = NULL, revision = revision + 1
                 WHERE id = $1 AND removed_at IS NULL RETURNING ",
            columns!()
        ))
        .bind(no.0)
        .bind(at)
        .fetch_optional(&self.general)
        .await
        .unless_taken("mark a domain as verified", "domain")?;
        if let Some(domain) = row.map(SenderDomain::from_columns).transpose()? {
            self.cache
                .sender_domains
                .invalidate(&(domain.account, domain.name))
                .await;
            self.cache.sender_domains_by_no.invalidate(&no).await;
        }
        Ok(())
    }

    /// True if another account has proved the domain.
    ///
    /// # Errors
    /// Of the database.
    pub async fn is_proved_by_another(
        &self,
        account: AccountNo,
        name: &DomainName,
    ) -> Result<bool, StoreError> {
        sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM domain
                            WHERE name = $2 AND account <> $1 AND verified_at IS NOT NULL)",
        )
        .bind(account.0)
        .bind(name.as_str())
        .fetch_one(&self.general)
        .await
        .during("look for other owners of a domain")
    }

    /// The account's domain of that name, at most 10 s old.
    ///
    /// # Errors
    /// Of the database.
    pub async fn sender_domain(
        &self,
        account: AccountNo,
        name: &DomainName,
    ) -> Result<Option<SenderDomain>, StoreError> {
        let load = async {
            let row: Option<Columns> = sqlx::query_as(concat!(
                "SELECT ",
                columns!(),
                " FROM domain WHERE account = $1 AND name = $2 AND removed_at IS NULL"
            ))
            .bind(account.0)
            .bind(name.as_str())
            .fetch_optional(&self.general)
            .await
            .during("find a domain by name")?;
            row.map(SenderDomain::from_columns).transpose()
        };
        cached(&self.cache.sender_domains, (account, name.clone()), load).await
    }

    /// The domain of that number, at most 10 s old; also one that was removed, while mail may still
    /// be queued.
    ///
    /// # Errors
    /// Of the database.
    pub async fn sender_domain_by_no(
        &self,
        no: DomainNo,
    ) -> Result<Option<SenderDomain>, StoreError> {
        let load = async {
            let row: Option<Columns> =
                sqlx::query_as(concat!("SELECT ", columns!(), " FROM domain WHERE id = $1"))
                    .bind(no.0)
                    .fetch_optional(&self.general)
                    .await
                    .during("find a domain by number")?;
            row.map(SenderDomain::from_columns).transpose()
        };
        cached(&self.cache.sender_domains_by_no, no, load).await
    }

    /// All domains of an account, oldest first.
    ///
    /// # Errors
    /// Of the database.
    pub async fn sender_domains(
        &self,
        account: AccountNo,
    ) -> Result<Vec<SenderDomain>, StoreError> {
        let rows: Vec<Columns> = sqlx::query_as(concat!(
            "SELECT ",
            columns!(),
            " FROM domain WHERE account = $1 AND removed_at IS NULL ORDER BY id"
        ))
        .bind(account.0)
        .fetch_all(&self.general)
        .await
        .during("list domains")?;
        rows.into_iter().map(SenderDomain::from_columns).collect()
    }
}
