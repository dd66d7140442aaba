//! The envelope of one delivery: who gets the bounces and who gets the mail (RFC 5321
//! section 2.3.1). What the headers say is another matter.

use std::fmt;

use crate::address::EmailAddress;

/// The argument of MAIL FROM.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ReversePath {
    /// `<>`: for notices we make ourselves, which must never bounce (RFC 5321 section 4.5.5).
    Null,
    /// Bounces go here.
    Address(EmailAddress),
}

impl fmt::Display for ReversePath {
    /// With angle brackets, as MAIL FROM carries it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("<>"),
            Self::Address(address) => write!(f, "<{address}>"),
        }
    }
}

/// Reverse-path and recipient of one delivery.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Envelope {
    reverse_path: ReversePath,
    recipient: EmailAddress,
}

impl Envelope {
    /// An envelope of parsed parts.
    pub fn new(reverse_path: ReversePath, recipient: EmailAddress) -> Self {
        Self {
            reverse_path,
            recipient,
        }
    }

    /// Where bounces of this delivery go.
    pub fn reverse_path(&self) -> &ReversePath {
        &self.reverse_path
    }

    /// The one recipient.
    pub fn recipient(&self) -> &EmailAddress {
        &self.recipient
    }

    /// Whether either path has a non-ASCII local part (RFC 6531).
    pub fn needs_smtputf8(&self) -> bool {
        let reverse_path_needs = match &self.reverse_path {
            ReversePath::Null => false,
            ReversePath::Address(address) => address.needs_smtputf8(),
        };
        reverse_path_needs || self.recipient.needs_smtputf8()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_written_as_mail_from_wants_them() {
        let address = EmailAddress::parse("\"a b\"@Example.com").unwrap();
        assert_eq!(ReversePath::Null.to_string(), "<>");
        assert_eq!(
            ReversePath::Address(address).to_string(),
            "<\"a b\"@example.com>"
        );
    }

    #[test]
    fn one_non_ascii_local_part_is_enough_to_need_smtputf8() {
        let address = |text| EmailAddress::parse(text).unwrap();
        let envelope = |from, to| Envelope::new(ReversePath::Address(address(from)), address(to));
        assert!(envelope("a@b.example", "é@b.example").needs_smtputf8());
        assert!(envelope("é@b.example", "a@b.example").needs_smtputf8());
        assert!(!envelope("a@b.example", "a@é.example").needs_smtputf8());
        assert!(!Envelope::new(ReversePath::Null, address("a@b.example")).needs_smtputf8());
    }
}
