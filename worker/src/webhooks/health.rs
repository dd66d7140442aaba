//! Which endpoints fail at the moment. In memory only: it decides how a call is tried, never
//! whether, so that a wrong guess after a restart costs time and no event.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use store::EndpointNo;

/// Failures in a row after which an endpoint counts as failing.
const FAILURES_MAX: u32 = 5;

/// Failures in a row of the endpoints that have any; shared by first calls and repeated ones.
#[derive(Debug, Default)]
pub(super) struct Health {
    failures: Mutex<HashMap<EndpointNo, u32>>,
}

impl Health {
    /// Whether new events should be set aside at once: a failing endpoint would only fill the
    /// window of calls under way.
    pub(super) fn is_failing(&self, endpoint: EndpointNo) -> bool {
        self.lock()
            .get(&endpoint)
            .is_some_and(|failures| *failures >= FAILURES_MAX)
    }

    /// One success is enough to trust an endpoint again.
    pub(super) fn succeeded(&self, endpoint: EndpointNo) {
        self.lock().remove(&endpoint);
    }

    pub(super) fn failed(&self, endpoint: EndpointNo) {
        let mut failures = self.lock();
        let count = failures.entry(endpoint).or_default();
        *count = count.saturating_add(1);
    }

    /// Takes an endpoint for failing until it proves otherwise, as after a restart that found
    /// calls set aside for it.
    pub(super) fn suspect(&self, endpoint: EndpointNo) {
        self.lock().insert(endpoint, FAILURES_MAX);
    }

    /// Number of failing endpoints.
    pub(super) fn failing(&self) -> usize {
        self.lock()
            .values()
            .filter(|failures| **failures >= FAILURES_MAX)
            .count()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<EndpointNo, u32>> {
        // Every change is one map operation: a panic elsewhere cannot leave half of one.
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_fails_after_failures_in_a_row_and_one_success_heals_it() {
        let (health, endpoint) = (Health::default(), EndpointNo(7));
        (1..FAILURES_MAX).for_each(|_| health.failed(endpoint));
        health.succeeded(endpoint);
        (1..FAILURES_MAX).for_each(|_| health.failed(endpoint));
        assert!(!health.is_failing(endpoint));
        health.failed(endpoint);
        assert!(health.is_failing(endpoint) && !health.is_failing(EndpointNo(8)));
        assert_eq!(health.failing(), 1);
        health.succeeded(endpoint);
        assert_eq!(health.failing(), 0);
        health.suspect(endpoint);
        assert!(health.is_failing(endpoint));
    }
}
