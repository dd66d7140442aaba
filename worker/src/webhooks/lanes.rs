//! Calls side by side, so that no account waits for another and no endpoint for another: each
//! endpoint has a lane of its own with few calls under way, each account a share of all calls.
//! At the limits accounts take turns, and the endpoints of an account among themselves.
//! Pure bookkeeping: what a call is and how it is made is not known here.

use std::collections::{HashMap, VecDeque};

use store::{AccountNo, EndpointNo};

/// One account may have this share of all calls under way.
const ACCOUNT_SHARE: usize = 4;

/// Most calls under way.
#[derive(Clone, Copy, Debug)]
struct Limits {
    lane: usize,
    account: usize,
    all: usize,
}

/// Waiting and running calls of all endpoints.
#[derive(Debug)]
pub(super) struct Lanes<C> {
    limits: Limits,
    running: usize,
    accounts: HashMap<AccountNo, Account>,
    lanes: HashMap<EndpointNo, Lane<C>>,
    /// Accounts that may start a call, in turn; each at most once.
    ready: VecDeque<AccountNo>,
}

#[derive(Debug, Default)]
struct Account {
    /// Waiting and running.
    calls: usize,
    running: usize,
    /// Endpoints that may start a call once the account may, in turn; each at most once.
    ready: VecDeque<EndpointNo>,
    is_ready: bool,
}

#[derive(Debug)]
struct Lane<C> {
    account: AccountNo,
    waiting: VecDeque<C>,
    running: usize,
    is_ready: bool,
}

impl<C> Lanes<C> {
    /// At most `width` calls under way to one endpoint, and `running_max` to all of them. Where
    /// there are few, one endpoint that hangs still leaves its account half of its share.
    pub(super) fn new(width: usize, running_max: usize) -> Self {
        let account = (running_max / ACCOUNT_SHARE).max(1);
        Self {
            limits: Limits {
                lane: width.min(account / 2).max(1),
                account,
                all: running_max,
            },
            running: 0,
            accounts: HashMap::new(),
            lanes: HashMap::new(),
            ready: VecDeque::new(),
        }
    }

    /// Calls of this endpoint, waiting and running.
    pub(super) fn len(&self, endpoint: EndpointNo) -> usize {
        self.lanes
            .get(&endpoint)
            .map_or(0, |lane| lane.waiting.len() + lane.running)
    }

    /// Calls of all endpoints of this account, waiting and running.
    pub(super) fn len_of_account(&self, account: AccountNo) -> usize {
        self.accounts
            .get(&account)
            .map_or(0, |account| account.calls)
    }

    /// Lets a call wait for its turn. An endpoint belongs to one account for good.
    pub(super) fn push(&mut self, account: AccountNo, endpoint: EndpointNo, call: C) {
        let lane = self.lanes.entry(endpoint).or_insert_with(|| Lane {
            account,
            waiting: VecDeque::new(),
            running: 0,
            is_ready: false,
        });
        lane.waiting.push_back(call);
        self.accounts.entry(lane.account).or_default().calls += 1;
        self.offer(endpoint);
    }

    /// The next call to start, which counts as running from now on; none when nothing waits or
    /// every limit is reached.
    pub(super) fn start(&mut self) -> Option<(EndpointNo, C)> {
        if self.running >= self.limits.all {
            return None;
        }
        let number = self.ready.pop_front()?;
        let account = self.accounts.get_mut(&number)?;
        account.is_ready = false;
        let endpoint = account.ready.pop_front()?;
        let lane = self.lanes.get_mut(&endpoint)?;
        lane.is_ready = false;
        let call = lane.waiting.pop_front()?;
        lane.running += 1;
        account.running += 1;
        self.running += 1;
        self.offer(endpoint);
        self.offer_account(number);
        Some((endpoint, call))
    }

    /// A started call has ended.
    pub(super) fn ended(&mut self, endpoint: EndpointNo) {
        let Some(lane) = self.lanes.get_mut(&endpoint) else {
            return;
        };
        let number = lane.account;
        lane.running = lane.running.saturating_sub(1);
        self.running = self.running.saturating_sub(1);
        if let Some(account) = self.accounts.get_mut(&number) {
            account.running = account.running.saturating_sub(1);
            account.calls = account.calls.saturating_sub(1);
        }
        self.offer(endpoint);
        self.offer_account(number);
        self.forget_if_empty(endpoint);
    }

    /// Takes out the waiting calls for which `unwanted` holds. Calls wait in the order they came,
    /// so a lane is looked at only up to the first call that may stay.
    pub(super) fn take_leading(&mut self, unwanted: impl Fn(&C) -> bool) -> Vec<(EndpointNo, C)> {
        let mut taken = Vec::new();
        for (endpoint, lane) in &mut self.lanes {
            while let Some(call) = lane.waiting.pop_front_if(|call| unwanted(call)) {
                taken.push((*endpoint, call));
                if let Some(account) = self.accounts.get_mut(&lane.account) {
                    account.calls = account.calls.saturating_sub(1);
                }
            }
        }
        for (endpoint, _) in &taken {
            self.forget_if_empty(*endpoint);
        }
        taken
    }

