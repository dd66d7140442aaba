//! Sending domains as their accounts manage them: registered with a key, listed, rotated, removed.
//! What the records of a domain mean is decided elsewhere and written by `domain_check`.

use std::collections::HashMap;

use mail::dkim::SigningKey;
use mail::domain_name::DomainName;
use mail::domain_records::{
    DOMAIN_MAX_OCTETS, DkimRecord, ExpectedRecords, Finding, KeyStanding, ReturnPathRecord,
};
use mail::domain_watch::{DomainStanding, DomainStatus};
use mail::ids::DomainId;
use sqlx::FromRow;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::database::Store;
use crate::decode::{domain_name, domain_texts, unsigned};
use crate::dkim::SealedKey;
use crate::error::{During, StoreError};
use crate::numbers::{AccountNo, DomainNo};
use crate::seal::Sealer;

/// A DKIM key of a domain, without its private half.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainKey {
    /// Selector, record and what it is doing.
    pub record: DkimRecord,
    /// Since when it signs no more.
    pub retired_at: Option<OffsetDateTime>,
}

/// A domain as its account sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct RegisteredDomain {
    /// Inside.
    pub no: DomainNo,
    /// Outside.
    pub id: DomainId,
    /// Whose.
    pub account: AccountNo,
    /// Its name.
    pub name: DomainName,
    /// What decisions about it start from.
    pub standing: DomainStanding,
    /// Since when it is verified.
    pub verified_at: Option<OffsetDateTime>,
    /// When its records were looked at last.
    pub checked_at: Option<OffsetDateTime>,
    /// When they are looked at next by themselves.
    pub check_at: Option<OffsetDateTime>,
    /// Put before the name for the return path.
    pub return_path_label: String,
    /// What the last look found.
    pub findings: Vec<Finding>,
    /// Changes with every write: one made from an older row changes nothing.
    pub revision: i32,
    /// Its keys, newest first.
    pub keys: Vec<DomainKey>,
}

/// A domain to be registered.
#[derive(Debug)]
pub struct NewDomain<'a> {
    /// Outside.
    pub id: DomainId,
    /// Whose.
    pub account: AccountNo,
    /// Its name.
    pub name: &'a DomainName,
    /// Where the key's record is published.
    pub selector: &'a str,
    /// Signs once the domain is verified.
    pub key: &'a SigningKey,
    /// Now.
    pub at: OffsetDateTime,
    /// When its records are looked at first.
    pub check_at: OffsetDateTime,
}

#[derive(FromRow)]
pub(crate) struct Row {
    id: i32,
    public_id: Uuid,
    account: i32,
    name: String,
    created_at: OffsetDateTime,
    verified_at: Option<OffsetDateTime>,
    failed_at: Option<OffsetDateTime>,
    checked_at: Option<OffsetDateTime>,
    check_at: Option<OffsetDateTime>,
    vouched: bool,
    misses: i16,
    return_path_label: String,
    return_path_from: Option<OffsetDateTime>,
    return_path_misses: i16,
    findings: Option<String>,
    revision: i32,
}

/// The columns of a [`Row`].
macro_rules! row_columns {
    () => {
        "d.id, d.public_id, d.account, d.name, d.created_at, d.verified_at, d.failed_at,
         d.checked_at, d.check_at, d.vouched, d.misses, d.return_path_label, d.return_path_from,
         d.return_path_misses, d.findings, d.revision"
    };
}
pub(crate) use row_columns;

type KeyColumns = (i32, String, String, bool, Option<OffsetDateTime>);

impl Row {
    fn with_keys(self, keys: Vec<DomainKey>) -> Result<RegisteredDomain, StoreError> {
        let status = match (self.verified_at, self.failed_at) {
            (Some(_), _) => DomainStatus::Verified,
            (None, Some(_)) => DomainStatus::Failed,
            (None, None) => DomainStatus::Pending,
        };
        let findings = match &self.findings {
            Some(json) => serde_json::from_str(json)
                .map_err(|error| StoreError::corrupt("domain findings", error))?,
            None => Vec::new(),
        };
        Ok(RegisteredDomain {
            no: DomainNo(self.id),
            id: DomainId::from_uuid(self.public_id),
            account: AccountNo(self.account),
            name: domain_name(&self.name)?,
            standing: DomainStanding {
                status,
                vouched: self.vouched,
                registered_at: self.created_at,
                misses: unsigned("domain misses", self.misses)?,
                return_path_from: self.return_path_from,
                return_path_misses: unsigned("return path misses", self.return_path_misses)?,
            },
            verified_at: self.verified_at,
            checked_at: self.checked_at,
            check_at: self.check_at,
            return_path_label: self.return_path_label,
            findings,
            revision: self.revision,
            keys,
        })
    }
}

