//! When the surplus of something bounded is looked at again: spread out, so that it comes back about
//! as fast as it can be worked off.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use time::OffsetDateTime;

/// Deliveries a second that are assumed while nothing is measured. Coming back too early costs one
/// bulk statement; coming back too late leaves a fast receiver idle.
const RATE_ASSUMED: f64 = 200.0;
const SOONEST_ASSUMED: Duration = Duration::from_secs(5);
/// A little faster than measured, or the bound would never be reached again.
const HASTE: f64 = 1.25;
/// However slow, what is parked is looked at again within this time.
const LATEST: Duration = Duration::from_hours(1);

/// How far surplus is parked already, by whom it belongs to.
#[derive(Debug)]
pub(crate) struct Surplus<K> {
    parked_until: HashMap<K, OffsetDateTime>,
}

impl<K> Default for Surplus<K> {
    fn default() -> Self {
        Self {
            parked_until: HashMap::new(),
        }
    }
}

impl<K: Hash + Eq + Clone> Surplus<K> {
    /// The time for one more delivery of `key`, when `held` are before it and `per_second` leave
    /// (0: not measured).
    pub(crate) fn place(
        &mut self,
        key: &K,
        now: OffsetDateTime,
        held: usize,
        per_second: f64,
    ) -> OffsetDateTime {
        let measured = per_second > 0.0;
        let rate = if measured {
            per_second * HASTE
        } else {
            RATE_ASSUMED
        };
        // Back before the others have all left.
        let soonest = if measured {
            Duration::from_secs_f64((held as f64 / rate / 2.0).min(LATEST.as_secs_f64()))
        } else {
            SOONEST_ASSUMED
        };
        let behind = self
            .parked_until
            .get(key)
            .copied()
            .filter(|until| *until > now);
        let until = behind.map_or(now + soonest, |last| {
            last + Duration::from_secs_f64(1.0 / rate)
        });
        let until = until.min(now + LATEST);
        self.parked_until.insert(key.clone(), until);
        until
    }

    /// Forgets whose time has come.
    pub(crate) fn sweep(&mut self, now: OffsetDateTime) {
        self.parked_until.retain(|_, until| *until > now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: OffsetDateTime = time::macros::datetime!(2026-03-10 12:00 UTC);

    #[test]
    fn surplus_comes_back_in_order_at_the_measured_rate() {
        let mut surplus = Surplus::default();
        let times: Vec<_> = (0..1001)
            .map(|_| surplus.place(&1, START, 1000, 80.0))
            .collect();
        assert_eq!(times[0] - START, time::Duration::seconds(5));
        assert_eq!((times[1000] - times[0]).whole_seconds(), 10);
        assert!(times.is_sorted());
    }

    #[test]
    fn unmeasured_surplus_is_back_within_seconds_and_nothing_is_gone_for_hours() {
        let mut surplus = Surplus::default();
        assert_eq!(
            surplus.place(&1, START, 10_000, 0.0) - START,
            SOONEST_ASSUMED
        );
        for _ in 0..1_000_000 {
            assert!(surplus.place(&2, START, 10_000, 0.1) <= START + LATEST);
        }
        surplus.sweep(START + LATEST);
        assert!(surplus.parked_until.is_empty());
    }
}
