//! Suppression: why a recipient is not sent to, and when two addresses are the same one here.
//! Knows no list and no account.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::address::EmailAddress;
use crate::event::{UnknownWord, words};

words! {
    /// Why a recipient is on the suppression list.
    SuppressionReason {
        HardBounce, "hard_bounce", 1, "A receiver said that the address is dead.";
        Complaint, "complaint", 2, "The reader reported mail as spam.";
        Unsubscribe, "unsubscribe", 3, "The reader wants no broadcast mail; transactional mail still goes.";
        Manual, "manual", 4, "The sender asked for it.";
    }
}

/// What addresses are compared by: the wire form with its ASCII letters in lower case. Receivers
/// may tell `Ana` from `ana` (RFC 5321 section 2.4), and hardly one does: a list that did would let
/// mail through to people who said no. Letters beyond ASCII have no case that all agree on
/// (RFC 6531 maps none) and are compared exactly.
pub fn look_up_key(address: &EmailAddress) -> String {
    address.to_string().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_numbers_lead_back() {
        for reason in SuppressionReason::ALL {
            assert_eq!(reason.as_str().parse(), Ok(*reason));
            assert_eq!(SuppressionReason::from_code(reason.code()), Some(*reason));
        }
        assert!("bounce".parse::<SuppressionReason>().is_err());
    }

    #[test]
    fn addresses_are_the_same_whatever_the_case_of_their_letters() {
        let check = |text: &str, key: &str| {
            assert_eq!(look_up_key(&text.parse().unwrap()), key, "{text}");
        };
        check("Ana.B+x@EXAMPLE.com", "ana.b+x@example.com");
        check("\"Two Words\"@example.com", "\"two words\"@example.com");
        check("\"ana\"@example.com", "ana@example.com");
        check("Änne@example.com", "Änne@example.com");
    }
}
