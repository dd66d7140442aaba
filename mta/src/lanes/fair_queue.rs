//! Who is next among the accounts that wait for one path. Deficit round robin with one delivery as
//! the unit, transactional before broadcast. Knows nothing of sockets or time.

use std::collections::{HashMap, VecDeque};

use mail::retry::StreamClass;
use store::AccountNo;

/// Of this many turns one belongs to broadcast even while transactional mail waits: first does not
/// mean alone.
const BROADCAST_TURN: u32 = 8;

/// Waiting deliveries of one path, fair between accounts.
#[derive(Debug)]
pub(crate) struct FairQueue<T> {
    transactional: Rotation<T>,
    broadcast: Rotation<T>,
    turn: u32,
}

impl<T> Default for FairQueue<T> {
    fn default() -> Self {
        Self {
            transactional: Rotation::default(),
            broadcast: Rotation::default(),
            turn: 0,
        }
    }
}

impl<T> FairQueue<T> {
    pub(crate) fn push(&mut self, class: StreamClass, account: AccountNo, item: T) {
        self.class_mut(class).push_back(account, item);
    }

    /// Back to the head of its lane: it was taken and not attempted.
    pub(crate) fn push_front(&mut self, class: StreamClass, account: AccountNo, item: T) {
        self.class_mut(class).push_front(account, item);
    }

    pub(crate) fn pop(&mut self) -> Option<T> {
        self.turn = self.turn.wrapping_add(1);
        if self.turn.is_multiple_of(BROADCAST_TURN) {
            self.broadcast.pop().or_else(|| self.transactional.pop())
        } else {
            self.transactional.pop().or_else(|| self.broadcast.pop())
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.transactional.len + self.broadcast.len
    }

    /// Deliveries of one lane: account and class.
    pub(crate) fn lane_len(&self, class: StreamClass, account: AccountNo) -> usize {
        let rotation = match class {
            StreamClass::Transactional => &self.transactional,
            StreamClass::Broadcast => &self.broadcast,
        };
        rotation.lanes.get(&account).map_or(0, VecDeque::len)
    }

    /// Takes out whatever `gone` says.
    pub(crate) fn extract(&mut self, mut gone: impl FnMut(&T) -> bool) -> Vec<T> {
        let mut out = self.transactional.extract(&mut gone);
        out.extend(self.broadcast.extract(&mut gone));
        out
    }

    fn class_mut(&mut self, class: StreamClass) -> &mut Rotation<T> {
        match class {
            StreamClass::Transactional => &mut self.transactional,
            StreamClass::Broadcast => &mut self.broadcast,
        }
    }
}

/// Lanes of one class. An account is in `ring` exactly when its lane holds something.
#[derive(Debug)]
struct Rotation<T> {
    lanes: HashMap<AccountNo, VecDeque<T>>,
    ring: VecDeque<AccountNo>,
    len: usize,
}

impl<T> Default for Rotation<T> {
    fn default() -> Self {
        Self {
            lanes: HashMap::new(),
            ring: VecDeque::new(),
            len: 0,
        }
    }
}

impl<T> Rotation<T> {
    fn lane_mut(&mut self, account: AccountNo) -> &mut VecDeque<T> {
        self.len += 1;
        self.lanes.entry(account).or_insert_with(|| {
            self.ring.push_back(account);
            VecDeque::new()
        })
    }

    fn push_back(&mut self, account: AccountNo, item: T) {
        self.lane_mut(account).push_back(item);
    }

    fn push_front(&mut self, account: AccountNo, item: T) {
        self.lane_mut(account).push_front(item);
    }

    fn pop(&mut self) -> Option<T> {
        let account = self.ring.pop_front()?;
        let lane = self.lanes.get_mut(&account)?;
        let item = lane.pop_front();
        if lane.is_empty() {
            self.lanes.remove(&account);
        } else {
            self.ring.push_back(account);
        }
        self.len -= usize::from(item.is_some());
        item
    }

    fn extract(&mut self, gone: &mut impl FnMut(&T) -> bool) -> Vec<T> {
        let mut out = Vec::new();
        for lane in self.lanes.values_mut() {
            for item in std::mem::take(lane) {
                if gone(&item) {
                    out.push(item)
                } else {
                    lane.push_back(item)
                }
            }
        }
        self.lanes.retain(|_, lane| !lane.is_empty());
        self.ring.retain(|account| self.lanes.contains_key(account));
        self.len -= out.len();
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BIG: AccountNo = AccountNo(1);
    const SMALL: AccountNo = AccountNo(2);

    #[test]
    fn a_full_lane_does_not_delay_another_account() {
        let mut queue = FairQueue::default();
        for n in 0..1000 {
            queue.push(StreamClass::Transactional, BIG, n);
        }
        queue.push(StreamClass::Transactional, SMALL, -1);
        let first: Vec<i32> = (0..2).filter_map(|_| queue.pop()).collect();
        assert!(first.contains(&-1), "{first:?}");
        assert_eq!(queue.len(), 999);
    }

    #[test]
    fn transactional_goes_first_and_broadcast_is_not_starved() {
        let mut queue = FairQueue::default();
        for n in 0..100 {
            queue.push(StreamClass::Broadcast, SMALL, -n - 1);
            queue.push(StreamClass::Transactional, BIG, n);
        }
        let first: Vec<i32> = (0..16).filter_map(|_| queue.pop()).collect();
        assert_eq!(first.iter().filter(|n| **n < 0).count(), 2, "{first:?}");
        assert!(first[0] >= 0);
    }

    #[test]
    fn what_is_extracted_is_gone_and_the_rest_keeps_its_order() {
        let mut queue = FairQueue::default();
        for n in 0..10 {
            queue.push(
                StreamClass::Transactional,
                if n % 2 == 0 { BIG } else { SMALL },
                n,
            );
        }
        let mut even = queue.extract(|n| n % 2 == 0);
        even.sort_unstable();
        assert_eq!(even, [0, 2, 4, 6, 8]);
        let rest: Vec<i32> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(rest, [1, 3, 5, 7, 9]);
        assert_eq!(queue.len(), 0);
        assert_eq!(queue.lane_len(StreamClass::Transactional, BIG), 0);
    }
}
