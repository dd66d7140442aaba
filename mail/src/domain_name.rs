//! Domain names in the one form we compare, store and send: lower-case A-labels.
//! Syntax only: whether a name exists is the resolver's question.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use idna::AsciiDenyList;
use idna::uts46::{DnsLength, Hyphens, Uts46};
use serde::{Deserialize, Deserializer, Serialize};
use thiserror::Error;

/// A host or mail domain name: lower-case A-labels, no trailing dot, never an IP address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct DomainName(Box<str>);

/// Why a text is not a domain name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DomainNameError {
    /// Nothing there.
    #[error("domain is empty")]
    Empty,
    /// A character, hyphen or label length that host names do not allow (RFC 1123 section 2.1,
    /// UTS 46), or a broken A-label.
    #[error("domain is not a valid host name")]
    Syntax,
    /// More than 253 octets as A-labels (RFC 1035 section 2.3.4).
    #[error("domain is longer than 253 octets")]
    TooLong,
    /// One label only, where mail needs a name with a dot.
    #[error("domain needs at least two labels")]
    SingleLabel,
    /// An IP address, bare or in brackets.
    #[error("domain is an IP address")]
    IpLiteral,
}

impl DomainName {
    /// A name that mail may be addressed to: at least two labels.
    ///
    /// # Errors
    /// See [`DomainNameError`].
    pub fn parse(text: &str) -> Result<Self, DomainNameError> {
        let name = Self::parse_host(text)?;
        if name.0.contains('.') {
            Ok(name)
        } else {
            Err(DomainNameError::SingleLabel)
        }
    }

    /// A host name, which may be a single label such as `localhost`.
    ///
    /// # Errors
    /// See [`DomainNameError`].
    pub fn parse_host(text: &str) -> Result<Self, DomainNameError> {
        if text.is_empty() {
            return Err(DomainNameError::Empty);
        }
        // Bounds the work of the mapping below: no text of this length maps to a valid name.
        if text.len() > 1024 {
            return Err(DomainNameError::TooLong);
        }
        if text.starts_with('[') {
            return Err(DomainNameError::IpLiteral);
        }
        let ascii = to_ascii(text)?;
        // An all-numeric last label is an IPv4 address or a mistyped one (RFC 3696 section 2).
        if ascii
            .rsplit('.')
            .next()
            .is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()))
        {
            return Err(DomainNameError::IpLiteral);
        }
        Ok(Self(ascii.into_owned().into_boxed_str()))
    }

    /// The name as it goes on the wire: lower-case A-labels.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as people write it, with U-labels where there are A-labels.
    pub fn to_unicode(&self) -> Cow<'_, str> {
        Uts46::new()
            .to_unicode(
                self.0.as_bytes(),
                AsciiDenyList::STD3,
                Hyphens::CheckFirstLast,
            )
            .0
    }

    /// Whether this name is `ancestor` or lies below it.
    pub fn is_within(&self, ancestor: &DomainName) -> bool {
        self.0
            .strip_suffix(ancestor.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    }
}

fn to_ascii(text: &str) -> Result<Cow<'_, str>, DomainNameError> {
    // Hyphens in the third and fourth place are allowed: such names are registered and in use.
    let convert = |length| {
        Uts46::new().to_ascii(
            text.as_bytes(),
            AsciiDenyList::STD3,
            Hyphens::CheckFirstLast,
            length,
        )
    };
    match convert(DnsLength::Verify) {
        Ok(ascii) => Ok(ascii),
        Err(_) => match convert(DnsLength::Ignore) {
            Ok(ascii) if ascii.len() > 253 => Err(DomainNameError::TooLong),
            _ => Err(DomainNameError::Syntax),
        },
    }
}

impl fmt::Display for DomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for DomainName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl FromStr for DomainName {
    type Err = DomainNameError;

    fn from_str(text: &str) -> Result<Self, DomainNameError> {
        Self::parse(text)
    }
}

impl<'de> Deserialize<'de> for DomainName {
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
    fn names_become_lower_case_a_labels() {
        let check = |text: &str, ascii: &str| {
            assert_eq!(DomainName::parse(text).unwrap().as_str(), ascii, "{text}");
        };
        check("Example.COM", "example.com");
        check("bücher.example", "xn--bcher-kva.example");
        check("例子.广告", "xn--fsqu00a.xn--4rr70v");
        check("example。com", "example.com");
        check("c--n.com", "c--n.com");
        check("123.example", "123.example");
    }

    #[test]
    fn what_is_not_a_name_is_refused() {
        let check = |text: &str, expected: DomainNameError| {
            assert_eq!(DomainName::parse(text).unwrap_err(), expected, "{text}");
        };
        check("", DomainNameError::Empty);
        check("localhost", DomainNameError::SingleLabel);
        check("example.com.", DomainNameError::Syntax);
        check("a..b", DomainNameError::Syntax);
        check("-a.example", DomainNameError::Syntax);
        check("a_b.example", DomainNameError::Syntax);
        check("a b.example", DomainNameError::Syntax);
        check("a\0.example", DomainNameError::Syntax);
        check(
            &format!("{}.example", "a".repeat(64)),
            DomainNameError::Syntax,
        );
        check(
            &["a".repeat(63).as_str(); 4].join("."),
            DomainNameError::TooLong,
        );
        check(&"a.".repeat(4000), DomainNameError::TooLong);
        check("[192.0.2.1]", DomainNameError::IpLiteral);
        check("[IPv6:2001:db8::1]", DomainNameError::IpLiteral);
        check("192.0.2.1", DomainNameError::IpLiteral);
        check("2001:db8::1", DomainNameError::Syntax);
    }

    #[test]
    fn a_host_may_be_one_label() {
        assert_eq!(
            DomainName::parse_host("localhost").unwrap().as_str(),
            "localhost"
        );
        assert!(DomainName::parse_host("127").is_err());
    }

    #[test]
    fn people_see_u_labels() {
        assert_eq!(
            DomainName::parse("xn--bcher-kva.example")
                .unwrap()
                .to_unicode(),
            "bücher.example"
        );
    }

    #[test]
    fn within_means_whole_labels() {
        let name = |text| DomainName::parse(text).unwrap();
        assert!(name("mail.example.com").is_within(&name("example.com")));
        assert!(name("example.com").is_within(&name("example.com")));
        assert!(!name("badexample.com").is_within(&name("example.com")));
    }

    proptest! {
        #[test]
        fn a_parsed_name_is_its_own_canonical_form(text in "\\PC{0,40}") {
            if let Ok(name) = DomainName::parse_host(&text) {
                prop_assert!(name.as_str().is_ascii() && name.as_str().len() <= 253);
                prop_assert_eq!(DomainName::parse_host(name.as_str()).unwrap(), name);
            }
        }
    }
}
