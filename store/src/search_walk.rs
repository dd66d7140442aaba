//! The ways into the search index, one statement each. All walk down it in the order of message ids
//! for 2,000 deliveries at most, and stop as soon as they have found enough. Rows: a message that
//! fits, or the one the walk came to its end at, whether it fits or not.
//!
//! Where such a statement sorts, its rows come in that order already but for a few that follow one
//! another; sorting them all would mean to walk to the end, and is off on the connections of
//! searches. What is looked for is the same text in all of them, so that each takes the same
//! parameters; `tests/queue/plans.sh` looks at their plans.

use mail::event::DeliveryStatus;

/// A way in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Walk {
    /// To one address.
    Recipient,
    /// Of test keys.
    Test,
    /// Of a status for which [`Walk::is_rare`].
    Status,
    /// Along the spans of this key.
    Span(i64),
    /// Through all mail.
    Time,
}

impl Walk {
    /// Its statement.
    pub(crate) const fn statement(self) -> &'static str {
        match self {
            Self::Recipient => include_str!("../queries/search_by_recipient.sql"),
            Self::Test => include_str!("../queries/search_by_test.sql"),
            Self::Status => include_str!("../queries/search_by_status.sql"),
            Self::Span(_) => include_str!("../queries/search_by_span.sql"),
            Self::Time => include_str!("../queries/search_by_time.sql"),
        }
    }

    /// True for a status that few deliveries have for long: those are in an index.
    pub(crate) fn is_rare(status: DeliveryStatus) -> bool {
        status != DeliveryStatus::Delivered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_walks_look_for_the_same() {
        let looked_for = |walk: Walk| {
            let (_, text) = walk
                .statement()
                .split_once("(s.account = $1::int4")
                .unwrap();
            text.split_once("AS fits").unwrap().0
        };
        for walk in [Walk::Recipient, Walk::Test, Walk::Status, Walk::Span(1)] {
            assert_eq!(looked_for(walk), looked_for(Walk::Time), "{walk:?}");
        }
        let delivered = format!("s.status <> {}", DeliveryStatus::Delivered.code());
        assert!(Walk::Status.statement().contains(&delivered));
    }
}
