//! A mailbox: an address and the name people see beside it (RFC 5322 section 3.4).
//! How a mailbox looks in a header on the wire is `compose`'s matter.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use crate::address::{AddressError, EmailAddress, is_atom_character, write_quoted};

/// The longest display name, in octets of UTF-8.
const NAME_MAX: usize = 512;

/// One address, with or without a display name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Mailbox {
    name: Option<String>,
    address: EmailAddress,
}

/// Why a text is not a mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum MailboxError {
    /// A control character such as a line end: header injection, or a broken client.
    #[error("name or address has a control character")]
    Control,
    /// A quoted name that does not close, or text between the name and the address.
    #[error("name is not written as Name <address> or \"Name\" <address>")]
    NameSyntax,
    /// A comma or semicolon outside quotes: it may separate two mailboxes, and one is wanted.
    #[error("give one address; a name with a comma or semicolon needs double quotes")]
    Separator,
    /// More than 512 octets of name.
    #[error("name is longer than 512 octets")]
    NameTooLong,
    /// The address itself.
    #[error(transparent)]
    Address(#[from] AddressError),
}

impl Mailbox {
    /// Reads `Ana <ana@example.com>`, `"Doe, J." <j@example.com>`, `<a@b.example>` or a bare
    /// address. Spaces around it are ignored. Words that RFC 5322 wants quoted (dots,
    /// brackets, non-ASCII) may stand bare, since a single mailbox leaves no doubt.
    ///
    /// # Errors
    /// See [`MailboxError`].
    pub fn parse(text: &str) -> Result<Self, MailboxError> {
        if text.chars().any(char::is_control) {
            return Err(MailboxError::Control);
        }
        let text = text.trim_matches(' ');
        if let Some(quoted) = text.strip_prefix('"') {
            let (name, rest) = unquote_name(quoted).ok_or(MailboxError::NameSyntax)?;
            return match angle_address(rest) {
                Some(address) => Self::new(Some(name), EmailAddress::parse(address)?),
                None if rest.starts_with('@') => Self::new(None, EmailAddress::parse(text)?),
                None => Err(MailboxError::NameSyntax),
            };
        }
        let Some(bracket) = text.find('<') else {
            return Self::new(None, EmailAddress::parse(text)?);
        };
        let (name, rest) = text.split_at(bracket);
        if name.contains([',', ';']) {
            return Err(MailboxError::Separator);
        }
        let address = angle_address(rest).ok_or(MailboxError::NameSyntax)?;
        if name.contains('>') {
            return Err(MailboxError::NameSyntax);
        }
        Self::new(Some(name.to_owned()), EmailAddress::parse(address)?)
    }

    /// A mailbox of parsed parts; an empty name is no name.
    ///
    /// # Errors
    /// `Control` or `NameTooLong`.
    pub fn new(name: Option<String>, address: EmailAddress) -> Result<Self, MailboxError> {
        let name = name
            .map(|name| name.trim_matches(' ').to_owned())
            .filter(|n| !n.is_empty());
        if let Some(name) = &name {
            if name.len() > NAME_MAX {
                return Err(MailboxError::NameTooLong);
            }
            if name.chars().any(char::is_control) {
                return Err(MailboxError::Control);
            }
        }
        Ok(Self { name, address })
    }

    /// The display name, not empty.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The address.
    pub fn address(&self) -> &EmailAddress {
        &self.address
    }
}

/// Reads a quoted name whose opening quote is already gone; gives the name and the rest. Unlike
/// a quoted local part it may hold any character.
fn unquote_name(text: &str) -> Option<(String, &str)> {
    let mut name = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((name, &text[at + 1..])),
            '\\' => name.push(characters.next()?.1),
            other => name.push(other),
        }
    }
    None
}

fn angle_address(text: &str) -> Option<&str> {
    text.trim_start_matches(' ')
        .strip_prefix('<')?
        .strip_suffix('>')
}

/// Whether a display name can stand unquoted in a header (RFC 5322 phrase of atoms).
pub(crate) fn is_phrase(name: &str) -> bool {
    name.is_ascii()
        && name
            .split(' ')
            .all(|word| !word.is_empty() && word.chars().all(is_atom_character))
}

