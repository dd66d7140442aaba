//! Ids that cannot be swapped: one type a kind, and the kind's prefix wherever people see them.
//! Pure bits: time and randomness come from the caller, nothing here knows what an id points at.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;
use uuid::Uuid;

/// Crockford's base32 in lower case: no i, l, o, u.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// 128 bits in digits of five: 26 digits carry 130 bits, the top two are zero.
const DIGITS: usize = 26;
/// The bits of a message id that hold the recipient number in a delivery id.
const RECIPIENT_BITS: u128 = 0x3ff;
/// How many deliveries one message can have: numbers 0..=1022 fit the ten bits after adding one.
pub const DELIVERIES_MAX: usize = 1023;

/// Why a text is not an id of the wanted kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum IdError {
    /// The prefix is missing or belongs to another kind.
    #[error("does not start with {expected}_")]
    Prefix {
        /// The wanted prefix, without the underscore.
        expected: &'static str,
    },
    /// Not exactly 26 digits after the prefix.
    #[error("must have 26 characters after the prefix")]
    Length,
    /// Not a digit of lower-case Crockford base32, or more than 128 bits.
    #[error("has a character that ids do not use")]
    Character,
    /// A message id whose last ten bits are not zero, or a delivery id whose are.
    #[error("is not an id this platform makes")]
    Shape,
}

/// 26 digits of lower-case Crockford base32.
pub fn encode_base32(bits: u128) -> String {
    let digit = |position: usize| {
        let value = (bits >> (5 * (DIGITS - 1 - position))) & 31;
        char::from(ALPHABET[value as usize])
    };
    (0..DIGITS).map(digit).collect()
}

/// Reads what [`encode_base32`] wrote; strict: lower case only.
///
/// # Errors
/// `Length` or `Character`.
pub fn decode_base32(text: &str) -> Result<u128, IdError> {
    if text.len() != DIGITS {
        return Err(IdError::Length);
    }
    let mut bits: u128 = 0;
    for (position, byte) in text.bytes().enumerate() {
        let value = ALPHABET
            .iter()
            .position(|digit| *digit == byte)
            .ok_or(IdError::Character)? as u128;
        if position == 0 && value > 7 {
            return Err(IdError::Character);
        }
        bits = bits << 5 | value;
    }
    Ok(bits)
}

/// A version 7 UUID (RFC 9562 section 5.7) of this millisecond and these random bits.
pub const fn uuid_v7(unix_ms: u64, random: [u8; 10]) -> Uuid {
    uuid::Builder::from_unix_timestamp_millis(unix_ms, &random).into_uuid()
}

macro_rules! id_kinds {
    ($($kind:ident => $prefix:literal $(where $shape:path)?, $about:literal;)+) => {$(
        #[doc = concat!("Id of ", $about, ": `", $prefix, "_` and 26 digits.")]
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $kind(Uuid);

        impl $kind {
            /// What every id of this kind begins with, before the underscore.
            pub const PREFIX: &'static str = $prefix;

            /// Takes bits that are known to be of this kind, such as those we stored ourselves.
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// The bits, as stored.
            pub const fn uuid(self) -> Uuid {
                self.0
            }

            /// The 26 digits without the prefix.
            pub fn digits(self) -> String {
                encode_base32(self.0.as_u128())
            }

            /// Milliseconds since 1970 at which the id was made.
            pub const fn unix_ms(self) -> u64 {
                (self.0.as_u128() >> 80) as u64
            }
        }

        impl fmt::Display for $kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}_{}", $prefix, self.digits())
            }
        }

        impl fmt::Debug for $kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $kind {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let digits = text
                    .strip_prefix(concat!($prefix, "_"))
                    .ok_or(IdError::Prefix { expected: $prefix })?;
                let bits = decode_base32(digits)?;
                $(if !$shape(bits) {
                    return Err(IdError::Shape);
                })?
                Ok(Self(Uuid::from_u128(bits)))
            }
        }

        impl Serialize for $kind {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $kind {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )+};
}

id_kinds! {
    MessageId => "msg" where is_message, "one send";
    DeliveryId => "dlv" where is_delivery, "one recipient's copy";
    EventId => "evt", "an event";
    DomainId => "dom", "a sending domain";
    ApiKeyId => "key", "an API key";
    WebhookEndpointId => "whk", "a webhook endpoint";
    WebhookCallId => "whc", "one webhook call";
    StreamId => "str", "a stream";
    SuppressionId => "sup", "an entry of a suppression list";
    PoolId => "pool", "a pool of egress sources";
    SourceId => "src", "an egress source";
    AccountId => "acc", "an account";
    InboxId => "inb", "an inbound route's inbox";
    NodeId => "node", "a node";
    ContentId => "cnt", "stored content";
}

const fn is_message(bits: u128) -> bool {
    bits & RECIPIENT_BITS == 0
}

const fn is_delivery(bits: u128) -> bool {
    bits & RECIPIENT_BITS != 0
}

