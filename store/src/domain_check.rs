//! Checks of domains' records: claimed when they are due, and what was decided, written with its
//! event. Any number of workers may do so at once, beside people who ask for a check.

use mail::domain_records::Finding;
use mail::domain_watch::{Decision, DomainStatus};
use mail::ids::EventId;
use time::OffsetDateTime;

use crate::database::Store;
use crate::decode::signed;
use crate::domain_registration::{RegisteredDomain, Row, row_columns};
use crate::error::{During, StoreError};

/// A check that was made of a domain as it was then.
#[derive(Debug)]
pub struct CheckedDomain<'a> {
    /// As it was read.
    pub domain: &'a RegisteredDomain,
    /// What was found.
    pub findings: &'a [Finding],
    /// What that means.
    pub decision: &'a Decision,
    /// Id of the event, if there is one to be told.
    pub event: EventId,
    /// Now.
    pub at: OffsetDateTime,
}

/// What became of a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// It holds.
    Done,
    /// The domain has changed since it was read, or is gone: nothing was written.
    Outdated,
    /// Another account has proved the same name: nothing was written.
    Taken,
}

impl Store {
    /// Domains whose check is due by `now`, at most `limit`, the longest due first. Nobody else gets
    /// them before `again_at`, when they are due again should nobody write what came of it.
    ///
    /// # Errors
    /// Of the database.
    pub async fn claim_domain_checks(
        &self,
        now: OffsetDateTime,
        again_at: OffsetDateTime,
        limit: i64,
    ) -> Result<Vec<RegisteredDomain>, StoreError> {
        let rows: Vec<Row> = sqlx::query_as(concat!(
            "UPDATE domain d SET check_at = $2
             WHERE d.id IN (
               SELECT id FROM domain WHERE check_at <= $1 AND removed_at IS NULL
               ORDER BY check_at LIMIT $3 FOR UPDATE SKIP LOCKED)
             RETURNING ",
            row_columns!()
        ))
        .bind(now)
        .bind(again_at)
        .bind(limit)
        .fetch_all(&self.general)
        .await
        .during("claim domain checks")?;
        self.with_keys(rows).await
    }

    /// Writes what was found and decided, unless the domain has changed meanwhile.
    ///
    /// # Errors
    /// Of the database.
    pub async fn write_domain_check(
        &self,
        check: &CheckedDomain<'_>,
    ) -> Result<Written, StoreError> {
        let written = self.write_check(check).await;
        match written {
            Ok(true) => {}
            Ok(false) => return Ok(Written::Outdated),
            Err(StoreError::Conflict { .. }) => return Ok(Written::Taken),
            Err(error) => return Err(error),
        }
        let domain = check.domain;
        self.forget_domain(domain.account, domain.name.clone(), domain.no)
            .await;
        Ok(Written::Done)
    }

    async fn write_check(&self, check: &CheckedDomain<'_>) -> Result<bool, StoreError> {
        let operation = "write a domain check";
        let Decision {
            standing,
            check_at,
            activate,
            event,
        } = check.decision;
        let findings = serde_json::to_string(check.findings)
            .map_err(|error| StoreError::corrupt("domain findings", error))?;
        let done: i64 = sqlx::query_scalar(
            "WITH d AS (
               UPDATE domain SET
                 verified_at = CASE WHEN $3 THEN coalesce(verified_at, $12) END,
                 failed_at = CASE WHEN $4 THEN coalesce(failed_at, $12) END,
                 proved = proved OR $3, checked_at = $12, check_at = $5, misses = $6,
                 return_path_from = $7, return_path_misses = $8, findings = $9,
                 revision = revision + 1
               WHERE id = $1 AND revision = $2 AND removed_at IS NULL
               RETURNING id, public_id, account),
             retired AS (
               UPDATE dkim_key k SET retired_at = $12 FROM d
               WHERE k.domain = d.id AND $10::text IS NOT NULL AND NOT k.waiting
                 AND k.retired_at IS NULL),
             active AS (
               UPDATE dkim_key k SET waiting = false FROM d
               WHERE k.domain = d.id AND k.selector = $10 AND k.waiting),
             told AS (
               INSERT INTO event (id, subject, account, type, sequence, attempt, flags)
               SELECT $13, d.public_id, d.account, $11, 1, 0, 0 FROM d WHERE $11::int2 IS NOT NULL)
             SELECT count(*) FROM d",
        )
        .bind(check.domain.no.0)
        .bind(check.domain.revision)
        .bind(standing.status == DomainStatus::Verified)
        .bind(standing.status == DomainStatus::Failed)
        .bind(check_at)
        .bind(signed(standing.misses))
        .bind(standing.return_path_from)
        .bind(signed(standing.return_path_misses))
        .bind(findings)
        .bind(activate)
        .bind(event.map(|event| event.code()))
        .bind(check.at)
        .bind(check.event.uuid())
        .fetch_one(&self.general)
        .await
        .unless_taken(operation, "domain")?;
        Ok(done == 1)
    }
}
