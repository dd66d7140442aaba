//! A stored message sent once more: the same octets under a new Message-ID and Date. Receivers drop
//! what they have seen under the same Message-ID, so a copy needs its own. The body is not touched,
//! and neither is any other field: the body hash stays right.

use time::OffsetDateTime;

use crate::compose::rfc_date;
use crate::header_wire::write_plain;

const EMPTY_LINE: &[u8] = b"\r\n";

/// A message with its new fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restamped {
    /// Header, empty line if there was one, body.
    pub bytes: Vec<u8>,
    /// Octets of `bytes` before the body.
    pub header_len: usize,
}

/// Replaces Message-ID and Date of a message, where they stand; adds them where they are missing.
/// `header_len` counts the octets before the body, with or without the empty line;
/// `rfc_message_id` has its angle brackets. The Date is written in UTC with whole seconds.
///
/// # Errors
/// When RFC 5322 cannot write the date.
pub fn restamp(
    bytes: &[u8],
    header_len: usize,
    rfc_message_id: &str,
    date: OffsetDateTime,
) -> Result<Restamped, time::error::Format> {
    let (header, body) = bytes.split_at(header_len.min(bytes.len()));
    let has_empty_line = header.ends_with(b"\r\n\r\n") || header == EMPTY_LINE;
    let fields = match has_empty_line {
        true => &header[..header.len() - EMPTY_LINE.len()],
        false => header,
    };
    let mut new_fields = [
        ("Message-ID", Some(written("Message-ID", rfc_message_id))),
        ("Date", Some(written("Date", &rfc_date(date)?))),
    ];
    let mut out = Vec::with_capacity(bytes.len() + 256);
    for field in split_fields(fields) {
        match new_fields
            .iter_mut()
            .find(|(name, _)| is_named(field, name))
        {
            // The first of several is the one; a message has one of each (RFC 5322 section 3.6).
            Some((_, new)) => out.extend(new.take().unwrap_or_default().into_bytes()),
            None => out.extend_from_slice(field),
        }
    }
    for (_, missing) in new_fields {
        out.extend(missing.unwrap_or_default().into_bytes());
    }
    if has_empty_line {
        out.extend_from_slice(EMPTY_LINE);
    }
    let header_len = out.len();
    out.extend_from_slice(body);
    Ok(Restamped {
        bytes: out,
        header_len,
    })
}

fn written(name: &str, value: &str) -> String {
    let mut field = String::new();
    write_plain(&mut field, name, value);
    field
}

/// The fields with their line ends; a line that begins with white space belongs to the one before
/// (RFC 5322 section 2.2.3).
fn split_fields(header: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = header;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let ends = (1..rest.len())
            .find(|at| rest[at - 1] == b'\n' && !matches!(rest.get(*at), Some(b' ' | b'\t')));
        let (field, after) = rest.split_at(ends.unwrap_or(rest.len()));
        rest = after;
        Some(field)
    })
}

/// Names are compared without case; white space before the colon is obsolete and legal to read
/// (RFC 5322 section 4.5).
fn is_named(field: &[u8], name: &str) -> bool {
    let colon = field.iter().position(|byte| *byte == b':');
    colon.is_some_and(|at| {
        field[..at]
            .trim_ascii_end()
            .eq_ignore_ascii_case(name.as_bytes())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use time::macros::datetime;

    const AT: OffsetDateTime = datetime!(2026-11-22 10:30 +1);

    fn check(header: &str, expected: &str) {
        for body in ["", "Date: 1\r\n.\r\n"] {
            let whole = format!("{header}{body}");
            let new = restamp(whole.as_bytes(), header.len(), "<new@a.test>", AT).unwrap();
            assert_eq!(
                String::from_utf8_lossy(&new.bytes),
                format!("{expected}{body}")
            );
            assert_eq!(new.header_len, expected.len());
        }
    }

    #[test]
    fn only_the_two_fields_change_and_they_stay_in_their_places() {
        let (id, date) = (
            "Message-ID: <new@a.test>\r\n",
            "Date: Sun, 22 Nov 2026 09:30:00 +0000\r\n",
        );
        check(
            "From: a@a.test\r\ndate: Mon,\r\n 1 Jan 2024 00:00:00 +0000\r\nMESSAGE-ID :\r\n <old@a.test>\r\nX-Date: 2\r\n\r\n",
            &format!("From: a@a.test\r\n{date}{id}X-Date: 2\r\n\r\n"),
        );
        check("Subject: x\r\n", &format!("Subject: x\r\n{id}{date}"));
        check("Date: 1\r\nDate: 2\r\n\r\n", &format!("{date}{id}\r\n"));
        check("\r\n", &format!("{id}{date}\r\n"));
        check("", &format!("{id}{date}"));
    }

    proptest! {
        #[test]
        fn a_body_is_never_touched(header: Vec<u8>, body: Vec<u8>) {
            let whole = [header.as_slice(), &body].concat();
            let new = restamp(&whole, header.len(), "<n@a.test>", AT).unwrap();
            prop_assert_eq!(&new.bytes[new.header_len..], body.as_slice());
        }
    }
}
