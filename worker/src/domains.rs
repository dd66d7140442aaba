//! Looks at the records of sending domains again and again: often while they are new, daily once
//! they are verified. Also forgets domains and keys that nothing needs any more.
//! What records mean is `mail`'s to say. Safe in any number of workers at once.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use mail::domain_name::DomainName;
use mail::domain_records::{Answer, Finding, Outcome, Question, RecordStatus};
use mail::domain_watch::{Decision, Occasion, decide};
use mail::ids::{EventId, uuid_v7};
use service::background::{Loop, Round};
use service::clock::Clock;
use service::metrics::prometheus::IntCounterVec;
use service::metrics::{Metrics, MetricsError};
use service::resolver::{Lookup, Resolver};
use service::shutdown::Shutdown;
use store::{CheckedDomain, RegisteredDomain, Store, StoreError, Written};
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// Domains looked at together; the resolver bounds the questions under way.
const BATCH: i64 = 32;
/// Who claimed domains and died leaves them to the others after this time.
const CLAIM_LASTS: time::Duration = time::Duration::minutes(5);
/// Longest wait between two looks for due checks.
const PERIOD: Duration = Duration::from_secs(15);
const PURGE_PERIOD: Duration = Duration::from_secs(3_600);
const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// Mail may be sent 30 days after it was accepted, and is tried for 5 days by default.
const REMOVED_KEPT: time::Duration = time::Duration::days(35);
/// Mail on its way was verified by then.
const RETIRED_KEPT: time::Duration = time::Duration::days(7);

/// Numbers of the checks.
#[derive(Clone, Debug)]
pub(crate) struct DomainMetrics {
    /// Checks, by what came of them: verified, failed, unchanged, outdated, taken.
    checks: IntCounterVec,
}

impl DomainMetrics {
    /// # Errors
    /// They were registered before: one worker a registry.
    pub(crate) fn register(metrics: &Metrics) -> Result<Self, MetricsError> {
        Ok(Self {
            checks: metrics.counters(
                "domain_checks_total",
                "Looks at the records of sending domains, by result.",
                &["result"],
            )?,
        })
    }
}

/// What the duty works with. Clones share it.
#[derive(Clone)]
pub(crate) struct Domains {
    pub(crate) store: Store,
    pub(crate) clock: Clock,
    pub(crate) resolver: Resolver,
    pub(crate) return_path: Option<DomainName>,
    /// Rung after events were written.
    pub(crate) events_committed: Arc<Notify>,
    pub(crate) metrics: DomainMetrics,
    pub(crate) shutdown: Shutdown,
}

impl Domains {
    /// Works until shutdown.
    pub(crate) async fn run(self) {
        let pace = |name, period| Loop {
            name,
            period,
            backoff_max: BACKOFF_MAX,
        };
        let never_hinted = Notify::new();
        let (checks, purges) = (
            pace("domain_checks", PERIOD),
            pace("domain_purge", PURGE_PERIOD),
        );
        tokio::join!(
            checks.run(&self.clock, &never_hinted, &self.shutdown, || self
                .check_due()),
            purges.run(&self.clock, &never_hinted, &self.shutdown, || self.purge()),
        );
    }

    async fn check_due(&self) -> Result<Round, StoreError> {
        let now = self.clock.now();
        let due = self
            .store
            .claim_domain_checks(now, now + CLAIM_LASTS, BATCH)
            .await?;
        if due.is_empty() {
            return Ok(Round::Idle);
        }
        let mut checks = JoinSet::new();
        for domain in due {
            let duty = self.clone();
            checks.spawn(async move { duty.check(&domain).await });
        }
        let mut result = Ok(Round::Busy);
        while let Some(ended) = checks.join_next().await {
            match ended {
                Ok(checked) => result = result.and_then(|round| checked.map(|()| round)),
                Err(error) => tracing::error!(%error, "a domain check broke down"),
            }
        }
        result
    }

    async fn check(&self, domain: &RegisteredDomain) -> Result<(), StoreError> {
        let expected = domain.expected_records(self.return_path.as_ref());
        let findings = expected.judge(&self.ask(expected.questions()).await);
        let mut outcome = expected.outcome(&findings);
        if self.write(domain, &findings, &outcome).await? == Written::Taken {
            // Another account was first: whatever was found proves nothing for this one.
            (outcome.signing, outcome.waiting) = (RecordStatus::Missing, None);
            self.write(domain, &findings, &outcome).await?;
        }
        Ok(())
    }

    async fn write(
        &self,
        domain: &RegisteredDomain,
        findings: &[Finding],
        outcome: &Outcome,
    ) -> Result<Written, StoreError> {
        let at = self.clock.now();
        let decision = decide(
            &domain.standing,
            outcome,
            Occasion::Scheduled,
            at,
            rand::random(),
        );
        let unix_ms = u64::try_from(self.clock.unix_ms()).unwrap_or_default();
        let check = CheckedDomain {
            domain,
            findings,
            decision: &decision,
            event: EventId::from_uuid(uuid_v7(unix_ms, rand::random())),
            at,
        };
        let written = self.store.write_domain_check(&check).await?;
        self.report(domain, &decision, written);
        Ok(written)
    }

    fn report(&self, domain: &RegisteredDomain, decision: &Decision, written: Written) {
        match written {
            Written::Done => {}
            Written::Outdated => return self.count("outdated"),
            Written::Taken => return self.count("taken"),
        }
        if let Some(event) = decision.event {
            tracing::info!(domain = %domain.id, %event, "a domain changed");
            self.events_committed.notify_one();
        }
        self.count(match decision.event {
            Some(_) => decision.standing.status.as_str(),
            None => "unchanged",
        });
    }

    async fn ask(&self, questions: Vec<Question>) -> HashMap<Question, Answer> {
        let lookups = questions.iter().map(|question| match question {
            Question::Texts(name) => Lookup::Texts(name.clone()),
            Question::Aliases(name) => Lookup::Aliases(name.clone()),
        });
        let answers = self.resolver.look_up(lookups.collect()).await;
        questions.into_iter().zip(answers).collect()
    }

    async fn purge(&self) -> Result<Round, StoreError> {
        let now = self.clock.now();
        let (domains, keys) = self
            .store
            .purge_domains(now - REMOVED_KEPT, now - RETIRED_KEPT)
            .await?;
        if domains + keys > 0 {
            tracing::info!(domains, keys, "forgot removed domains and retired keys");
        }
        Ok(Round::Idle)
    }

    fn count(&self, result: &str) {
        self.metrics.checks.with_label_values(&[result]).inc();
    }
}
