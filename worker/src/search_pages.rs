//! Pages of the event log that were read and are not in the search index yet. A page waits for those
//! behind it: most mail is delivered within seconds, and what the later pages say of a delivery is
//! written with it, once instead of twice. Until then the saved cursor stays before the page, so
//! that one who dies loses nothing; what was told ahead is told again then, and changes nothing.
//! Where there is little mail nothing waits: people look for it at once, and twice costs nobody much.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};

use mail::ids::MessageId;
use store::{LogCursor, SearchEvent};

/// Pages that wait. Each is a second of the log, or 5,000 events of one that is behind.
const WAITING: usize = 2;
/// So many deliveries need not wait.
const FEW: usize = 100;

#[derive(Default)]
pub(crate) struct Pages {
    pages: VecDeque<Page>,
    /// The last word about each delivery, and whether it is new.
    words: HashMap<Delivery, (SearchEvent, bool)>,
}

type Delivery = (MessageId, u16);

struct Page {
    deliveries: Vec<Delivery>,
    /// The log is read up to here with this page.
    to: LogCursor,
}

/// What to write.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ready {
    /// Deliveries that begin.
    pub(crate) new: Vec<SearchEvent>,
    /// Of deliveries that began before.
    pub(crate) changes: Vec<SearchEvent>,
    /// Where the cursor stands after it.
    pub(crate) to: LogCursor,
}

impl Pages {
    /// Nothing that was read waits to be written.
    pub(crate) fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// Takes a page in, and gives out those that have waited enough.
    pub(crate) fn push(&mut self, events: &[SearchEvent], to: LogCursor) -> Option<Ready> {
        for event in events {
            self.hear(event);
        }
        let deliveries = events.iter().map(|event| (event.message, event.rcpt));
        self.pages.push_back(Page {
            deliveries: deliveries.collect(),
            to,
        });
        // The cursor alone is not worth a statement.
        if self.is_empty() {
            self.pages.clear();
        }
        let waiting = if self.words.len() <= FEW { 0 } else { WAITING };
        let count = self.pages.len().saturating_sub(waiting);
        let (mut new, mut changes, mut ready_to) = (Vec::new(), Vec::new(), None);
        for page in self.pages.drain(..count) {
            for delivery in &page.deliveries {
                // Those that were written with an earlier page are gone.
                match self.words.remove(delivery) {
                    Some((event, true)) => new.push(event),
                    Some((event, false)) => changes.push(event),
                    None => {}
                }
            }
            ready_to = Some(page.to);
        }
        let to = ready_to?;
        Some(Ready { new, changes, to })
    }

    fn hear(&mut self, event: &SearchEvent) {
        match self.words.entry((event.message, event.rcpt)) {
            Entry::Vacant(entry) => {
                entry.insert((*event, event.is_first()));
            }
            Entry::Occupied(mut entry) => {
                let (known, is_new) = entry.get_mut();
                // Of two with one number the later one counts, as when a message is shown.
                if known.sequence <= event.sequence {
                    *known = *event;
                }
                *is_new |= event.is_first();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use mail::event::DeliveryStatus::{self, *};
    use store::AccountNo;
    use uuid::Uuid;

    use super::*;

    fn event(rcpt: u16, sequence: u16, status: DeliveryStatus) -> SearchEvent {
        SearchEvent {
            message: MessageId::from_time_and_random(1, [7; 10]),
            rcpt,
            status,
            sequence,
            account: AccountNo(1),
        }
    }

    fn at(xid: u64) -> LogCursor {
        LogCursor {
            xid,
            id: Uuid::nil(),
        }
    }

    fn ready(xid: u64, new: &[SearchEvent], changes: &[SearchEvent]) -> Option<Ready> {
        Some(Ready {
            new: new.to_vec(),
            changes: changes.to_vec(),
            to: at(xid),
        })
    }

    #[test]
    fn a_page_is_written_with_what_the_next_two_say_of_it() {
        let mut pages = Pages::default();
        let first: Vec<_> = (0..200).map(|rcpt| event(rcpt, 1, Queued)).collect();
        assert_eq!(pages.push(&first, at(1)), None);
        assert_eq!(pages.push(&[event(0, 2, Delivered)], at(2)), None);
        let later: Vec<_> = (300..500).map(|rcpt| event(rcpt, 4, Bounced)).collect();
        let mut third = vec![event(1, 2, Deferred)];
        third.extend(&later);
        let mut new = first.clone();
        (new[0], new[1]) = (event(0, 2, Delivered), event(1, 2, Deferred));
        assert_eq!(pages.push(&third, at(3)), ready(1, &new, &[]));
        // What was written ahead is not written again; what comes now is a change.
        let fourth = event(1, 3, Delivered);
        assert_eq!(pages.push(&[fourth], at(4)), ready(2, &[], &[]));
        let mut changes = vec![fourth];
        changes.extend(&later);
        assert_eq!(pages.push(&[], at(5)), ready(3, &[], &changes));
        assert!(pages.is_empty());
        assert_eq!(pages.push(&[], at(6)), None);
    }

    #[test]
    fn of_each_delivery_the_last_word_counts_and_few_do_not_wait() {
        let mut pages = Pages::default();
        let events = [
            event(0, 1, Queued),
            event(0, 3, Delivered),
            event(0, 2, Deferred),
            event(0, 3, Bounced),
            event(1, 2, Deferred),
        ];
        let (new, changes) = ([event(0, 3, Bounced)], [event(1, 2, Deferred)]);
        assert_eq!(pages.push(&events, at(1)), ready(1, &new, &changes));
        assert_eq!(pages.push(&[], at(2)), None);
    }
}
