//! Addresses that SMTP can carry: a local part and a domain.
//! No display names (see `mailbox`), no comments, no routes, no address literals.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use crate::domain_name::{DomainName, DomainNameError};

/// RFC 5321 section 4.5.3.1.1, in octets of the wire form.
const LOCAL_PART_MAX: usize = 64;
/// RFC 5321 section 4.5.3.1.3 gives a path 256 octets, two of which are its angle brackets.
const ADDRESS_MAX: usize = 254;

/// An address as RFC 5321 (and 6531 for non-ASCII local parts) writes it.
///
/// The local part is kept as its meaning, without quotes, and belongs to the receiver: it is
/// compared exactly. The domain is compared without regard to case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EmailAddress {
    local_part: Box<str>,
    domain: DomainName,
}

/// Why a text is not an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum AddressError {
    /// There is no @ between a local part and a domain.
    #[error("address needs the form local-part@domain")]
    NoAtSign,
    /// Nothing before the @, or an empty quoted string.
    #[error("local part is empty")]
    LocalPartEmpty,
    /// A character or dot where the local part allows none (RFC 5321 section 4.1.2).
    #[error("local part has a character or dot that is not allowed there")]
    LocalPartSyntax,
    /// More than 64 octets.
    #[error("local part is longer than 64 octets")]
    LocalPartTooLong,
    /// More than 254 octets in all.
    #[error("address is longer than 254 octets")]
    TooLong,
    /// The part after the @.
    #[error(transparent)]
    Domain(#[from] DomainNameError),
}

impl EmailAddress {
    /// Reads `local@domain` or `"quoted local"@domain`; nothing may stand around it.
    ///
    /// # Errors
    /// See [`AddressError`].
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let (local_part, domain) = split(text)?;
        if local_part.is_empty() {
            return Err(AddressError::LocalPartEmpty);
        }
        let address = Self {
            local_part: local_part.into(),
            domain: DomainName::parse(domain)?,
        };
        let wire_len = address.to_string().len();
        if wire_len - address.domain.as_str().len() - 1 > LOCAL_PART_MAX {
            return Err(AddressError::LocalPartTooLong);
        }
        if wire_len > ADDRESS_MAX {
            return Err(AddressError::TooLong);
        }
        Ok(address)
    }

    /// The local part's meaning: quotes and backslashes of the quoted form are gone.
    pub fn local_part(&self) -> &str {
        &self.local_part
    }

    /// The domain, as A-labels.
    pub fn domain(&self) -> &DomainName {
        &self.domain
    }

    /// Whether only a server that offers SMTPUTF8 can take this address (RFC 6531). An
    /// internationalised domain alone does not need it: it travels as A-labels.
    pub fn needs_smtputf8(&self) -> bool {
        !self.local_part.is_ascii()
    }
}

/// Local part without its quotes, and the domain as written.
fn split(text: &str) -> Result<(String, &str), AddressError> {
    if let Some(quoted) = text.strip_prefix('"') {
        let (content, rest) = unquote(quoted).ok_or(AddressError::LocalPartSyntax)?;
        let domain = rest.strip_prefix('@').ok_or(if rest.is_empty() {
            AddressError::NoAtSign
        } else {
            AddressError::LocalPartSyntax
        })?;
        return Ok((content, domain));
    }
    let (local_part, domain) = text.rsplit_once('@').ok_or(AddressError::NoAtSign)?;
    if !local_part.is_empty() && !is_dot_string(local_part) {
        return Err(AddressError::LocalPartSyntax);
    }
    Ok((local_part.to_owned(), domain))
}

/// Reads a quoted string whose opening quote is already gone; gives its content and the rest.
/// `None` when it does not close or holds what no quoted string may (RFC 5321 QcontentSMTP).
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut content = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((content, &text[at + 1..])),
            '\\' => {
                let (_, escaped) = characters.next()?;
                if !matches!(escaped, ' '..='~') {
                    return None;
                }
                content.push(escaped);
            }
            ' '..='~' => content.push(character),
            other if is_utf8_text(other) => content.push(other),
            _ => return None,
        }
    }
    None
}

/// RFC 5321 Dot-string, with the non-ASCII characters RFC 6531 adds.
fn is_dot_string(text: &str) -> bool {
    text.split('.')
        .all(|atom| !atom.is_empty() && atom.chars().all(is_atom_character))
}

pub(crate) fn is_atom_character(character: char) -> bool {
    character.is_ascii_alphanumeric()
        || "!#$%&'*+-/=?^_`{|}~".contains(character)
        || is_utf8_text(character)
}

/// Non-ASCII characters we take in a local part: no controls, no spaces, and none that only
/// change how the text around them looks (zero width, direction), which serve to deceive.
fn is_utf8_text(character: char) -> bool {
    !character.is_ascii()
        && !character.is_control()
        && !character.is_whitespace()
        && !matches!(character, '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff0}'..='\u{fffd}')
}

