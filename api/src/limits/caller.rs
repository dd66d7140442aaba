//! What one key has left on this node: tokens taken ahead from the shared buckets, and what is known
//! of those buckets. Asks nobody: `limits` does.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use store::{ApiKey, BucketName, SharedBucket, Taken};

use super::gcra::{Bucket, Quota};
use super::{Decision, LimitOf, Quotas, Standing, Verdict};

/// Tokens taken ahead lapse after this, so that no stretch of time admits more than burst and rate
/// allow for the stretch and this.
const LEASE_LIFE: Duration = Duration::from_millis(500);
/// Tokens are taken ahead for this part of a second at most.
const LEASES_PER_SECOND: u32 = 20;
const LEASE_MAX: u32 = 50;
/// A refusal is repeated without asking for this long at most.
const REFUSAL_LIFE: Duration = Duration::from_secs(1);
const REFUSAL_MIN: Duration = Duration::from_millis(1);

/// One key's state.
pub(super) struct Caller {
    quotas: Quotas,
    account_name: BucketName,
    key_name: BucketName,
    account: Arc<Mutex<Bucket>>,
    state: Mutex<State>,
    /// One request at a time asks for all that wait.
    pub(super) asking: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    key: Bucket,
    /// Tokens taken ahead, paid for in both buckets.
    tokens: u32,
    /// They lapse then.
    tokens_until: Duration,
    /// How many were taken the last time.
    taken: u32,
    /// Nothing can be had before.
    refused: Option<(Duration, LimitOf)>,
}

impl Caller {
    /// `account` is what is known of the bucket that the key shares with the others of its account
    /// and mode.
    pub(super) fn new(quotas: Quotas, key: &ApiKey, account: Arc<Mutex<Bucket>>) -> Self {
        Self {
            quotas,
            account_name: match key.test {
                true => BucketName::AccountTest,
                false => BucketName::Account,
            },
            key_name: BucketName::Key(key.id),
            account,
            state: Mutex::default(),
            asking: tokio::sync::Mutex::default(),
        }
    }

    /// The answer, if it needs nobody else: a token is at hand, or a refusal still holds.
    pub(super) fn at_hand(&self, now: Duration) -> Option<Decision> {
        let mut state = lock(&self.state);
        if let Some((until, of)) = state.refused.filter(|(until, _)| now < *until) {
            return Some(self.refuse(&state, of, until - now, now));
        }
        if state.tokens == 0 || now >= state.tokens_until {
            return None;
        }
        state.tokens -= 1;
        Some(self.admit(&state, now))
    }

    /// What to ask the shared buckets for: twice as much as the last time if that was used up,
    /// else as much as was used. Keys that rest take nothing ahead.
    pub(super) fn wish(&self, now: Duration) -> (u32, Vec<SharedBucket>) {
        let state = lock(&self.state);
        let rates = self.quotas.each().map(|(_, quota)| quota.per_second());
        let ahead = rates.min().unwrap_or_default() / LEASES_PER_SECOND;
        let next = if state.tokens == 0 && now < state.tokens_until {
            state.taken.saturating_mul(2)
        } else {
            state.taken.saturating_sub(state.tokens)
        };
        let wanted = next.clamp(1, ahead.clamp(1, LEASE_MAX));
        let buckets = self.quotas.each().map(|(of, quota)| SharedBucket {
            name: match of {
                LimitOf::Account => self.account_name,
                LimitOf::Key => self.key_name,
            },
            per_second: quota.per_second(),
            burst: quota.burst(),
            known_debt: self.bucket(of, &state).debt(now),
        });
        (wanted, buckets.collect())
    }

    /// Takes in what the shared buckets gave, asked at `asked_at`.
    pub(super) fn refill(&self, taken: &Taken, asked_at: Duration, now: Duration) {
        let mut state = lock(&self.state);
        let mut longest = (REFUSAL_MIN, LimitOf::Account);
        for ((of, quota), debt) in self.quotas.each().zip(&taken.debts) {
            let known = match of {
                LimitOf::Account => {
                    let mut account = lock(&self.account);
                    account.learn(*debt, now);
                    *account
                }
                LimitOf::Key => {
                    state.key.learn(*debt, now);
                    state.key
                }
            };
            let wait = known.wait_for(1, quota, now);
            if wait >= longest.0 {
                longest = (wait, of);
            }
        }
        state.taken = taken.granted;
        state.tokens = taken.granted;
        state.tokens_until = asked_at + LEASE_LIFE;
        let (wait, of) = longest;
        state.refused = (taken.granted == 0).then(|| (now + wait.min(REFUSAL_LIFE), of));
    }

    /// The answer of this node alone, as one of `nodes` that each let in as much: a request costs
    /// as many tokens. Later, Redis is told the debt.
    pub(super) fn alone(&self, nodes: u32, now: Duration) -> Decision {
        let mut state = lock(&self.state);
        let mut longest = (Duration::ZERO, LimitOf::Account);
        for (of, quota) in self.quotas.each() {
            let wait = self.bucket(of, &state).wait_for(nodes, quota, now);
            if wait > longest.0 {
                longest = (wait, of);
            }
        }
        let (wait, of) = longest;
        if !wait.is_zero() {
            return self.refuse(&state, of, wait, now);
        }
        if let Some(quota) = self.quotas.account {
            lock(&self.account).charge(nodes, quota, now);
        }
        if let Some(quota) = self.quotas.key {
            state.key.charge(nodes, quota, now);
        }
        self.admit(&state, now)
    }

    fn bucket(&self, of: LimitOf, state: &State) -> Bucket {
        match of {
            LimitOf::Account => *lock(&self.account),
            LimitOf::Key => state.key,
        }
    }

    fn admit(&self, state: &State, now: Duration) -> Decision {
        let at_hand = if now < state.tokens_until {
            state.tokens
        } else {
            0
        };
        let standing = |(of, quota): (LimitOf, Quota)| {
            let bucket = self.bucket(of, state);
            let left = bucket.available(quota, now).saturating_add(at_hand);
            Standing::new(quota, left.min(quota.burst()), bucket.debt(now))
        };
        let standings = self.quotas.each().map(standing);
        Decision {
            verdict: Verdict::Admitted,
            standing: standings.min_by_key(|standing| standing.remaining),
        }
    }

    fn refuse(&self, state: &State, of: LimitOf, wait: Duration, now: Duration) -> Decision {
        let quota = match of {
            LimitOf::Account => self.quotas.account,
            LimitOf::Key => self.quotas.key,
        };
        let debt = self.bucket(of, state).debt(now);
        Decision {
            verdict: Verdict::Refused { of, wait },
            standing: quota.map(|quota| Standing::new(quota, 0, debt)),
        }
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing here panics half way; what a panicking neighbour left is whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
