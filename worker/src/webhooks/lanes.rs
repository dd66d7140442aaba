//! Calls side by side, so that no endpoint waits for another: each has a lane of its own with few
//! calls under way, and lanes take turns when all of them together reach the process's limit.
//! Pure bookkeeping: what a call is and how it is made is not known here.

use std::collections::{HashMap, VecDeque};

use store::EndpointNo;

/// Waiting and running calls of all endpoints.
#[derive(Debug)]
pub(super) struct Lanes<C> {
    /// Most calls under way to one endpoint.
    width: usize,
    /// Most calls under way to all of them.
    running_max: usize,
    running: usize,
    lanes: HashMap<EndpointNo, Lane<C>>,
    /// Endpoints that may start a call, in turn; each at most once.
    ready: VecDeque<EndpointNo>,
}

#[derive(Debug)]
struct Lane<C> {
    waiting: VecDeque<C>,
    running: usize,
    is_ready: bool,
}

impl<C> Lanes<C> {
    pub(super) fn new(width: usize, running_max: usize) -> Self {
        let (lanes, ready) = (HashMap::new(), VecDeque::new());
        Self {
            width,
            running_max,
            running: 0,
            lanes,
            ready,
        }
    }

    /// Calls of this endpoint, waiting and running.
    pub(super) fn len(&self, endpoint: EndpointNo) -> usize {
        self.lanes
            .get(&endpoint)
            .map_or(0, |lane| lane.waiting.len() + lane.running)
    }

    /// Lets a call wait for its turn.
    pub(super) fn push(&mut self, endpoint: EndpointNo, call: C) {
        let lane = self.lanes.entry(endpoint).or_insert_with(|| Lane {
            waiting: VecDeque::new(),
            running: 0,
            is_ready: false,
        });
        lane.waiting.push_back(call);
        self.offer(endpoint);
    }

    /// The next call to start, which counts as running from now on; none when nothing waits or
    /// every limit is reached.
    pub(super) fn start(&mut self) -> Option<(EndpointNo, C)> {
        if self.running >= self.running_max {
            return None;
        }
        let endpoint = self.ready.pop_front()?;
        let lane = self.lanes.get_mut(&endpoint)?;
        lane.is_ready = false;
        let call = lane.waiting.pop_front()?;
        lane.running += 1;
        self.running += 1;
        self.offer(endpoint);
        Some((endpoint, call))
    }

    /// A started call has ended.
    pub(super) fn ended(&mut self, endpoint: EndpointNo) {
        let Some(lane) = self.lanes.get_mut(&endpoint) else {
            return;
        };
        lane.running = lane.running.saturating_sub(1);
        self.running = self.running.saturating_sub(1);
        self.offer(endpoint);
        self.forget_if_empty(endpoint);
    }

    /// Takes out the waiting calls for which `unwanted` holds. Calls wait in the order they came,
    /// so a lane is looked at only up to the first call that may stay.
    pub(super) fn take_leading(&mut self, unwanted: impl Fn(&C) -> bool) -> Vec<(EndpointNo, C)> {
        let mut taken = Vec::new();
        for (endpoint, lane) in &mut self.lanes {
            while let Some(call) = lane.waiting.pop_front_if(|call| unwanted(call)) {
                taken.push((*endpoint, call));
            }
        }
        for (endpoint, _) in &taken {
            self.forget_if_empty(*endpoint);
        }
        taken
    }

    fn offer(&mut self, endpoint: EndpointNo) {
        if let Some(lane) = self.lanes.get_mut(&endpoint)
            && !lane.is_ready
            && lane.running < self.width
            && !lane.waiting.is_empty()
        {
            lane.is_ready = true;
            self.ready.push_back(endpoint);
        }
    }

    fn forget_if_empty(&mut self, endpoint: EndpointNo) {
        let Some(lane) = self.lanes.get_mut(&endpoint) else {
            return;
        };
        if !lane.waiting.is_empty() {
            return;
        }
        if lane.is_ready {
            lane.is_ready = false;
            self.ready.retain(|ready| *ready != endpoint);
        }
        if lane.running == 0 {
            self.lanes.remove(&endpoint);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOW: EndpointNo = EndpointNo(1);
    const QUICK: EndpointNo = EndpointNo(2);

    fn started(lanes: &mut Lanes<u32>) -> Vec<(i32, u32)> {
        std::iter::from_fn(|| lanes.start())
            .map(|(endpoint, call)| (endpoint.0, call))
            .collect()
    }

    #[test]
    fn a_full_lane_does_not_hold_another() {
        let mut lanes = Lanes::new(2, 10);
        (0..5).for_each(|call| lanes.push(SLOW, call));
        lanes.push(QUICK, 100);
        assert_eq!(started(&mut lanes), [(1, 0), (2, 100), (1, 1)]);
        lanes.ended(SLOW);
        assert_eq!(started(&mut lanes), [(1, 2)]);
        assert_eq!((lanes.len(SLOW), lanes.len(QUICK)), (4, 1));
    }

    #[test]
    fn lanes_take_turns_at_the_limit_of_all() {
        let mut lanes = Lanes::new(2, 3);
        for call in 0..3 {
            lanes.push(SLOW, call);
            lanes.push(QUICK, 10 + call);
        }
        assert_eq!(started(&mut lanes), [(1, 0), (2, 10), (1, 1)]);
        lanes.ended(SLOW);
        assert_eq!(started(&mut lanes), [(2, 11)]);
        lanes.ended(QUICK);
        assert_eq!(started(&mut lanes), [(1, 2)]);
    }

    #[test]
    fn emptied_lanes_are_forgotten() {
        let mut lanes = Lanes::new(1, 1);
        (0..4).for_each(|call| lanes.push(SLOW, call));
        lanes.push(QUICK, 9);
        assert_eq!(started(&mut lanes), [(1, 0)]);
        let taken = lanes.take_leading(|call| *call < 3 || *call == 9);
        assert_eq!(taken.len(), 3);
        lanes.ended(SLOW);
        assert_eq!(started(&mut lanes), [(1, 3)]);
        lanes.ended(SLOW);
        assert!(lanes.lanes.is_empty() && lanes.ready.is_empty());
        assert_eq!(lanes.running, 0);
    }
}
