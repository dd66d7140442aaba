//! The guarantees of delivery, checked over a whole run: what was accepted, what the events say
//! and what arrived must fit together.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::ledger::{self, Attempt, Fate};
use crate::load::Sent;
use crate::platform::Platform;
use crate::sink::{Receipt, Sink};

/// A reply written this long before a kill was read before it, however busy the machine is.
const SURELY_READ: Duration = Duration::from_secs(1);

/// A process that died without warning, or was cut off.
#[derive(Clone, Debug)]
pub struct Kill {
    /// Before the process that followed it was started; none if it lived on.
    pub at: Option<Instant>,
    /// Attempts whose outcome PostgreSQL did not know then; the journal may.
    pub open: HashSet<Attempt>,
}

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
    /// Holds a finished run against the promises; `kills` are the processes that died in it.
    pub async fn of(platform: &Platform, sent: &Sent, sink: &Sink, kills: &[Kill]) -> Self {
        let stored = ledger::messages(&platform.pool).await;
        assert_eq!(
            stored,
            sent.accepted.len() as i64,
            "stored and accepted differ"
        );
        let fates = ledger::fates(&platform.pool).await;
        let held = ledger::held(&platform.pool).await;
        let receipts = sink.receipts();
        let doubts = ledger::doubts(&platform.pool).await;
        only_open_intents_are_in_doubt(sent, &receipts, &doubts, kills);
        let kills: Vec<Instant> = kills.iter().filter_map(|kill| kill.at).collect();
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
            let holds = audit.one(&fate, held.contains(message), &copies, &kills);
            if let Err(what) = holds {
                let story = ledger::story(&platform.pool, *message).await;
                panic!("{id} {what}\n{copies:#?}\n{story}");
            }
        }
        assert!(
            arrived.is_empty(),
            "arrived and never accepted: {:?}",
            arrived.keys()
        );
        audit
    }

    fn one(
        &mut self,
        fate: &Fate,
        held: bool,
        copies: &[&Receipt],
        kills: &[Instant],
    ) -> Result<(), &'static str> {
        let hold = |holds: bool, what: &'static str| if holds { Ok(()) } else { Err(what) };
        hold(
            fate.finals == i64::from(!held),
            "has not exactly one final event",
        )?;
        hold(held || fate.delivered == 1, "was not delivered")?;
        hold(held || !copies.is_empty(), "never arrived")?;
        let copies_max = 1 + usize::try_from(fate.in_doubt).unwrap();
        hold(
            copies.len() <= copies_max,
            "arrived more often than it was in doubt",
        )?;
        let earlier = copies.split_last().map_or(&[][..], |(_, earlier)| earlier);
        let unread = earlier.iter().all(|copy| may_be_unread(copy, kills));
        hold(unread, "was sent again after its 250 had been read")?;
        self.finished += usize::from(!held);
        self.held += usize::from(held);
        self.in_doubt += usize::from(fate.in_doubt > 0);
        self.duplicates += usize::from(copies.len() > 1);
        Ok(())
    }
}

/// In doubt are, attempt by attempt, the intents that were open at a kill less those whose reply the
/// journal knew: nothing else, and every dot that was not answered.
fn only_open_intents_are_in_doubt(
    sent: &Sent,
    receipts: &[Receipt],
    doubts: &HashSet<Attempt>,
    kills: &[Kill],
) {
    let open: HashSet<Attempt> = kills.iter().flat_map(|kill| kill.open.clone()).collect();
    let strangers: Vec<_> = doubts.difference(&open).collect();
    assert!(
        strangers.is_empty(),
        "in doubt without an open intent: {strangers:?}"
    );
    let (answered, unanswered): (Vec<&Receipt>, Vec<&Receipt>) =
        receipts.iter().partition(|copy| copy.answered_at.is_some());
    let messages = |copies: Vec<&Receipt>| -> HashSet<Uuid> {
        let message = |copy: &Receipt| sent.accepted.get(&copy.id).copied();
        copies.into_iter().filter_map(message).collect()
    };
    let (answered, unanswered) = (messages(answered), messages(unanswered));
    let doubted: HashSet<Uuid> = doubts.iter().map(|(message, ..)| *message).collect();
    let unread: Vec<_> = unanswered.difference(&doubted).collect();
    assert!(
        unread.is_empty(),
        "dots were not answered, and nobody is in doubt: {unread:?}"
    );
    let invented: Vec<_> = open
        .difference(doubts)
        .filter(|(message, ..)| !answered.contains(message))
        .collect();
    assert!(
        invented.is_empty(),
        "open intents were taken for answered, and never were: {invented:?}"
    );
}

/// Whether the answer to a copy may have been lost: it was not written, or so shortly before the
/// client was killed that nobody knows.
fn may_be_unread(copy: &Receipt, kills: &[Instant]) -> bool {
    let Some(answered_at) = copy.answered_at else {
        return true;
    };
    // What a client wrote before it was killed may be read here after it: what counts is the first
    // kill since the connection was made.
    let next_kill = kills.iter().find(|kill| **kill >= copy.connected_at);
    next_kill.is_some_and(|kill| {
        kill.checked_duration_since(answered_at)
            .is_none_or(|before| before < SURELY_READ)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy(at: Instant, answered_after_ms: Option<u64>) -> Receipt {
        Receipt {
            id: "t-1".to_owned(),
            mail_from: String::new(),
            recipient: String::new(),
            helo: String::new(),
            tls: false,
            accepted: true,
            connected_at: at,
            dot_at: at,
            answered_at: answered_after_ms.map(|ms| at + Duration::from_millis(ms)),
            content: Vec::new().into(),
        }
    }

    fn check(fate: (i64, i64, i64), copies: &[Receipt], kills: &[Instant], expected: &str) {
        let (finals, delivered, in_doubt) = fate;
        let mut audit = Audit {
            accepted: 1,
            finished: 0,
            in_doubt: 0,
            held: 0,
            duplicates: 0,
        };
        let copies: Vec<&Receipt> = copies.iter().collect();
        let found = audit.one(
            &Fate {
                finals,
                delivered,
                in_doubt,
            },
            false,
            &copies,
            kills,
        );
        assert_eq!(found.err().unwrap_or("holds"), expected);
    }

    #[test]
    fn what_breaks_a_promise_is_found() {
        let start = Instant::now();
        let kill = start + Duration::from_secs(10);
        let (read, unread) = (copy(start, Some(100)), copy(start, None));
        let late = copy(start, Some(9_500));
        let again = copy(kill, Some(10));
        let one_copy = std::slice::from_ref(&read);
        check((1, 1, 0), one_copy, &[], "holds");
        check((0, 0, 0), &[], &[], "has not exactly one final event");
        check((2, 2, 0), one_copy, &[], "has not exactly one final event");
        check((1, 0, 0), &[], &[], "was not delivered");
        check((1, 1, 0), &[], &[], "never arrived");
        let twice = [read.clone(), again.clone()];
        check(
            (1, 1, 0),
            &twice,
            &[kill],
            "arrived more often than it was in doubt",
        );
        check(
            (1, 1, 1),
            &twice,
            &[kill],
            "was sent again after its 250 had been read",
        );
        check((1, 1, 1), &[unread, again.clone()], &[kill], "holds");
        check((1, 1, 1), &[late, again.clone()], &[kill], "holds");
        check(
            (1, 1, 1),
            &[again, read],
            &[],
            "was sent again after its 250 had been read",
        );
    }
}
