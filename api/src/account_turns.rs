//! How much slow work may be under way for one account at once, so that nobody's can take the place
//! of everybody's. Counts in this process only; refuses at once and keeps nobody waiting.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::http::{HeaderValue, header};
use store::AccountNo;

use crate::problem::{Code, Problem};

/// What a client is told to wait when its own requests are in the way.
const RETRY_SECS: u64 = 5;

/// Work that takes much longer than its request tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum SlowWork {
    /// A walk through the whole queue.
    Walk,
    /// A look at the records of a domain: its name servers may take their time.
    DomainCheck,
    /// Making a DKIM key.
    DomainKey,
}

impl SlowWork {
    /// How many of an account may be under way at once.
    fn max(self) -> usize {
        match self {
            Self::Walk | Self::DomainCheck => 2,
            Self::DomainKey => 1,
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Walk => "actions on emails",
            Self::DomainCheck => "looks at the records of domains",
            Self::DomainKey => "keys of domains being made",
        }
    }
}

type UnderWay = HashMap<(AccountNo, SlowWork), usize>;

/// What is under way, for whom. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct AccountTurns {
    under_way: Arc<Mutex<UnderWay>>,
}

/// Work that is under way as long as this lives.
#[derive(Debug)]
pub(crate) struct AccountTurn {
    turns: AccountTurns,
    of: (AccountNo, SlowWork),
}

impl AccountTurns {
    /// Begins work for an account.
    ///
    /// # Errors
    /// `too_many_at_once`: it has as much under way as it may.
    pub(crate) fn begin(&self, account: AccountNo, work: SlowWork) -> Result<AccountTurn, Problem> {
        let of = (account, work);
        let mut under_way = self.lock();
        let count = under_way.entry(of).or_default();
        if *count >= work.max() {
            let detail = format!(
                "the account has {count} {} under way already, which is all it may have at once; \
                 wait for their answers, then send this again",
                work.words()
            );
            return Err(Problem::new(Code::TooManyAtOnce, detail)
                .with_header(header::RETRY_AFTER, HeaderValue::from(RETRY_SECS)));
        }
        *count += 1;
        drop(under_way);
        Ok(AccountTurn {
            turns: self.clone(),
            of,
        })
    }

    fn lock(&self) -> MutexGuard<'_, UnderWay> {
        // Every change is one step: a panic elsewhere cannot leave half of one.
        self.under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for AccountTurn {
    fn drop(&mut self) {
        let mut under_way = self.turns.lock();
        if let Some(count) = under_way.get_mut(&self.of) {
            *count -= 1;
            if *count == 0 {
                under_way.remove(&self.of);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_has_its_turns_and_takes_nobody_elses() {
        let turns = AccountTurns::default();
        let begin = |account, work| turns.begin(AccountNo(account), work);
        let first = begin(1, SlowWork::Walk).unwrap();
        let second = begin(1, SlowWork::Walk).unwrap();
        let refused = begin(1, SlowWork::Walk).unwrap_err();
        assert_eq!(refused.code(), Code::TooManyAtOnce);
        drop(begin(2, SlowWork::Walk).unwrap());
        let key = begin(1, SlowWork::DomainKey).unwrap();
        assert!(begin(1, SlowWork::DomainKey).is_err());
        drop(first);
        drop(begin(1, SlowWork::Walk).unwrap());
        drop((second, key));
        assert!(turns.lock().is_empty(), "nothing is kept of who is done");
    }
}
