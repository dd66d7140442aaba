//! How long and how often to measure.

/// Sizes of everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    /// Repetitions of a row with a load, and of a restart.
    pub(super) runs: u32,
    /// Length of a load.
    pub(super) seconds: u64,
    /// Pairs of loads, without and with what is asked about.
    pub(super) pairs: u32,
    /// Length of each of the two.
    pub(super) pair_seconds: u64,
    /// Messages that a peer gets.
    pub(super) peer_messages: u64,
    /// Deliveries in the queue of backlog and restart.
    pub(super) backlog: u64,
    /// Deliveries in the queue for the tarpit.
    pub(super) tarpit: u64,
    /// Deliveries in the queue of the greedy account.
    pub(super) greedy: u64,
    /// Accounts.
    pub(super) accounts: u32,
}

/// What the bars ask for; about an hour and a half by the length of its runs.
const FULL: Plan = Plan {
    runs: 5,
    seconds: 20,
    pairs: 7,
    pair_seconds: 30,
    peer_messages: 5_000,
    backlog: 1_000_000,
    tarpit: 200_000,
    greedy: 500_000,
    accounts: 1_000,
};

/// Shows that everything works, and roughly where it is.
const QUICK: Plan = Plan {
    runs: 1,
    seconds: 5,
    pairs: 1,
    pair_seconds: 5,
    peer_messages: 1_000,
    backlog: 100_000,
    tarpit: 20_000,
    greedy: 50_000,
    accounts: 100,
};

impl Plan {
    /// The full or the quick plan, with what the command line says otherwise.
    pub(super) fn new(quick: bool, runs: Option<u32>, seconds: Option<u64>) -> Self {
        let plan = if quick { QUICK } else { FULL };
        Self {
            runs: runs.unwrap_or(plan.runs),
            seconds: seconds.unwrap_or(plan.seconds),
            ..plan
        }
    }
}
