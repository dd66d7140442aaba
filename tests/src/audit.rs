//! The guarantees of delivery, checked over a whole run: what was accepted, what the events say
//! and what arrived must fit together.

use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, Instant};

use crate::ledger::{self, Fate};
use crate::load::Sent;
use crate::platform::Platform;
use crate::sink::{Receipt, Sink};

/// A reply written this long before a kill was read before it, however busy the machine is.
const SURELY_READ: Duration = Duration::from_secs(1);

/// What a run came to.
#[derive(Debug, PartialEq, Eq)]
pub struct Audit {
    /// Messages accepted.
    pub accepted: usize,
    /// Deliveries with a final event.
    pub finished: usize,
    /// Deliveries put off in doubt.
    pub in_doubt: usize,
    /// Deliveries held in doubt.
    pub held: usize,
    /// Deliveries that arrived more than once.
    pub duplicates: usize,
}

impl fmt::Display for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            accepted,
            finished,
            in_doubt,
            held,
            duplicates,
        } = self;
        write!(
            f,
            "{accepted} accepted, {finished} finished, 0 lost, {in_doubt} in doubt, {held} held, \
             {duplicates} twice"
        )
    }
}

impl Audit {
    /// Holds a finished run against the promises; `kills` are the moments at which processes died.
    pub async fn of(platform: &Platform, sent: &Sent, sink: &Sink, kills: &[Instant]) -> Self {
        let stored = ledger::messages(&platform.pool).await;
        assert_eq!(
            stored,
            sent.accepted.len() as i64,
            "stored and accepted differ"
        );
        let fates = ledger::fates(&platform.pool).await;
        let held = ledger::held(&platform.pool).await;
        let receipts = sink.receipts();
        let mut arrived: HashMap<&str, Vec<&Receipt>> = HashMap::new();
        for receipt in receipts.iter().filter(|receipt| receipt.accepted) {
            arrived.entry(&receipt.id).or_default().push(receipt);
        }
        let mut audit = Self {
            accepted: sent.accepted.len(),
            finished: 0,
            in_doubt: 0,
            held: 0,
            duplicates: 0,
        };
        for (id, message) in &sent.accepted {
            let fate = fates.get(message).cloned().unwrap_or_default();
            let copies = arrived.remove(id.as_str()).unwrap_or_default();
            audit.one(id, &fate, held.contains(message), &copies, kills);
        }
        assert!(
            arrived.is_empty(),
            "arrived and never accepted: {:?}",
            arrived.keys()
        );
        audit
    }

    fn one(&mut self, id: &str, fate: &Fate, held: bool, copies: &[&Receipt], kills: &[Instant]) {
        let expected = i64::from(!held);
        assert_eq!(
            fate.finals, expected,
            "{id} has {} final events: {fate:?}",
            fate.finals
        );
        assert!(
            fate.delivered == 0 || !copies.is_empty(),
            "{id}: delivered, never arrived"
        );
        assert!(
            held || fate.delivered == 1,
            "{id} was not delivered: {fate:?}"
        );
        let most = 1 + usize::try_from(fate.in_doubt).unwrap();
        assert!(
            copies.len() <= most,
            "{id} arrived {} times and was in doubt {} times: {copies:#?}",
            copies.len(),
            fate.in_doubt
        );
        if let Some((_, earlier)) = copies.split_last() {
            earlier
                .iter()
                .for_each(|copy| assert_unread(id, copy, kills));
        }
        self.finished += usize::from(!held);
        self.held += usize::from(held);
        self.in_doubt += usize::from(fate.in_doubt > 0);
        self.duplicates += usize::from(copies.len() > 1);
    }
}

/// A copy that was followed by another one must not have been answered so long before a kill that
/// the answer was read.
fn assert_unread(id: &str, copy: &Receipt, kills: &[Instant]) {
    let Some(answered_at) = copy.answered_at else {
        return;
    };
    let next_kill = kills.iter().find(|kill| **kill >= copy.dot_at);
    let unread = next_kill.is_some_and(|kill| {
        kill.checked_duration_since(answered_at)
            .is_none_or(|before| before < SURELY_READ)
    });
    assert!(
        unread,
        "{id} was sent again after its 250 had been read: {copy:?}"
    );
}