impl MessageId {
    /// A UUIDv7 whose last ten bits are zero: they belong to the deliveries.
    pub const fn from_time_and_random(unix_ms: u64, random: [u8; 10]) -> Self {
        Self(Uuid::from_u128(
            uuid_v7(unix_ms, random).as_u128() & !RECIPIENT_BITS,
        ))
    }

    /// The id of the delivery to the recipient with this number, counted from 0 in the order of
    /// [`Message::recipients`](crate::message::Message::recipients).
    ///
    /// # Panics
    /// When `recipient_index` is not below [`DELIVERIES_MAX`]. A parsed message never has more
    /// recipients than that, so only a miscounting caller can get here; wrapping round instead
    /// would give two deliveries one id.
    pub const fn delivery(self, recipient_index: u16) -> DeliveryId {
        assert!(
            (recipient_index as usize) < DELIVERIES_MAX,
            "recipient number out of range"
        );
        DeliveryId(Uuid::from_u128(
            self.0.as_u128() & !RECIPIENT_BITS | (recipient_index as u128 + 1),
        ))
    }
}

impl DeliveryId {
    /// The message this delivery is a copy of.
    pub const fn message(self) -> MessageId {
        MessageId(Uuid::from_u128(self.0.as_u128() & !RECIPIENT_BITS))
    }

    /// Which recipient of the message, counted from 0.
    pub const fn recipient_index(self) -> u16 {
        ((self.0.as_u128() & RECIPIENT_BITS) as u16).saturating_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MESSAGE: MessageId = MessageId::from_time_and_random(1_790_000_000_123, [0xff; 10]);

    #[test]
    fn known_bits_give_known_digits() {
        assert_eq!(encode_base32(0), "0".repeat(26));
        assert_eq!(encode_base32(u128::MAX), format!("7{}", "z".repeat(25)));
        assert_eq!(encode_base32(32), format!("{}10", "0".repeat(24)));
    }

    #[test]
    fn wrong_text_is_a_typed_error() {
        let check = |text: &str, expected: IdError| {
            assert_eq!(text.parse::<EventId>().unwrap_err(), expected, "{text}");
        };
        let digits = "0".repeat(26);
        check("", IdError::Prefix { expected: "evt" });
        check(
            &format!("msg_{digits}"),
            IdError::Prefix { expected: "evt" },
        );
        check(
            &format!("EVT_{digits}"),
            IdError::Prefix { expected: "evt" },
        );
        check("evt_", IdError::Length);
        check(&format!("evt_{digits}0"), IdError::Length);
        check(&format!("evt_{}é", "0".repeat(24)), IdError::Character);
        check(&format!("evt_8{}", "0".repeat(25)), IdError::Character);
        check(&format!("evt_{}A", "0".repeat(25)), IdError::Character);
        check(&format!("evt_{}u", "0".repeat(25)), IdError::Character);
    }

    #[test]
    fn a_message_id_is_a_version_7_uuid_with_room_for_the_recipient() {
        assert_eq!(MESSAGE.uuid().get_version_num(), 7);
        assert_eq!(MESSAGE.unix_ms(), 1_790_000_000_123);
        assert_eq!(MESSAGE.uuid().as_u128() & 0x3ff, 0);
        assert_eq!(MESSAGE.to_string().len(), "msg_".len() + 26);
    }

    #[test]
    fn a_delivery_knows_its_message_and_recipient() {
        for index in [0, 1, 49, 1022] {
            let delivery = MESSAGE.delivery(index);
            assert_eq!(
                (delivery.message(), delivery.recipient_index()),
                (MESSAGE, index)
            );
        }
    }

    #[test]
    fn message_and_delivery_ids_cannot_be_passed_for_each_other() {
        let delivery = MESSAGE.delivery(0);
        let disguised = format!("msg_{}", delivery.digits());
        assert_eq!(disguised.parse::<MessageId>(), Err(IdError::Shape));
        let disguised = format!("dlv_{}", MESSAGE.digits());
        assert_eq!(disguised.parse::<DeliveryId>(), Err(IdError::Shape));
    }

    #[test]
    fn json_carries_the_prefixed_text() {
        let json = serde_json::to_string(&MESSAGE).unwrap();
        assert_eq!(json, format!("\"{MESSAGE}\""));
        assert_eq!(serde_json::from_str::<MessageId>(&json).unwrap(), MESSAGE);
        assert!(serde_json::from_str::<PoolId>(&json).is_err());
    }

    proptest! {
        #[test]
        fn ids_survive_the_round_trip(bits: u128) {
            let id = EventId::from_uuid(Uuid::from_u128(bits));
            prop_assert_eq!(id.to_string().parse::<EventId>().unwrap(), id);
        }

        #[test]
        fn ids_sort_as_text_as_they_sort_as_bits(a: u128, b: u128) {
            prop_assert_eq!(encode_base32(a).cmp(&encode_base32(b)), a.cmp(&b));
        }

        #[test]
        fn any_text_is_parsed_or_refused(text: String) {
            let _ = text.parse::<DeliveryId>();
        }
    }
}
