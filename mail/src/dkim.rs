//! Makes DKIM-Signature fields (RFC 6376, 8301, 8463), relaxed/relaxed, without `l=`.
//!
//! Signs what it is given, last of all: whoever changes a header or the body afterwards breaks
//! the signature. The body is known only by the hash stored when the message was accepted.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

pub use crate::dkim_canon::body_hash;
use crate::dkim_canon::{RawField, count_fields, parse_fields, signed_octets};
pub use crate::dkim_key::{DkimKeyError, KeyAlgorithm, SigningKey};
use crate::domain_name::DomainName;

/// Fields signed once more than they occur, so that a second one cannot be slipped in.
const OVERSIGNED: &[&str] = &[
    "From",
    "To",
    "Cc",
    "Subject",
    "Date",
    "Reply-To",
    "Content-Type",
];

/// Fields signed as often as they occur (RFC 6376 section 5.4.1; RFC 8058 asks for the
/// List-Unsubscribe pair, Gmail for Feedback-ID, RFC 9477 for the CFBL pair).
const SIGNED: &[&str] = &[
    "Message-ID",
    "In-Reply-To",
    "References",
    "MIME-Version",
    "Content-Transfer-Encoding",
    "List-Id",
    "List-Help",
    "List-Unsubscribe",
    "List-Unsubscribe-Post",
    "List-Subscribe",
    "List-Post",
    "List-Owner",
    "List-Archive",
    "Feedback-ID",
    "CFBL-Address",
    "CFBL-Feedback-ID",
];

/// Folded lines stay at or under this many octets where a fold is possible (RFC 5322 2.1.1).
const LINE_MAX: usize = 76;

/// Why a message could not be signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DkimError {
    /// A selector is one or more DNS labels of letters, digits and inner hyphens.
    #[error("{0:?} is not a DKIM selector")]
    BadSelector(String),
    /// The header block has a line that is no header field.
    #[error("the header block breaks at octet {offset}")]
    BadHeaderBlock {
        /// Octets from the beginning of the block.
        offset: usize,
    },
    /// RFC 6376 section 5.4: From must be signed, so there must be one.
    #[error("the message has no From field to sign")]
    NoFrom,
    /// RFC 6376 section 3.5: `x=` must be later than `t=`.
    #[error("the signature would expire before it was made")]
    ExpiresTooEarly,
    /// The key failed.
    #[error("could not sign with the key of the selector")]
    Key(#[from] DkimKeyError),
}

/// One selector of one domain, ready to sign.
#[derive(Debug)]
pub struct Signer {
    domain: DomainName,
    selector: String,
    key: SigningKey,
}

impl Signer {
    /// Binds a key to the name it is published under.
    ///
    /// # Errors
    /// [`DkimError::BadSelector`] when the selector could not be part of a DNS name.
    pub fn new(domain: DomainName, selector: &str, key: SigningKey) -> Result<Self, DkimError> {
        if !is_selector(selector) {
            let shown = selector.chars().take(64).collect();
            return Err(DkimError::BadSelector(shown));
        }
        Ok(Self {
            domain,
            selector: selector.to_ascii_lowercase(),
            key,
        })
    }

    /// The signing domain, `d=`.
    pub fn domain(&self) -> &DomainName {
        &self.domain
    }

    /// The selector, `s=`.
    pub fn selector(&self) -> &str {
        &self.selector
    }

    /// The key behind the selector.
    pub fn key(&self) -> &SigningKey {
        &self.key
    }

    /// The complete field `DKIM-Signature: ...` with folds and the last CRLF, to be put before
    /// `headers`: the whole header block with CRLF line ends, the fields made for this delivery
    /// included. Times are seconds since 1970.
    ///
    /// # Errors
    /// [`DkimError::BadHeaderBlock`], [`DkimError::NoFrom`], [`DkimError::ExpiresTooEarly`] or
    /// [`DkimError::Key`].
    pub fn sign(
        &self,
        headers: &[u8],
        body_hash: &[u8; 32],
        signed_at: i64,
        expires_at: Option<i64>,
    ) -> Result<String, DkimError> {
        let fields =
            parse_fields(headers).map_err(|offset| DkimError::BadHeaderBlock { offset })?;
        if count_fields(&fields, "From") == 0 {
            return Err(DkimError::NoFrom);
        }
        if expires_at.is_some_and(|expires_at| expires_at <= signed_at) {
            return Err(DkimError::ExpiresTooEarly);
        }
        let names = names_to_sign(&fields);
        let mut value = self.unsigned_value(&names, body_hash, signed_at, expires_at);
        let octets = signed_octets(&fields, &names, &value);
        push_folded_base64(&mut value, &self.key.sign(&octets)?);
        Ok(format!("DKIM-Signature: {value}\r\n"))
    }

