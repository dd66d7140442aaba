//! The header block of a message that came finished: which fields stay, which go, and what they
//! say. Looks at no body, and changes no field that stays.

use crate::address_list::{AddressListError, decode_unstructured, parse_address_list};
use crate::dkim_canon::{RawField, count_fields, parse_fields};
use crate::mailbox::Mailbox;
use crate::message_fields::FieldError;

/// Largest header block, in octets: signed anew with every attempt, and servers refuse larger ones.
pub(crate) const HEADER_MAX_OCTETS: usize = 256 * 1024;
/// Fields of one header block.
const FIELDS_MAX: usize = 500;

/// RFC 5322 section 3.6 and RFC 2045 allow each once. Readers differ about which of two counts.
const ONCE: &[&str] = &[
    "From",
    "Sender",
    "Reply-To",
    "To",
    "Cc",
    "Subject",
    "Date",
    "Message-ID",
    "In-Reply-To",
    "References",
    "MIME-Version",
    "Content-Type",
    "Content-Transfer-Encoding",
];
/// Do not go on the wire: what nobody may see, and what belongs to whoever receives finally
/// (RFC 5321 section 4.4, RFC 8601 section 5).
const REMOVED: &[&str] = &["Bcc", "Resent-Bcc", "Return-Path", "Authentication-Results"];
/// Fields that speak to the platform.
const OWN_PREFIX: &str = "x-postrider-";
/// Fields whose local parts may be beyond ASCII.
const ADDRESSED: &[&str] = &["From", "Sender", "Reply-To", "To", "Cc"];

/// A header block of good form.
#[derive(Debug)]
pub(crate) struct RawHeader<'a> {
    fields: Vec<RawField<'a>>,
    /// Has UTF-8 in it, which nothing but SMTPUTF8 can carry.
    pub(crate) needs_smtputf8: bool,
}

impl<'a> RawHeader<'a> {
    /// Looks at a block, the empty line behind it left out.
    ///
    /// # Errors
    /// What is wrong with its form, with the place.
    pub(crate) fn parse(block: &'a [u8]) -> Result<Self, FieldError> {
        let malformed = |offset: usize| {
            let detail = format!("octet {offset}: this line is no header field");
            FieldError::new("", "malformed_header", detail)
        };
        if block.len() > HEADER_MAX_OCTETS {
            return Err(too_long());
        }
        let fields = parse_fields(block).map_err(malformed)?;
        if fields.len() > FIELDS_MAX {
            let detail = format!("the header has more than {FIELDS_MAX} fields");
            return Err(FieldError::new("", "too_many_fields", detail));
        }
        // Some readers take a line of spaces for the end of the header.
        if let Some(at) = blank_continuation(block) {
            return Err(malformed(at));
        }
        let twice = ONCE.iter().find(|name| count_fields(&fields, name) > 1);
        if let Some(name) = twice {
            let detail = "may stand in a message once";
            let pointer = format!("/headers/{name}");
            return Err(FieldError::new(pointer, "duplicate_header", detail));
        }
        let mut header = Self {
            fields,
            needs_smtputf8: false,
        };
        if let Some(offset) = block.iter().position(|octet| !octet.is_ascii()) {
            header.needs_smtputf8 = header.is_internationalised(block);
            if !header.needs_smtputf8 {
                let detail = format!(
                    "octet {offset}: beyond ASCII the header needs encoding (RFC 2047); UTF-8 is \
                     for messages with such an address"
                );
                return Err(FieldError::new("", "header_not_ascii", detail));
            }
        }
        Ok(header)
    }

    /// An address that only UTF-8 can write (RFC 6532) is the reason to leave it as it is.
    fn is_internationalised(&self, block: &[u8]) -> bool {
        let addressed = |name: &&str| {
            let list = self.mailboxes(name).unwrap_or_default();
            list.iter()
                .any(|mailbox| mailbox.address().needs_smtputf8())
        };
        std::str::from_utf8(block).is_ok() && ADDRESSED.iter().any(addressed)
    }

    /// The value of the first field of this name, unfolded; none when it is blank.
    pub(crate) fn value(&self, name: &str) -> Option<String> {
        let field = self.fields.iter().find(|field| field.is_called(name))?;
        let value = unfold(field.value());
        let value = value.trim();
        (!value.is_empty()).then(|| value.to_owned())
    }

    /// Free text, decoded; empty when there is none.
    pub(crate) fn text(&self, name: &str) -> String {
        let field = self.fields.iter().find(|field| field.is_called(name));
        let value = field.map_or(&b""[..], |field| field.value());
        decode_unstructured(unfold(value).as_bytes())
    }

    /// The mailboxes of all fields of this name.
    pub(crate) fn mailboxes(&self, name: &str) -> Result<Vec<Mailbox>, AddressListError> {
        let mut list = Vec::new();
        for field in self.fields.iter().filter(|field| field.is_called(name)) {
            list.append(&mut parse_address_list(unfold(field.value()).trim())?);
        }
        Ok(list)
    }

    /// Writes the fields that stay, as they are. Those in `blank` go if they are.
    pub(crate) fn write_kept(&self, out: &mut Vec<u8>, blank: &[&str]) {
        for field in &self.fields {
            let is_removed = REMOVED.iter().any(|name| field.is_called(name))
                || starts_with(field.name(), OWN_PREFIX)
                || (blank.iter().any(|name| field.is_called(name))
                    && field.value().trim_ascii().is_empty());
            if is_removed {
                continue;
            }
            out.extend_from_slice(field.octets());
            if !field.octets().ends_with(b"\r\n") {
                out.extend_from_slice(b"\r\n");
            }
        }
    }
}

pub(crate) fn too_long() -> FieldError {
    let detail = format!("the header is longer than {HEADER_MAX_OCTETS} octets");
    FieldError::new("", "header_too_long", detail)
}

fn starts_with(name: &[u8], prefix: &str) -> bool {
    let start = name.get(..prefix.len());
    start.is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
}

/// Where a line of white space only continues a field.
fn blank_continuation(block: &[u8]) -> Option<usize> {
    let mut start = 0;
    for line in block.split_inclusive(|octet| *octet == b'\n') {
        let is_continuation = line
            .first()
            .is_some_and(|octet| matches!(octet, b' ' | b'\t'));
        if is_continuation && line.trim_ascii().is_empty() {
            return Some(start);
        }
        start += line.len();
    }
    None
}

/// The value on one line (RFC 5322 section 2.2.3).
fn unfold(value: &[u8]) -> String {
    String::from_utf8_lossy(value).replace("\r\n", "")
}
