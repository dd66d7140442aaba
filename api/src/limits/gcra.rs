//! A token bucket as one number: the time at which it is full again (the generic cell rate
//! algorithm's theoretical arrival time). Pure: time is a parameter, counted from any start.
//! The script in `store/src/rate_limit.lua` counts the same way.

use std::num::NonZeroU32;
use std::time::Duration;

const SECOND_NS: u128 = 1_000_000_000;

/// How fast a bucket fills, and what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Quota {
    per_second: NonZeroU32,
    burst: NonZeroU32,
}

impl Quota {
    /// None when `per_second` is 0: no limit.
    pub(crate) fn new(per_second: u32, burst: NonZeroU32) -> Option<Self> {
        let per_second = NonZeroU32::new(per_second)?;
        Some(Self { per_second, burst })
    }

    pub(crate) fn per_second(self) -> u32 {
        self.per_second.get()
    }

    pub(crate) fn burst(self) -> u32 {
        self.burst.get()
    }

    /// How long so many tokens take to flow in; rounded up, so that no rounding admits more.
    fn span(self, tokens: u32) -> Duration {
        let ns = (u128::from(tokens) * SECOND_NS).div_ceil(u128::from(self.per_second()));
        Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX))
    }
}

/// One bucket; full when new.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bucket {
    full_at: Duration,
}

impl Bucket {
    /// How long until it is full.
    pub(crate) fn debt(&self, now: Duration) -> Duration {
        self.full_at.saturating_sub(now)
    }

    /// Tokens in it.
    pub(crate) fn available(&self, quota: Quota, now: Duration) -> u32 {
        let room = quota.span(quota.burst()).saturating_sub(self.debt(now));
        let tokens = room.as_nanos() * u128::from(quota.per_second()) / SECOND_NS;
        u32::try_from(tokens).map_or(quota.burst(), |tokens| tokens.min(quota.burst()))
    }

    /// How long until it holds so many tokens; zero when it does. More than it can ever hold
    /// counts as all it can.
    pub(crate) fn wait_for(&self, tokens: u32, quota: Quota, now: Duration) -> Duration {
        let cost = quota.span(tokens.min(quota.burst()));
        (self.debt(now) + cost).saturating_sub(quota.span(quota.burst()))
    }

    /// Takes tokens that [`Bucket::wait_for`] says are there.
    pub(crate) fn charge(&mut self, tokens: u32, quota: Quota, now: Duration) {
        let cost = quota.span(tokens.min(quota.burst()));
        self.full_at = self.full_at.max(now).saturating_add(cost);
    }

    /// Learns that it is at least that far from full.
    pub(crate) fn learn(&mut self, debt: Duration, now: Duration) {
        self.full_at = self.full_at.max(now.saturating_add(debt));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn quota(per_second: u32, burst: u32) -> Quota {
        Quota::new(per_second, NonZeroU32::new(burst).unwrap()).unwrap()
    }

    fn admits(bucket: &mut Bucket, tokens: u32, quota: Quota, now: Duration) -> bool {
        let admitted = bucket.wait_for(tokens, quota, now).is_zero();
        if admitted {
            bucket.charge(tokens, quota, now);
        }
        admitted
    }

    proptest! {
        #[test]
        fn no_stretch_of_time_admits_more_than_burst_and_rate(
            rate in 1u32..100_000,
            burst in 1u32..5_000,
            steps in prop::collection::vec((0u64..2_000_000_000, 1u32..50), 1..300),
        ) {
            let quota = quota(rate, burst);
            let mut bucket = Bucket::default();
            let mut now = Duration::ZERO;
            let mut admitted: Vec<(Duration, u128)> = Vec::new();
            for (pause_ns, tokens) in steps {
                now += Duration::from_nanos(pause_ns % (3 * 1_000_000_000 / u64::from(rate)).max(2));
                let tokens = tokens.min(burst);
                if admits(&mut bucket, tokens, quota, now) {
                    admitted.push((now, u128::from(tokens)));
                }
            }
            for (first, (begin, _)) in admitted.iter().enumerate() {
                let mut sum = 0;
                for (end, tokens) in &admitted[first..] {
                    sum += tokens;
                    let flowed = (*end - *begin).as_nanos() * u128::from(rate);
                    // One part in a thousand million of slack: the bucket's size was rounded up.
                    prop_assert!(sum * SECOND_NS <= flowed + u128::from(burst) * SECOND_NS + u128::from(rate));
                }
            }
        }

        #[test]
        fn what_is_available_can_be_taken_and_no_more(
            rate in 1u32..100_000, burst in 1u32..5_000, debt_ns in 0u64..10_000_000_000,
        ) {
            let quota = quota(rate, burst);
            let mut bucket = Bucket::default();
            let now = Duration::from_secs(5);
            bucket.learn(Duration::from_nanos(debt_ns), now);
            let available = bucket.available(quota, now);
            prop_assert!(available == 0 || admits(&mut bucket, available, quota, now));
            prop_assert!(!admits(&mut bucket, 1, quota, now));
        }
    }

    #[test]
    fn a_steady_caller_at_the_rate_is_always_admitted() {
        let (quota, mut bucket) = (quota(100, 1), Bucket::default());
        for tick in 0..1_000 {
            assert!(admits(
                &mut bucket,
                1,
                quota,
                Duration::from_millis(tick * 10)
            ));
        }
        assert!(!admits(&mut bucket, 1, quota, Duration::from_millis(9_995)));
    }

    #[test]
    fn waits_and_debts_are_told() {
        let (quota, mut bucket) = (quota(10, 5), Bucket::default());
        let now = Duration::from_secs(1);
        assert_eq!(bucket.available(quota, now), 5);
        bucket.charge(5, quota, now);
        assert_eq!(bucket.available(quota, now), 0);
        assert_eq!(bucket.debt(now), Duration::from_millis(500));
        assert_eq!(bucket.wait_for(1, quota, now), Duration::from_millis(100));
        assert_eq!(bucket.wait_for(50, quota, now), Duration::from_millis(500));
        assert_eq!(Quota::new(0, NonZeroU32::MIN), None);
    }
}
