//! Routes that were found lately, and failures too, so that a busy domain costs one look-up.
//! Bounded in number and in time; many who ask at once share one look-up.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mail::domain_name::DomainName;
use mail::judge::Failure;
use moka::Expiry;
use moka::future::Cache;

use super::route::{Route, RouteFailure};

/// The shortest life of a route, whatever its TTL says.
pub(super) const TTL_MIN: Duration = Duration::from_secs(30);
/// The longest life of anything.
pub(super) const TTL_MAX: Duration = Duration::from_secs(3600);
/// The shortest life of "there is no such name": the delivery is bounced for it, and a name made
/// a moment ago should not be bounced for long.
pub(super) const NEGATIVE_TTL_MIN: Duration = Duration::from_secs(300);
/// How long DNS trouble is remembered: long enough to spare a server that is ill.
const TROUBLE_TTL: Duration = Duration::from_secs(15);
/// Domains remembered at most.
const ENTRIES_MAX: u64 = 100_000;

/// What a domain's look-up came to, and how long that is true.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) route: Result<Arc<Route>, RouteFailure>,
    life: Duration,
}

impl Known {
    /// Keeps `route` for the `ttl` of its records, within the bounds for its kind.
    pub(super) fn new(route: Result<Arc<Route>, RouteFailure>, ttl: Duration) -> Self {
        let life = match &route {
            Ok(_) => ttl.clamp(TTL_MIN, TTL_MAX),
            Err(failure) => match failure.failure {
                Failure::NullMx => ttl.clamp(TTL_MIN, TTL_MAX),
                Failure::NoSuchDomain | Failure::NoMailHost => ttl.clamp(NEGATIVE_TTL_MIN, TTL_MAX),
                _ => TROUBLE_TTL,
            },
        };
        Self { route, life }
    }
}

struct ByLife;

impl Expiry<DomainName, Known> for ByLife {
    fn expire_after_create(&self, _: &DomainName, known: &Known, _: Instant) -> Option<Duration> {
        Some(known.life)
    }
}

/// The cache of routes by domain.
pub(super) fn new_cache() -> Cache<DomainName, Known> {
    Cache::builder()
        .max_capacity(ENTRIES_MAX)
        .expire_after(ByLife)
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lives_stay_within_their_bounds() {
        let check = |failure: Failure, ttl_secs: u64, expected_secs: u64| {
            let route = Err(RouteFailure::new(failure, ""));
            let known = Known::new(route, Duration::from_secs(ttl_secs));
            assert_eq!(
                known.life.as_secs(),
                expected_secs,
                "{failure:?} {ttl_secs}"
            );
        };
        check(Failure::NoSuchDomain, 0, 300);
        check(Failure::NoSuchDomain, 900, 900);
        check(Failure::NoMailHost, 86_400, 3600);
        check(Failure::NullMx, 5, 30);
        check(Failure::NullMx, 86_400, 3600);
        check(Failure::DnsTrouble, 86_400, 15);
    }
}