impl fmt::Display for EmailAddress {
    /// The wire form: quoted only if it must be, the domain as A-labels.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if is_dot_string(&self.local_part) {
            f.write_str(&self.local_part)?;
        } else {
            write_quoted(f, &self.local_part)?;
        }
        write!(f, "@{}", self.domain)
    }
}

/// Writes a quoted string, escaping what has to be.
pub(crate) fn write_quoted(out: &mut impl fmt::Write, content: &str) -> fmt::Result {
    out.write_char('"')?;
    for character in content.chars() {
        if matches!(character, '"' | '\\') {
            out.write_char('\\')?;
        }
        out.write_char(character)?;
    }
    out.write_char('"')
}

impl FromStr for EmailAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        Self::parse(text)
    }
}

impl Serialize for EmailAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for EmailAddress {
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
    fn the_wire_form_quotes_only_what_must_be_quoted() {
        let check = |text: &str, wire: &str| {
            assert_eq!(
                EmailAddress::parse(text).unwrap().to_string(),
                wire,
                "{text}"
            );
        };
        check("Ana@Example.COM", "Ana@example.com");
        check("\"ana\"@example.com", "ana@example.com");
        check("\"a\\na\"@example.com", "ana@example.com");
        check("\"two words\"@example.com", "\"two words\"@example.com");
        check("\"a\\\"b\\\\c\"@example.com", "\"a\\\"b\\\\c\"@example.com");
        check("\"a..b\"@example.com", "\"a..b\"@example.com");
        check("\"a@b\"@example.com", "\"a@b\"@example.com");
        check("用户@例子.广告", "用户@xn--fsqu00a.xn--4rr70v");
    }

    #[test]
    fn what_smtp_cannot_carry_is_refused() {
        let check = |text: &str, expected: AddressError| {
            assert_eq!(EmailAddress::parse(text).unwrap_err(), expected, "{text:?}");
        };
        check("", AddressError::NoAtSign);
        check("ana", AddressError::NoAtSign);
        check("@example.com", AddressError::LocalPartEmpty);
        check("\"\"@example.com", AddressError::LocalPartEmpty);
        check("a b@example.com", AddressError::LocalPartSyntax);
        check("a..b@example.com", AddressError::LocalPartSyntax);
        check("a\r\nb@example.com", AddressError::LocalPartSyntax);
        check("\"a\0b\"@example.com", AddressError::LocalPartSyntax);
        check("\"a\\é\"@example.com", AddressError::LocalPartSyntax);
        check("\"a\" b@example.com", AddressError::LocalPartSyntax);
        check("a\u{202e}b@example.com", AddressError::LocalPartSyntax);
        check(
            "@relay.example:a@example.com",
            AddressError::LocalPartSyntax,
        );
        check(
            "a@[192.0.2.1]",
            AddressError::Domain(DomainNameError::IpLiteral),
        );
        check(
            "a@example.com SIZE=1",
            AddressError::Domain(DomainNameError::Syntax),
        );
        check(
            &format!("{}@example.com", "a".repeat(65)),
            AddressError::LocalPartTooLong,
        );
        let long_domain = ["a".repeat(63).as_str(); 3].join(".");
        check(
            &format!("{}@{long_domain}", "a".repeat(63)),
            AddressError::TooLong,
        );
        // 62 characters need 64 octets once quoted; 63 do not fit.
        assert!(EmailAddress::parse(&format!("\"{} \"@example.com", "a".repeat(61))).is_ok());
        check(
            &format!("\"{} \"@example.com", "a".repeat(62)),
            AddressError::LocalPartTooLong,
        );
    }

    #[test]
    fn only_the_domain_ignores_case() {
        let address = |text| EmailAddress::parse(text).unwrap();
        assert_eq!(address("ana@EXAMPLE.com"), address("ana@example.com"));
        assert_eq!(address("\"ana\"@example.com"), address("ana@example.com"));
        assert_ne!(address("Ana@example.com"), address("ana@example.com"));
    }

    #[test]
    fn only_the_local_part_can_need_smtputf8() {
        assert!(
            EmailAddress::parse("josé@example.com")
                .unwrap()
                .needs_smtputf8()
        );
        assert!(
            !EmailAddress::parse("jose@exämple.com")
                .unwrap()
                .needs_smtputf8()
        );
    }

    proptest! {
        #[test]
        fn an_accepted_address_survives_its_wire_form(
            text in "\"?[ -~é\\\\]{0,12}\"?@[a-z.]{1,9}\\.test",
        ) {
            if let Ok(address) = EmailAddress::parse(&text) {
                let wire = address.to_string();
                prop_assert!(!wire.chars().any(char::is_control));
                prop_assert_eq!(EmailAddress::parse(&wire).unwrap(), address);
            }
        }

        #[test]
        fn any_text_is_parsed_or_refused(text: String) {
            let _ = EmailAddress::parse(&text);
        }
    }
}