    /// The field's value up to and with an empty `b=`.
    fn unsigned_value(
        &self,
        names: &[&str],
        body_hash: &[u8; 32],
        signed_at: i64,
        expires_at: Option<i64>,
    ) -> String {
        let algorithm = self.key.algorithm().signature_tag();
        let mut value = format!(
            "v=1; a={algorithm}; c=relaxed/relaxed;\r\n\td={};\r\n\ts={}; t={signed_at};",
            self.domain.as_str(),
            self.selector
        );
        if let Some(expires_at) = expires_at {
            value.push_str(&format!(" x={expires_at};"));
        }
        value.push_str("\r\n\th=");
        push_folded_names(&mut value, names);
        value.push_str(&format!(";\r\n\tbh={};\r\n\tb=", BASE64.encode(body_hash)));
        value
    }
}

/// Labels of letters, digits and inner hyphens (RFC 6376 section 3.1: sub-domains). Underscores
/// are allowed because imported selectors have them.
fn is_selector(selector: &str) -> bool {
    let label_is_fine = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    selector.len() <= 189 && selector.split('.').all(label_is_fine)
}

/// The value of `h=`: every signed name as often as it occurs, oversigned ones once more.
fn names_to_sign(fields: &[RawField<'_>]) -> Vec<&'static str> {
    let mut names = Vec::with_capacity(24);
    for name in OVERSIGNED {
        names.extend(std::iter::repeat_n(*name, count_fields(fields, name) + 1));
    }
    for name in SIGNED {
        names.extend(std::iter::repeat_n(*name, count_fields(fields, name)));
    }
    names
}

/// Joins names with colons; white space may stand around a colon (RFC 6376 section 3.5, `h=`).
fn push_folded_names(value: &mut String, names: &[&str]) {
    let mut column = "\th=".len();
    for (place, name) in names.iter().enumerate() {
        if place > 0 {
            value.push(':');
            column += 1;
            if column + name.len() >= LINE_MAX {
                value.push_str("\r\n\t ");
                column = 2;
            }
        }
        value.push_str(name);
        column += name.len();
    }
}

fn push_folded_base64(value: &mut String, octets: &[u8]) {
    let text = BASE64.encode(octets);
    let mut room = LINE_MAX - "\tb=".len();
    let mut rest = text.as_str();
    while rest.len() > room {
        let (line, after) = rest.split_at(room);
        value.push_str(line);
        value.push_str("\r\n\t ");
        rest = after;
        room = LINE_MAX - 2;
    }
    value.push_str(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8463 appendix A: the signature field as printed there, its `b=` emptied.
    const RFC_8463_FIELD: &str = " v=1; a=ed25519-sha256; c=relaxed/relaxed;\r\n \
        d=football.example.com; i=@football.example.com;\r\n \
        q=dns/txt; s=brisbane; t=1528637909; h=from : to :\r\n \
        subject : date : message-id : from : subject : date;\r\n \
        bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\r\n b=";

    #[test]
    fn the_vector_of_rfc_8463_comes_out_exactly() {
        let folder = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../shared/corpora/auth/dkim-sign/"
        );
        let Ok(facts) = std::fs::read_to_string(format!("{folder}rfc8463.json")) else {
            eprintln!("SKIPPED: {folder} is absent");
            return;
        };
        let facts: serde_json::Value = serde_json::from_str(&facts).unwrap();
        let text = |name: &str| facts[name].as_str().unwrap();
        let mail = std::fs::read(format!("{folder}rfc6376-unsigned.eml")).unwrap();
        let mail = String::from_utf8(mail).unwrap().replace("\r\n", "\n");
        let mail = mail.replace('\n', "\r\n");
        let (head, body) = mail.split_once("\r\n\r\n").unwrap();

        assert_eq!(BASE64.encode(body_hash(body.as_bytes())), text("bh"));
        let seed = BASE64.decode(text("ed25519_private_base64")).unwrap();
        let key = SigningKey::from_ed25519_seed(&seed.try_into().unwrap()).unwrap();
        let published: String = text("ed25519_dns").to_owned();
        assert_eq!(key.public_txt().unwrap(), published);

        let head = format!("{head}\r\n");
        let fields = parse_fields(head.as_bytes()).unwrap();
        let names: Vec<&str> = text("h").split(" : ").collect();
        let octets = signed_octets(&fields, &names, RFC_8463_FIELD);
        assert_eq!(BASE64.encode(key.sign(&octets).unwrap()), text("b"));
    }

    #[test]
    fn selectors_are_dns_labels() {
        for good in ["s1", "2026-11", "a.b", "k_1", "S1"] {
            assert!(is_selector(good), "{good}");
        }
        for bad in ["", ".", "a..b", "-a", "a-", "a b", "a;b", "a\r\nb", "ä"] {
            assert!(!is_selector(bad), "{bad:?}");
        }
    }
}
