//! Header fields a sender may add: names and values that cannot break out of their line, and
//! the list of fields that only the platform writes. Encoding for the wire is `compose`'s.

use std::fmt;

use thiserror::Error;

/// Longest name, in octets, so that a line of 78 has room for the colon and a space.
const NAME_MAX: usize = 76;
/// Longest value, in octets of UTF-8.
const VALUE_MAX: usize = 4096;
/// Longest run of ASCII without a space: it cannot be folded, and with its name it must stay
/// within the 998 octets of a line (RFC 5322 section 2.1.1).
pub(crate) const WORD_MAX: usize = 900;

/// Fields the platform writes, or that belong to a transport or to the receiving side. A second
/// one would be ambiguous, and a forged one misleading.
const RESERVED: &[&str] = &[
    "apparently-to",
    "authentication-results",
    "bcc",
    "cc",
    "date",
    "delivered-to",
    "domainkey-signature",
    "errors-to",
    "from",
    "message-id",
    "mime-version",
    "received",
    "received-spf",
    "reply-to",
    "return-path",
    "return-receipt-to",
    "sender",
    "subject",
    "to",
];
const RESERVED_PREFIXES: &[&str] = &["arc-", "content-", "dkim-", "resent-", "x-postrider-"];

/// The name of a header field (RFC 5322 section 2.2), spelled as given, compared without case.
#[derive(Debug, Clone)]
pub struct HeaderName(String);

/// The value of a header field, unencoded and on one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderValue(String);

/// Why a header field cannot be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum HeaderError {
    /// Not 1 to 76 printable ASCII characters without space and colon.
    #[error("header name must be 1 to 76 printable ASCII characters without space or colon")]
    NameSyntax,
    /// A field that only the platform or a mail server writes.
    #[error("header is written by the platform and cannot be set")]
    Reserved,
    /// A line end, NUL or other control character.
    #[error("header value has a control character")]
    ValueControl,
    /// More than 4096 octets.
    #[error("header value is longer than 4096 octets")]
    ValueTooLong,
    /// More than 900 octets without a space.
    #[error("header value has more than 900 octets without a space")]
    WordTooLong,
}

impl HeaderName {
    /// A name that a sender may use.
    ///
    /// # Errors
    /// `NameSyntax` or `Reserved`.
    pub fn parse(text: &str) -> Result<Self, HeaderError> {
        let printable = text
            .bytes()
            .all(|byte| matches!(byte, 33..=126) && byte != b':');
        if text.is_empty() || text.len() > NAME_MAX || !printable {
            return Err(HeaderError::NameSyntax);
        }
        // A name of punctuation alone is legal, and only ever a mistake.
        if !text.bytes().any(|byte| byte.is_ascii_alphanumeric()) {
            return Err(HeaderError::NameSyntax);
        }
        if is_reserved(text) {
            return Err(HeaderError::Reserved);
        }
        Ok(Self(text.to_owned()))
    }

    /// The name as given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_reserved(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    RESERVED.contains(&name.as_str()) || RESERVED_PREFIXES.iter().any(|p| name.starts_with(p))
}

impl PartialEq for HeaderName {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl Eq for HeaderName {}

impl fmt::Display for HeaderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl HeaderValue {
    /// A value on one line; spaces around it are dropped, as every reader would.
    ///
    /// # Errors
    /// `ValueControl`, `ValueTooLong` or `WordTooLong`.
    pub fn parse(text: &str) -> Result<Self, HeaderError> {
        if text.chars().any(char::is_control) {
            return Err(HeaderError::ValueControl);
        }
        let text = text.trim_matches(' ');
        if text.len() > VALUE_MAX {
            return Err(HeaderError::ValueTooLong);
        }
        if text
            .split(' ')
            .any(|word| word.is_ascii() && word.len() > WORD_MAX)
        {
            return Err(HeaderError::WordTooLong);
        }
        Ok(Self(text.to_owned()))
    }

    /// The value, unencoded.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_printable_ascii_without_colon() {
        for good in [
            "X-Order",
            "List-Unsubscribe",
            "Feedback-ID",
            "In-Reply-To",
            "x",
        ] {
            assert_eq!(HeaderName::parse(good).unwrap().as_str(), good);
        }
        for bad in [
            "",
            "-",
            "X Space",
            "X:",
            "X\r\nBcc",
            "É",
            "X\u{7f}",
            &"X".repeat(77),
        ] {
            assert_eq!(
                HeaderName::parse(bad),
                Err(HeaderError::NameSyntax),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn what_the_platform_writes_cannot_be_set() {
        for name in [
            "From",
            "BCC",
            "message-id",
            "DKIM-Signature",
            "ARC-Seal",
            "Content-Type",
            "Resent-From",
            "X-Postrider-Tag",
            "Return-Path",
            "MIME-Version",
            "Errors-To",
        ] {
            assert_eq!(
                HeaderName::parse(name),
                Err(HeaderError::Reserved),
                "{name}"
            );
        }
    }

    #[test]
    fn values_stay_on_their_line() {
        assert_eq!(HeaderValue::parse(" 7 é ").unwrap().as_str(), "7 é");
        for bad in ["a\r\nBcc: x", "a\nb", "a\rb", "a\0b", "a\u{b}b", "a\u{85}b"] {
            assert_eq!(
                HeaderValue::parse(bad),
                Err(HeaderError::ValueControl),
                "{bad:?}"
            );
        }
        assert_eq!(
            HeaderValue::parse(&"a ".repeat(3000)),
            Err(HeaderError::ValueTooLong)
        );
        assert_eq!(
            HeaderValue::parse(&"a".repeat(901)),
            Err(HeaderError::WordTooLong)
        );
    }
}
