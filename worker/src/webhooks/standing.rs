//! Since when endpoints fail, and which are to be called no more: those that failed for days. What is written down is the truth; this remembers what is to
//! be written, so that a call never waits for it and an endpoint costs one statement a round.
//! Pure bookkeeping: the time comes in as a parameter.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use store::{DisabledReason, Endpoint, EndpointNo};
use time::OffsetDateTime;

/// How long an endpoint may fail without one good answer.
pub(super) const FAILING_MAX: time::Duration = time::Duration::days(5);

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    /// The first failure since the last success.
    since: Option<OffsetDateTime>,
    last_failure: Option<OffsetDateTime>,
    /// The database knows that it fails.
    is_noted: bool,
}

/// What is to be written about an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// It fails since then, or no more.
    Note(Option<OffsetDateTime>),
    /// It is to be called no more.
    Disable(DisabledReason),
}

/// Endpoints about which something is known that the next round may have to write.
#[derive(Debug, Default)]
pub(super) struct Standing {
    entries: Mutex<HashMap<EndpointNo, Entry>>,
}

impl Standing {
    pub(super) fn succeeded(&self, endpoint: &Endpoint) {
        let mut entries = self.lock();
        if let Some(entry) = entries.get_mut(&endpoint.no) {
            entry.since = None;
        } else if endpoint.failing_since.is_some() {
            let entry = Entry {
                is_noted: true,
                ..Entry::default()
            };
            entries.insert(endpoint.no, entry);
        }
    }

    pub(super) fn failed(&self, endpoint: &Endpoint, at: OffsetDateTime) {
        let mut entries = self.lock();
        let entry = entries.entry(endpoint.no).or_insert_with(|| Entry {
            since: endpoint.failing_since,
            is_noted: endpoint.failing_since.is_some(),
            ..Entry::default()
        });
        entry.since.get_or_insert(at);
        entry.last_failure = Some(at);
    }

    /// What is to be written now. Asking changes nothing.
    pub(super) fn changes(&self) -> Vec<(EndpointNo, Change)> {
        let entries = self.lock();
        let changes = entries.iter().filter_map(|(no, entry)| {
            let is_over = entry
                .since
                .zip(entry.last_failure)
                .is_some_and(|(since, last)| last - since >= FAILING_MAX);
            let change = if entry.since.is_some() != entry.is_noted {
                Change::Note(entry.since)
            } else if is_over {
                Change::Disable(DisabledReason::Failing)
            } else {
                return None;
            };
            Some((*no, change))
        });
        changes.collect()
    }

    /// The change was written; what came in meanwhile is left for the next round.
    pub(super) fn written(&self, endpoint: EndpointNo, change: Change) {
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(&endpoint) else {
            return;
        };
        match change {
            // Whether it took effect or not: the next call finds out what is written.
            Change::Disable(_) => {
                entries.remove(&endpoint);
            }
            Change::Note(since) => {
                entry.is_noted = since.is_some();
                if entry.since.is_none() && !entry.is_noted {
                    entries.remove(&endpoint);
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<EndpointNo, Entry>> {
        // Every change is done in one go: a panic elsewhere cannot leave half of one.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use mail::ids::WebhookEndpointId;
    use store::AccountNo;
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-11-22 09:00 UTC);
    const NO: EndpointNo = EndpointNo(7);

    fn endpoint(failing_since: Option<OffsetDateTime>) -> Endpoint {
        Endpoint {
            no: NO,
            id: WebhookEndpointId::from_uuid(uuid::Uuid::nil()),
            account: AccountNo(1),
            url: String::new(),
            types: Vec::new(),
            secret: Vec::new(),
            previous: None,
            enabled: true,
            failing_since,
        }
    }

    /// Writes everything down, as a round does.
    fn round(standing: &Standing) -> Vec<Change> {
        let changes = standing.changes();
        for (no, change) in &changes {
            standing.written(*no, *change);
        }
        changes.into_iter().map(|(_, change)| change).collect()
    }

    #[test]
    fn only_what_changed_is_written() {
        let (standing, well) = (Standing::default(), endpoint(None));
        standing.succeeded(&well);
        assert_eq!(round(&standing), []);
        standing.failed(&well, NOW);
        standing.failed(&well, NOW + time::Duration::HOUR);
        assert_eq!(round(&standing), [Change::Note(Some(NOW))]);
        assert_eq!(round(&standing), []);
        standing.succeeded(&endpoint(Some(NOW)));
        assert_eq!(round(&standing), [Change::Note(None)]);
        assert!(standing.lock().is_empty());
        // Nothing to write about a failure that was over within a round.
        standing.failed(&well, NOW);
        standing.succeeded(&well);
        assert_eq!(round(&standing), []);
    }

    #[test]
    fn days_of_failures_disable_and_one_success_begins_anew() {
        let standing = Standing::default();
        let failing = endpoint(Some(NOW));
        standing.failed(&failing, NOW + FAILING_MAX - time::Duration::SECOND);
        assert_eq!(round(&standing), []);
        standing.succeeded(&failing);
        standing.failed(&failing, NOW + FAILING_MAX);
        assert_eq!(round(&standing), []);
        let later = NOW + FAILING_MAX * 2;
        standing.failed(&failing, later);
        assert_eq!(round(&standing), [Change::Disable(DisabledReason::Failing)]);
        assert!(standing.lock().is_empty());
    }

    #[test]
    fn the_first_failure_is_noted_before_it_can_disable() {
        let standing = Standing::default();
        standing.failed(&endpoint(None), NOW);
        standing.failed(&endpoint(None), NOW + FAILING_MAX);
        let expected = [
            Change::Note(Some(NOW)),
            Change::Disable(DisabledReason::Failing),
        ];
        assert_eq!([round(&standing), round(&standing)].concat(), expected);
    }
}
