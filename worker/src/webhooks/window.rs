//! How far the event log was read, and what of it is unfinished: the sliding window of a
//! dispatcher. A cursor that is saved never passes an event with a call that neither ended nor
//! was set aside in the database; that is what makes a killed dispatcher lose nothing.
//! Pure bookkeeping: reads no log and makes no call.

use std::collections::BTreeMap;

use store::{DispatcherLease, Epoch, LogCursor};
use uuid::Uuid;

/// Number of a dispatcher: accounts are spread over them by their number.
pub(super) type Number = i16;

/// Names one event in the window. The epoch keeps calls that outlived their lease from touching
/// the window of the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket {
    number: Number,
    epoch: Epoch,
    event: Position,
}

/// A place in the log; orders as the log does.
type Position = (u64, Uuid);

/// The log from one dispatcher's point of view.
#[derive(Debug)]
struct Reader {
    epoch: Epoch,
    read_to: Position,
    saved: Position,
    /// Calls that are neither ended nor set aside, by event.
    open: BTreeMap<Position, usize>,
}

/// The dispatchers held by this process.
#[derive(Debug, Default)]
pub(super) struct Window {
    readers: BTreeMap<Number, Reader>,
    open_calls: usize,
}

impl Window {
    /// Holds exactly `leases` from now on. What was read under a lease that is gone is forgotten.
    /// Returns whether a lease is new: its cursor may be behind the others.
    pub(super) fn hold(&mut self, leases: &[DispatcherLease]) -> bool {
        let same = |number: Number, reader: &Reader| {
            leases
                .iter()
                .any(|lease| lease.number == number && lease.epoch == reader.epoch)
        };
        self.readers.retain(|number, reader| same(*number, reader));
        let before = self.readers.len();
        for lease in leases {
            let cursor = position(lease.cursor);
            self.readers.entry(lease.number).or_insert_with(|| Reader {
                epoch: lease.epoch,
                read_to: cursor,
                saved: cursor,
                open: BTreeMap::new(),
            });
        }
        self.count_open_calls();
        self.readers.len() > before
    }

    pub(super) fn numbers(&self) -> Vec<Number> {
        self.readers.keys().copied().collect()
    }

    /// What is held, each under its epoch.
    pub(super) fn held(&self) -> Vec<(Number, Epoch)> {
        self.readers
            .iter()
            .map(|(number, reader)| (*number, reader.epoch))
            .collect()
    }

    /// Calls that are neither ended nor set aside.
    pub(super) fn open_calls(&self) -> usize {
        self.open_calls
    }

    /// Where to read on: all dispatchers are read together, from the hindmost. None without any.
    pub(super) fn read_from(&self) -> Option<LogCursor> {
        self.readers
            .values()
            .map(|reader| reader.read_to)
            .min()
            .map(cursor)
    }

    /// Takes an event in, with the number of its calls. None when it is not for a dispatcher held
    /// here, or was read before by one that is ahead of the others.
    pub(super) fn admit(
        &mut self,
        number: Number,
        event: LogCursor,
        calls: usize,
    ) -> Option<Ticket> {
        let event = position(event);
        let reader = self
            .readers
            .get_mut(&number)
            .filter(|reader| reader.read_to < event)?;
        if calls > 0 {
            reader.open.insert(event, calls);
            self.open_calls += calls;
        }
        Some(Ticket {
            number,
            epoch: reader.epoch,
            event,
        })
    }

    /// Everything up to `read_to` was admitted, for every dispatcher.
    pub(super) fn advance(&mut self, read_to: LogCursor) {
        let read_to = position(read_to);
        for reader in self.readers.values_mut() {
            reader.read_to = reader.read_to.max(read_to);
        }
    }

    /// One call of the event has ended or was set aside.
    pub(super) fn finish(&mut self, ticket: Ticket) {
        let Some(reader) = self.current(ticket) else {
            return;
        };
        let Some(calls) = reader.open.get_mut(&ticket.event) else {
            return;
        };
        *calls -= 1;
        if *calls == 0 {
            reader.open.remove(&ticket.event);
        }
        self.open_calls -= 1;
    }

    /// Whether the event is still ours: else somebody else makes its calls.
    pub(super) fn holds(&mut self, ticket: Ticket) -> bool {
        self.current(ticket).is_some()
    }

    /// The cursors that have moved since they were saved: just before the oldest unfinished
    /// event, or where reading goes on.
    pub(super) fn to_save(&self) -> Vec<(Number, Epoch, LogCursor)> {
        self.readers
            .iter()
            .map(|(number, reader)| (*number, reader.epoch, reader.resume_at(), reader.saved))
            .filter(|(_, _, resume_at, saved)| resume_at > saved)
            .map(|(number, epoch, resume_at, _)| (number, epoch, cursor(resume_at)))
            .collect()
    }

    /// These cursors were given to the database, which has taken those of `still_held`; the
    /// others belong to somebody else by now.
    pub(super) fn saved(&mut self, cursors: &[(Number, Epoch, LogCursor)], still_held: &[Number]) {
        for (number, epoch, saved) in cursors {
            if !still_held.contains(number) {
                self.readers.remove(number);
            } else if let Some(reader) = self.readers.get_mut(number)
                && reader.epoch == *epoch
            {
                reader.saved = position(*saved);
            }
        }
        self.count_open_calls();
    }

