//! The small numbers rows refer to each other with, and the bit sets stored in them.
//! They never leave the platform: outside there are only prefixed ids.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

macro_rules! numbers {
    ($($name:ident($inner:ty), $doc:literal;)+) => {$(
        #[doc = $doc]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);
    )+};
}

numbers! {
    AccountNo(i32), "An account, inside.";
    StreamNo(i32), "A stream, inside.";
    DomainNo(i32), "A sending domain, inside.";
    RecipientDomainNo(i32), "An interned recipient domain.";
    PoolNo(i32), "A pool, inside.";
    EndpointNo(i32), "A webhook endpoint, inside.";
    ShardNo(i16), "A shard of the queue: the unit of ownership.";
    Epoch(i64), "How often a shard was taken; a write under an older epoch changes nothing.";
}

macro_rules! bit_sets {
    ($($(#[doc = $doc:literal])+ $name:ident { $($flag:ident = $bit:literal, $about:literal;)+ })+) => {$(
        $(#[doc = $doc])+
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(i16);

        impl $name {
            /// No flag.
            pub const NONE: Self = Self(0);
            $(#[doc = $about] pub const $flag: Self = Self($bit);)+

            /// The set stored as `bits`.
            pub const fn from_bits(bits: i16) -> Self {
                Self(bits)
            }

            /// As stored.
            pub const fn bits(self) -> i16 {
                self.0
            }

            /// True when all flags of `other` are set.
            pub const fn contains(self, other: Self) -> bool {
                self.0 & other.0 == other.0
            }

            /// The flags of both.
            #[must_use]
            pub const fn with(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }

            /// These flags, less those of `other`.
            #[must_use]
            pub const fn without(self, other: Self) -> Self {
                Self(self.0 & !other.0)
            }
        }

        impl std::ops::BitOr for $name {
            type Output = Self;

            fn bitor(self, other: Self) -> Self {
                self.with(other)
            }
        }
    )+};
}

bit_sets! {
    /// What a message asks of its transport.
    MessageFlags {
        SMTPUTF8 = 1, "An address or header needs SMTPUTF8 (RFC 6531).";
        REQUIRE_TLS = 2, "Must not go in clear.";
        TEST = 4, "Sent with a test key: goes to the sandbox.";
    }
    /// What a queue row remembers over restarts.
    QueueFlags {
        AMBIGUOUS = 1, "An earlier attempt may have arrived.";
        HELD = 2, "Set aside because of it: goes nowhere until told, or expires.";
    }
    /// What an event says besides its type.
    EventFlags {
        FINAL = 1, "The one event that ends the delivery.";
        AMBIGUOUS = 2, "An attempt of the delivery may have arrived unnoticed.";
        OUT_OF_BAND = 4, "Came as a report after the end.";
        DEAD_RECIPIENT = 8, "The refusal proves that the address is dead: it is suppressed, unless the message is a test.";
    }
}

/// The time as PostgreSQL keeps it, in whole microseconds: a key must read back as it was written.
pub fn micros(at: OffsetDateTime) -> OffsetDateTime {
    at.replace_nanosecond(at.microsecond() * 1_000)
        .expect("a whole number of microseconds below a second is a valid nanosecond")
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    #[test]
    fn flags_add_up_and_come_off() {
        let both = QueueFlags::AMBIGUOUS | QueueFlags::HELD;
        assert_eq!(both.bits(), 3);
        assert!(both.contains(QueueFlags::HELD) && !QueueFlags::NONE.contains(QueueFlags::HELD));
        assert_eq!(both.without(QueueFlags::HELD), QueueFlags::AMBIGUOUS);
    }

    #[test]
    fn times_lose_what_the_database_would_drop() {
        let at = datetime!(2026-11-22 09:00:00.123456789 UTC);
        assert_eq!(micros(at), datetime!(2026-11-22 09:00:00.123456 UTC));
    }
}