impl RegisteredDomain {
    /// The records to publish; `return_path` is the platform's domain for bounces.
    pub fn expected_records(&self, return_path: Option<&DomainName>) -> ExpectedRecords {
        let return_path = return_path.filter(|_| self.name.as_str().len() <= DOMAIN_MAX_OCTETS);
        ExpectedRecords {
            domain: self.name.clone(),
            keys: self.keys.iter().map(|key| key.record.clone()).collect(),
            return_path: return_path.map(|target| ReturnPathRecord {
                label: self.return_path_label.clone(),
                target: target.clone(),
            }),
        }
    }
}

impl Store {
    /// Registers a domain with its first key.
    ///
    /// # Errors
    /// `Conflict` when the account has the domain already; `Invalid` when the key cannot be sealed;
    /// of the database.
    pub async fn register_domain(
        &self,
        new: NewDomain<'_>,
        sealer: &Sealer,
    ) -> Result<(), StoreError> {
        let operation = "register a domain";
        // The key is sealed for its row, so the number has to be known before there is one.
        let no: i32 =
            sqlx::query_scalar("SELECT nextval(pg_get_serial_sequence('domain', 'id'))::int4")
                .fetch_one(&self.general)
                .await
                .during(operation)?;
        let key = SealedKey::new(DomainNo(no), new.selector, new.key, sealer)?;
        sqlx::query(
            "WITH d AS (
               INSERT INTO domain (id, public_id, account, name, created_at, check_at)
               OVERRIDING SYSTEM VALUE VALUES ($1, $2, $3, $4, $5, $6) RETURNING id)
             INSERT INTO dkim_key (domain, selector, seal_key, private_key, public_txt, created_at)
             SELECT d.id, $7, $8, $9, $10, $5 FROM d",
        )
        .bind(no)
        .bind(new.id.uuid())
        .bind(new.account.0)
        .bind(new.name.as_str())
        .bind(new.at)
        .bind(new.check_at)
        .bind(new.selector)
        .bind(key.seal_key)
        .bind(key.private_key)
        .bind(key.public_txt)
        .execute(&self.general)
        .await
        .unless_taken(operation, "domain")?;
        self.forget_domain(new.account, new.name.clone(), DomainNo(no))
            .await;
        Ok(())
    }

    /// How many domains the account has.
    ///
    /// # Errors
    /// Of the database.
    pub async fn count_domains(&self, account: AccountNo) -> Result<usize, StoreError> {
        let count: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM domain WHERE account = $1 AND removed_at IS NULL",
        )
        .bind(account.0)
        .fetch_one(&self.general)
        .await
        .during("count domains")?;
        Ok(usize::try_from(count).unwrap_or(usize::MAX))
    }

    /// Domains of the account by id, after the one named, at most `limit`; only those of these names,
    /// if any are given.
    ///
    /// # Errors
    /// Of the database.
    pub async fn registered_domains(
        &self,
        account: AccountNo,
        names: Option<&[DomainName]>,
        after: Option<DomainId>,
        limit: usize,
    ) -> Result<Vec<RegisteredDomain>, StoreError> {
        let rows: Vec<Row> = sqlx::query_as(concat!(
            "SELECT ",
            row_columns!(),
            " FROM domain d
              WHERE d.account = $1 AND d.removed_at IS NULL AND ($2 IS NULL OR d.public_id > $2)
                    AND ($4 IS NULL OR d.name = ANY ($4))
              ORDER BY d.public_id LIMIT $3"
        ))
        .bind(account.0)
        .bind(after.map(DomainId::uuid))
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .bind(names.map(domain_texts))
        .fetch_all(&self.general)
        .await
        .during("list domains")?;
        self.with_keys(rows).await
    }

    /// The account's domain of that id.
    ///
    /// # Errors
    /// Of the database.
    pub async fn registered_domain(
        &self,
        account: AccountNo,
        id: DomainId,
    ) -> Result<Option<RegisteredDomain>, StoreError> {
        let rows: Vec<Row> = sqlx::query_as(concat!(
            "SELECT ",
            row_columns!(),
            " FROM domain d WHERE d.account = $1 AND d.public_id = $2 AND d.removed_at IS NULL"
        ))
        .bind(account.0)
        .bind(id.uuid())
        .fetch_all(&self.general)
        .await
        .during("find a domain")?;
        Ok(self.with_keys(rows).await?.pop())
    }

    pub(crate) async fn with_keys(
        &self,
        rows: Vec<Row>,
    ) -> Result<Vec<RegisteredDomain>, StoreError> {
        let numbers: Vec<i32> = rows.iter().map(|row| row.id).collect();
        let found: Vec<KeyColumns> = sqlx::query_as(
            "SELECT domain, selector, public_txt, waiting, retired_at FROM dkim_key
             WHERE domain = ANY ($1) ORDER BY created_at DESC, selector",
        )
        .bind(&numbers)
        .fetch_all(&self.general)
        .await
        .during("read the keys of domains")?;
        let mut keys: HashMap<i32, Vec<DomainKey>> = HashMap::new();
        for (domain, selector, txt, waiting, retired_at) in found {
            let standing = match (waiting, retired_at) {
                (true, _) => KeyStanding::Waiting,
                (false, Some(_)) => KeyStanding::Retired,
                (false, None) => KeyStanding::Signing,
            };
            keys.entry(domain).or_default().push(DomainKey {
                record: DkimRecord {
                    selector,
                    txt,
                    standing,
                },
                retired_at,
            });
        }
        rows.into_iter()
            .map(|row| {
                let keys = keys.remove(&row.id).unwrap_or_default();
                row.with_keys(keys)
            })
            .collect()
    }

    /// Gives the domain a second key that waits for its record. A key retired earlier goes: a domain
    /// has two selectors at most. False when a key waits already, or the domain has changed.
    ///
    /// # Errors
    /// `Conflict` when the domain has that selector; `Invalid` when the key cannot be sealed; of the
    /// database.
    pub async fn add_waiting_key(
        &self,
        domain: &RegisteredDomain,
        selector: &str,
        key: &SigningKey,
        sealer: &Sealer,
        (at, check_at): (OffsetDateTime, OffsetDateTime),
    ) -> Result<bool, StoreError> {
        let sealed = SealedKey::new(domain.no, selector, key, sealer)?;
        let done = sqlx::query(
            "WITH d AS (
               UPDATE domain SET revision = revision + 1,
                 check_at = CASE WHEN verified_at IS NULL THEN check_at
                                 ELSE least(coalesce(check_at, $3), $3) END
               WHERE id = $1 AND revision = $2 AND removed_at IS NULL
                 AND NOT EXISTS (SELECT FROM dkim_key WHERE domain = $1 AND waiting)
               RETURNING id),
             gone AS (
               DELETE FROM dkim_key k USING d WHERE k.domain = d.id AND k.retired_at IS NOT NULL)
             INSERT INTO dkim_key
               (domain, selector, seal_key, private_key, public_txt, created_at, waiting)
             SELECT d.id, $4, $5, $6, $7, $8, true FROM d",
        )
        .bind(domain.no.0)
        .bind(domain.revision)
        .bind(check_at)
        .bind(selector)
        .bind(sealed.seal_key)
        .bind(sealed.private_key)
        .bind(sealed.public_txt)
        .bind(at)
        .execute(&self.general)
        .await
        .unless_taken("add a DKIM key", "DKIM selector")?;
        Ok(done.rows_affected() == 1)
    }

    /// What this process remembers of the domain is out of date.
    pub(crate) async fn forget_domain(&self, account: AccountNo, name: DomainName, no: DomainNo) {
        self.cache.sender_domains.invalidate(&(account, name)).await;
        self.cache.sender_domains_by_no.invalidate(&no).await;
        self.cache.signers.invalidate(&no).await;
    }
}
