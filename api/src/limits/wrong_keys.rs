//! Guessing keys is slowed down by client address, so that nobody can keep PostgreSQL busy with keys
//! that are none. A key that worked within the last hour passes, whoever else shares its address.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use moka::sync::Cache;

use super::caller::lock;
use super::gcra::{Bucket, Quota};
use super::remembered;
use crate::config::RateLimits;

const REMEMBERED_FOR: Duration = Duration::from_secs(3_600);
/// The part of an IPv6 address that one customer is given (RFC 6177).
const CUSTOMER_BITS: u128 = !((1 << 64) - 1);

/// Wrong keys by client address.
pub(crate) struct WrongKeys {
    quota: Option<Quota>,
    addresses: Cache<IpAddr, Arc<Mutex<Bucket>>>,
    /// Hashes of keys that worked.
    good: Cache<[u8; 32], ()>,
    started: Instant,
}

impl WrongKeys {
    pub(crate) fn new(limits: &RateLimits) -> Self {
        Self {
            quota: Quota::new(limits.wrong_keys_per_second, limits.wrong_keys_burst),
            addresses: remembered(REMEMBERED_FOR),
            good: remembered(REMEMBERED_FOR),
            started: Instant::now(),
        }
    }

    /// How long this key from this address has to wait before it is looked up; none: not at all.
    pub(crate) fn wait(&self, address: Option<IpAddr>, hash: &[u8; 32]) -> Option<Duration> {
        let quota = self.quota?;
        let bucket = self.addresses.get(&customer(address?))?;
        let wait = lock(&bucket).wait_for(1, quota, self.started.elapsed());
        (!wait.is_zero() && !self.good.contains_key(hash)).then_some(wait)
    }

    /// The key was looked up and is none, or no more.
    pub(crate) fn failed(&self, address: Option<IpAddr>, hash: &[u8; 32]) {
        self.good.invalidate(hash);
        if let (Some(quota), Some(address)) = (self.quota, address) {
            let bucket = self.addresses.get_with(customer(address), Arc::default);
            let now = self.started.elapsed();
            let mut bucket = lock(&bucket);
            // Requests that were looked up at the same time must not dig deeper than empty.
            if bucket.wait_for(1, quota, now).is_zero() {
                bucket.charge(1, quota, now);
            }
        }
    }

    /// The key is one.
    pub(crate) fn worked(&self, hash: &[u8; 32]) {
        if !self.good.contains_key(hash) {
            self.good.insert(*hash, ());
        }
    }
}

fn customer(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & CUSTOMER_BITS)),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn an_address_that_guesses_waits_and_its_neighbours_and_good_keys_do_not() {
        let wrong_keys = WrongKeys::new(&RateLimits {
            wrong_keys_per_second: 1,
            wrong_keys_burst: NonZeroU32::new(3).unwrap(),
            ..RateLimits::default()
        });
        let (good, guess) = ([1; 32], [2; 32]);
        wrong_keys.worked(&good);
        for _ in 0..3 {
            assert_eq!(wrong_keys.wait(address("2001:db8::1"), &guess), None);
            wrong_keys.failed(address("2001:db8::1"), &guess);
        }
        assert!(wrong_keys.wait(address("2001:db8::2"), &guess).is_some());
        assert_eq!(wrong_keys.wait(address("2001:db8::2"), &good), None);
        assert_eq!(wrong_keys.wait(address("2001:db8:0:1::1"), &guess), None);
        assert_eq!(wrong_keys.wait(None, &guess), None);
        wrong_keys.failed(address("2001:db8::1"), &good);
        assert!(wrong_keys.wait(address("2001:db8::2"), &good).is_some());
    }

    #[test]
    fn ipv4_is_one_address_however_it_is_written() {
        assert_eq!(
            customer("::ffff:192.0.2.1".parse().unwrap()),
            customer("192.0.2.1".parse().unwrap())
        );
    }
}