impl fmt::Display for Mailbox {
    /// The form people write and [`Mailbox::parse`] reads; not encoded for the wire.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            None => write!(f, "{}", self.address),
            Some(name) if is_phrase(name) => write!(f, "{name} <{}>", self.address),
            Some(name) => {
                write_quoted(f, name)?;
                write!(f, " <{}>", self.address)
            }
        }
    }
}

impl From<EmailAddress> for Mailbox {
    fn from(address: EmailAddress) -> Self {
        Self {
            name: None,
            address,
        }
    }
}

impl FromStr for Mailbox {
    type Err = MailboxError;

    fn from_str(text: &str) -> Result<Self, MailboxError> {
        Self::parse(text)
    }
}

impl Serialize for Mailbox {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Mailbox {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn mailboxes_are_read_as_people_write_them() {
        let check = |text: &str, name: Option<&str>, address: &str| {
            let mailbox = Mailbox::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(mailbox.name(), name, "{text}");
            assert_eq!(mailbox.address().to_string(), address, "{text}");
        };
        check("ana@example.com", None, "ana@example.com");
        check(" <ana@example.com> ", None, "ana@example.com");
        check("Ana <ana@example.com>", Some("Ana"), "ana@example.com");
        check("Ana<ana@example.com>", Some("Ana"), "ana@example.com");
        check("\"Doe, J.\" <a@b.example>", Some("Doe, J."), "a@b.example");
        check(
            "\"J \\\"JJ\\\" \\\\ D\" <a@b.example>",
            Some("J \"JJ\" \\ D"),
            "a@b.example",
        );
        check(
            "Acme Inc. (EU) <a@b.example>",
            Some("Acme Inc. (EU)"),
            "a@b.example",
        );
        check("Zoë 🎉 <a@b.example>", Some("Zoë 🎉"), "a@b.example");
        check("\"\" <a@b.example>", None, "a@b.example");
        check("\"a b\"@example.com", None, "\"a b\"@example.com");
        check(
            "x <\"a<b>\"@example.com>",
            Some("x"),
            "\"a<b>\"@example.com",
        );
        check(
            "a@b.example <c@d.example>",
            Some("a@b.example"),
            "c@d.example",
        );
    }

    #[test]
    fn what_is_not_one_mailbox_is_refused() {
        let check = |text: &str, expected: MailboxError| {
            assert_eq!(Mailbox::parse(text).unwrap_err(), expected, "{text:?}");
        };
        check(
            "Ana\r\nBcc: x@y.example <a@b.example>",
            MailboxError::Control,
        );
        check("Ana\u{85} <a@b.example>", MailboxError::Control);
        check("Doe, J. <a@b.example>", MailboxError::Separator);
        check("a@b.example, c <d@e.example>", MailboxError::Separator);
        check("\"Ana <a@b.example>", MailboxError::NameSyntax);
        check("\"Ana\" x <a@b.example>", MailboxError::NameSyntax);
        check("Ana <a@b.example> x", MailboxError::NameSyntax);
        check("Ana > <a@b.example>", MailboxError::NameSyntax);
        check(
            &format!("{} <a@b.example>", "n".repeat(513)),
            MailboxError::NameTooLong,
        );
        assert!(matches!(
            Mailbox::parse("Ana <>"),
            Err(MailboxError::Address(_))
        ));
        assert!(matches!(
            Mailbox::parse("<a@b.example"),
            Err(MailboxError::NameSyntax)
        ));
        assert!(matches!(
            Mailbox::parse("a@b.example, c@d.example"),
            Err(MailboxError::Address(_))
        ));
    }

    proptest! {
        #[test]
        fn any_name_survives_the_round_trip(name in "\\PC{0,40}") {
            let address = EmailAddress::parse("a@b.example").unwrap();
            let mailbox = Mailbox::new(Some(name), address).unwrap();
            prop_assert_eq!(Mailbox::parse(&mailbox.to_string()).unwrap(), mailbox);
        }

        #[test]
        fn any_text_is_parsed_or_refused(text: String) {
            let _ = Mailbox::parse(&text);
        }
    }
}
