//! When the surplus of something bounded is looked at again: spread out, so that it comes back about
//! as fast as it can be worked off.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use time::OffsetDateTime;

/// Surplus comes back at least this fast, whatever was measured: a receiver, or this machine, may
/// have been slow for a moment. Looking again too early costs one bulk statement; looking too late
/// leaves a fast receiver idle.
const RATE_MIN: f64 = 1_000.0;
/// A little faster than measured, or the bound would never be reached again.
const HASTE: f64 = 1.25;
const SOONEST: Duration = Duration::from_secs(2);
/// However much there is, what is parked is looked at again within this time.
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
    /// The time for one more delivery of `key`, when `per_second` of them leave (0: not measured).
    pub(crate) fn place(
        &mut self,
        key: &K,
        now: OffsetDateTime,
        per_second: f64,
    ) -> OffsetDateTime {
        let step = Duration::from_secs_f64(1.0 / (per_second * HASTE).max(RATE_MIN));
        let soonest = now + SOONEST;
        let behind = self.parked_until.get(key).map(|last| *last + step);
        let until = behind
            .map_or(soonest, |behind| behind.max(soonest))
            .min(now + LATEST);
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
    fn surplus_comes_back_in_order_and_not_slower_than_a_thousand_a_second() {
        let mut surplus = Surplus::default();
        let times: Vec<_> = (0..1001).map(|_| surplus.place(&1, START, 3.0)).collect();
        assert_eq!(times[0] - START, SOONEST);
        assert_eq!((times[1000] - times[0]).whole_milliseconds(), 1000);
        assert!(times.is_sorted());
        let fast = (0..5001).map(|_| surplus.place(&2, START, 4_000.0)).last();
        assert_eq!(fast, Some(START + SOONEST + Duration::from_secs(1)));
    }

    #[test]
    fn nothing_is_gone_for_hours() {
        let mut surplus = Surplus::default();
        let last = (0..5_000_000).map(|_| surplus.place(&1, START, 0.0)).last();
        assert_eq!(last, Some(START + LATEST));
        surplus.sweep(START + LATEST);
        assert!(surplus.parked_until.is_empty());
    }
}