    fn current(&mut self, ticket: Ticket) -> Option<&mut Reader> {
        self.readers
            .get_mut(&ticket.number)
            .filter(|reader| reader.epoch == ticket.epoch)
    }

    fn count_open_calls(&mut self) {
        self.open_calls = self
            .readers
            .values()
            .flat_map(|reader| reader.open.values())
            .sum();
    }
}

impl Reader {
    fn resume_at(&self) -> Position {
        self.open
            .first_key_value()
            .map_or(self.read_to, |(event, _)| just_before(*event))
    }
}

/// The greatest position below `event`: reading on from there gives the event again.
fn just_before((xid, id): Position) -> Position {
    match id.as_u128().checked_sub(1) {
        Some(bits) => (xid, Uuid::from_u128(bits)),
        None => (xid.saturating_sub(1), Uuid::max()),
    }
}

fn position(cursor: LogCursor) -> Position {
    (cursor.xid, cursor.id)
}

fn cursor((xid, id): Position) -> LogCursor {
    LogCursor { xid, id }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(xid: u64, id: u128) -> LogCursor {
        LogCursor {
            xid,
            id: Uuid::from_u128(id),
        }
    }

    fn lease(number: Number, epoch: i64, cursor: LogCursor) -> DispatcherLease {
        DispatcherLease {
            number,
            epoch: Epoch(epoch),
            cursor,
        }
    }

    fn saves(window: &Window) -> Vec<(Number, u64, u128)> {
        let moved = window.to_save();
        moved
            .iter()
            .map(|(number, _, to)| (*number, to.xid, to.id.as_u128()))
            .collect()
    }

    #[test]
    fn the_saved_cursor_stays_before_the_oldest_unfinished_event() {
        let mut window = Window::default();
        window.hold(&[lease(3, 1, at(10, 0))]);
        let first = window.admit(3, at(10, 5), 2).unwrap();
        let second = window.admit(3, at(11, 6), 1).unwrap();
        window.advance(at(20, 0));
        assert_eq!(saves(&window), [(3, 10, 4)]);
        window.finish(second);
        window.finish(first);
        assert_eq!(saves(&window), [(3, 10, 4)]);
        window.finish(first);
        assert_eq!((saves(&window), window.open_calls()), (vec![(3, 20, 0)], 0));
        let moved = window.to_save();
        window.saved(&moved, &[3]);
        assert!(window.to_save().is_empty());
    }

    #[test]
    fn reading_starts_at_the_hindmost_and_admits_nothing_twice() {
        let mut window = Window::default();
        assert!(window.hold(&[lease(0, 1, at(50, 0))]));
        assert!(window.hold(&[lease(0, 1, at(50, 0)), lease(1, 1, at(40, 0))]));
        assert!(!window.hold(&[lease(0, 1, at(50, 0)), lease(1, 1, at(40, 0))]));
        assert_eq!(window.read_from().map(|from| from.xid), Some(40));
        assert!(window.admit(0, at(45, 1), 1).is_none());
        assert!(window.admit(1, at(45, 2), 1).is_some());
        assert!(window.admit(2, at(45, 3), 1).is_none());
        window.advance(at(45, 2));
        assert_eq!(window.read_from().map(|from| from.xid), Some(45));
    }

    #[test]
    fn calls_of_a_lost_lease_do_not_touch_the_next_one() {
        let mut window = Window::default();
        window.hold(&[lease(0, 1, at(1, 0))]);
        let old = window.admit(0, at(2, 7), 1).unwrap();
        window.hold(&[lease(0, 2, at(1, 0))]);
        assert_eq!(window.open_calls(), 0);
        let new = window.admit(0, at(2, 7), 1).unwrap();
        assert!(!window.holds(old) && window.holds(new));
        assert_eq!(window.held(), [(0, Epoch(2))]);
        window.finish(old);
        window.advance(at(9, 0));
        assert_eq!((saves(&window), window.open_calls()), (vec![(0, 2, 6)], 1));
        let moved = window.to_save();
        window.saved(&moved, &[]);
        assert_eq!((window.numbers(), window.open_calls()), (vec![], 0));
        assert!(window.read_from().is_none());
    }

    #[test]
    fn an_event_that_nobody_wants_does_not_hold_the_cursor() {
        let mut window = Window::default();
        window.hold(&[lease(0, 1, at(1, 0))]);
        assert!(window.admit(0, at(2, 7), 0).is_some());
        window.advance(at(2, 7));
        assert_eq!(saves(&window), [(0, 2, 7)]);
    }

    #[test]
    fn the_position_before_the_first_id_is_in_the_transaction_before() {
        assert_eq!(just_before((5, Uuid::nil())), (4, Uuid::max()));
        assert_eq!(
            just_before((5, Uuid::from_u128(9))),
            (5, Uuid::from_u128(8))
        );
    }
}