    /// Lines the endpoint up in its account, if it may start a call.
    fn offer(&mut self, endpoint: EndpointNo) {
        if let Some(lane) = self.lanes.get_mut(&endpoint)
            && !lane.is_ready
            && lane.running < self.limits.lane
            && !lane.waiting.is_empty()
            && let Some(account) = self.accounts.get_mut(&lane.account)
        {
            lane.is_ready = true;
            account.ready.push_back(endpoint);
            let number = lane.account;
            self.offer_account(number);
        }
    }

    /// Lines the account up, if it may start a call.
    fn offer_account(&mut self, number: AccountNo) {
        if let Some(account) = self.accounts.get_mut(&number)
            && !account.is_ready
            && account.running < self.limits.account
            && !account.ready.is_empty()
        {
            account.is_ready = true;
            self.ready.push_back(number);
        }
    }

    fn forget_if_empty(&mut self, endpoint: EndpointNo) {
        let Some(lane) = self.lanes.get_mut(&endpoint) else {
            return;
        };
        if !lane.waiting.is_empty() {
            return;
        }
        let (number, was_ready) = (lane.account, std::mem::take(&mut lane.is_ready));
        if lane.running == 0 {
            self.lanes.remove(&endpoint);
        }
        let Some(account) = self.accounts.get_mut(&number) else {
            return;
        };
        if was_ready {
            account.ready.retain(|ready| *ready != endpoint);
        }
        if account.is_ready && account.ready.is_empty() {
            account.is_ready = false;
            self.ready.retain(|ready| *ready != number);
        }
        if account.calls == 0 && account.ready.is_empty() {
            self.accounts.remove(&number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOW: EndpointNo = EndpointNo(1);
    const QUICK: EndpointNo = EndpointNo(2);
    const ACCOUNT: AccountNo = AccountNo(1);
    const OTHER: AccountNo = AccountNo(2);

    fn started(lanes: &mut Lanes<u32>) -> Vec<(i32, u32)> {
        std::iter::from_fn(|| lanes.start())
            .map(|(endpoint, call)| (endpoint.0, call))
            .collect()
    }

    #[test]
    fn a_full_lane_does_not_hold_another() {
        let mut lanes = Lanes::new(2, 40);
        (0..5).for_each(|call| lanes.push(ACCOUNT, SLOW, call));
        lanes.push(ACCOUNT, QUICK, 100);
        assert_eq!(started(&mut lanes), [(1, 0), (2, 100), (1, 1)]);
        lanes.ended(SLOW);
        assert_eq!(started(&mut lanes), [(1, 2)]);
        assert_eq!((lanes.len(SLOW), lanes.len(QUICK)), (4, 1));
    }

    #[test]
    fn lanes_take_turns_at_the_limit_of_their_account() {
        let mut lanes = Lanes::new(2, 16);
        for call in 0..3 {
            lanes.push(ACCOUNT, SLOW, call);
            lanes.push(ACCOUNT, QUICK, 10 + call);
        }
        let first = [(1, 0), (2, 10), (1, 1), (2, 11)];
        assert_eq!(started(&mut lanes), first);
        lanes.ended(SLOW);
        assert_eq!(started(&mut lanes), [(1, 2)]);
        lanes.ended(QUICK);
        assert_eq!(started(&mut lanes), [(2, 12)]);
    }

    #[test]
    fn one_endpoint_gets_half_of_what_its_account_may_have() {
        let mut lanes = Lanes::new(16, 16);
        (0..9).for_each(|call| lanes.push(ACCOUNT, SLOW, call));
        assert_eq!(started(&mut lanes), [(1, 0), (1, 1)]);
        lanes.push(ACCOUNT, QUICK, 9);
        assert_eq!(started(&mut lanes), [(2, 9)]);
    }

    #[test]
    fn accounts_take_turns_however_many_endpoints_they_have() {
        let mut lanes = Lanes::new(2, 16);
        for endpoint in 10..20 {
            (0..5).for_each(|call| lanes.push(ACCOUNT, EndpointNo(endpoint), call));
        }
        (0..3).for_each(|call| lanes.push(OTHER, QUICK, 100 + call));
        // A quarter of all for each account, though there is room for more.
        let first = [(10, 0), (2, 100), (11, 0), (2, 101), (12, 0), (13, 0)];
        assert_eq!(started(&mut lanes), first);
        assert_eq!(lanes.len_of_account(ACCOUNT), 50);
        lanes.ended(EndpointNo(10));
        lanes.ended(QUICK);
        assert_eq!(started(&mut lanes), [(14, 0), (2, 102)]);
        assert_eq!(
            (lanes.len_of_account(ACCOUNT), lanes.len_of_account(OTHER)),
            (49, 2)
        );
    }

    #[test]
    fn emptied_lanes_are_forgotten() {
        let mut lanes = Lanes::new(1, 1);
        (0..4).for_each(|call| lanes.push(ACCOUNT, SLOW, call));
        lanes.push(OTHER, QUICK, 9);
        lanes.push(OTHER, EndpointNo(3), 9);
        assert_eq!(started(&mut lanes), [(1, 0)]);
        let taken = lanes.take_leading(|call| *call < 3 || *call == 9);
        assert_eq!((taken.len(), lanes.ready.len()), (4, 0));
        assert_eq!(lanes.len_of_account(OTHER), 0);
        lanes.ended(SLOW);
        assert_eq!(started(&mut lanes), [(1, 3)]);
        lanes.ended(SLOW);
        assert!(lanes.lanes.is_empty() && lanes.accounts.is_empty() && lanes.ready.is_empty());
        assert_eq!(lanes.running, 0);
    }
}
