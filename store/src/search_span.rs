//! Where mail of a sender, a tag, a domain or a stream lies in the order of message ids: one span
//! for each of them in a piece of a page, instead of an index entry for each delivery. What lies in
//! a span is looked at, one by one, by who searches (`search_walk.rs`); nothing outside has to be.

use std::collections::HashMap;

use uuid::Uuid;

use crate::numbers::AccountNo;

/// A piece ends with the message that makes it so long. More would be cheaper to write, and lead
/// past more mail without the key when it is read.
const PIECE_DELIVERIES: usize = 128;
/// A piece is not longer in time, so that a stray old message does not make a span that all newer
/// mail lies in. The bound for those who read: [`last_before`].
const PIECE_MS: u128 = 5_000;
/// Where the milliseconds are in an id.
const MS_SHIFT: u32 = 80;

/// Mail with the key lies between the two, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span {
    pub(crate) key: i64,
    pub(crate) last: Uuid,
    pub(crate) first: Uuid,
}

/// A delivery, and all it is found by in spans.
pub(crate) struct Spanned {
    pub(crate) account: AccountNo,
    pub(crate) message: Uuid,
    pub(crate) keys: Vec<i64>,
}

/// The spans of deliveries in the order of account and message.
pub(crate) fn of_deliveries(deliveries: &[Spanned]) -> Vec<Span> {
    let mut spans = Vec::new();
    let mut rest = deliveries;
    while let Some(length) = piece(rest) {
        let (piece, after) = rest.split_at(length);
        let mut ends: HashMap<i64, (Uuid, Uuid)> = HashMap::new();
        for delivery in piece {
            for key in &delivery.keys {
                let first_and_last = ends
                    .entry(*key)
                    .or_insert((delivery.message, delivery.message));
                first_and_last.1 = delivery.message;
            }
        }
        spans.extend(
            ends.into_iter()
                .map(|(key, (first, last))| Span { key, last, first }),
        );
        rest = after;
    }
    // Neighbours in the index one after the other.
    spans.sort_unstable();
    spans
}

/// How many of these belong together; none when there are none.
fn piece(deliveries: &[Spanned]) -> Option<usize> {
    let first = deliveries.first()?;
    let ms = |id: Uuid| id.as_u128() >> MS_SHIFT;
    let mut previous = first.message;
    let end = deliveries.iter().enumerate().position(|(number, next)| {
        let is_next_message = next.message != previous;
        previous = next.message;
        next.account != first.account
            || is_next_message
                && (number >= PIECE_DELIVERIES
                    || ms(next.message).saturating_sub(ms(first.message)) > PIECE_MS)
    });
    Some(end.unwrap_or(deliveries.len()))
}

/// No span that begins before `id` ends here or later.
pub(crate) fn last_before(id: Uuid) -> Uuid {
    Uuid::from_u128(id.as_u128().saturating_add((PIECE_MS + 1) << MS_SHIFT))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(ms: u128, number: u128) -> Uuid {
        Uuid::from_u128(ms << MS_SHIFT | number << 10)
    }

    fn delivery(account: i32, message: Uuid, keys: &[i64]) -> Spanned {
        Spanned {
            account: AccountNo(account),
            message,
            keys: keys.to_vec(),
        }
    }

    fn span(key: i64, first: Uuid, last: Uuid) -> Span {
        Span { key, last, first }
    }

    #[test]
    fn a_key_spans_the_mail_that_has_it() {
        let spans = of_deliveries(&[
            delivery(1, id(1, 1), &[7]),
            delivery(1, id(1, 2), &[8, 9]),
            delivery(1, id(1, 3), &[7, 8]),
            delivery(2, id(1, 4), &[-7]),
        ]);
        assert_eq!(
            spans,
            [
                span(-7, id(1, 4), id(1, 4)),
                span(7, id(1, 1), id(1, 3)),
                span(8, id(1, 2), id(1, 3)),
                span(9, id(1, 2), id(1, 2)),
            ]
        );
        assert_eq!(of_deliveries(&[]), []);
    }

    #[test]
    fn a_piece_is_short_in_deliveries_and_in_time_and_splits_no_message() {
        let of = |ids: &[Uuid]| {
            let deliveries: Vec<Spanned> = ids.iter().map(|id| delivery(1, *id, &[7])).collect();
            of_deliveries(&deliveries)
        };
        let one_by_one: Vec<Uuid> = (0..300).map(|number| id(1, number)).collect();
        let expected = [(0, 127), (128, 255), (256, 299)];
        assert_eq!(
            of(&one_by_one),
            expected.map(|(first, last)| span(7, id(1, first), id(1, last)))
        );

        let mut large: Vec<Uuid> = (0..100).map(|number| id(1, number)).collect();
        large.extend([id(1, 100); 200]);
        large.push(id(1, 101));
        let expected = [(0, 100), (101, 101)];
        assert_eq!(
            of(&large),
            expected.map(|(first, last)| span(7, id(1, first), id(1, last)))
        );

        let (start, end, later) = (id(1_000, 9), id(6_000, 1), id(6_001, 0));
        assert_eq!(
            of(&[start, end, later]),
            [span(7, start, end), span(7, later, later)]
        );
        assert!(end < last_before(id(1_000, 10)));
    }
}
