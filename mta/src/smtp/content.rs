//! Message content on its way to the wire: checked once, then dot-stuffed.
//! Never alters a byte besides doubling leading dots; what would need repair is refused.

use thiserror::Error;

/// Why content cannot be sent with DATA. Offsets count from the start of the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ContentError {
    /// A CR without LF: some receivers take it for a line end (SMTP smuggling).
    #[error("bare CR at byte {0} of the content")]
    BareCr(usize),
    /// A LF without CR.
    #[error("bare LF at byte {0} of the content")]
    BareLf(usize),
    /// A NUL: some receivers drop it, which can turn `NUL .` into an end of data.
    #[error("NUL at byte {0} of the content")]
    Nul(usize),
}

/// Content that is safe to send: every line ends with CRLF, nothing can be read as an end of
/// data (RFC 5321 sections 2.3.8 and 4.5.2).
#[derive(Debug, Clone, Copy)]
pub struct WireContent<'a> {
    parts: &'a [&'a [u8]],
    len: usize,
    eight_bit: bool,
    ends_with_crlf: bool,
    needs_smtputf8: bool,
}

impl<'a> WireContent<'a> {
    /// Checks the concatenation of `parts` (say header block and body).
    ///
    /// # Errors
    /// On bare CR, bare LF and NUL, with the offset.
    pub fn parse(parts: &'a [&'a [u8]]) -> Result<Self, ContentError> {
        let mut base = 0;
        let mut eight_bit = false;
        let mut after_cr = false;
        for part in parts {
            check_part(part, base, &mut after_cr)?;
            eight_bit = eight_bit || !part.is_ascii();
            base += part.len();
        }
        if after_cr {
            return Err(ContentError::BareCr(base - 1));
        }
        let last = parts.iter().rev().find(|part| !part.is_empty());
        Ok(Self {
            parts,
            len: base,
            eight_bit,
            // No bare LF got this far, so a final LF is the end of a CRLF.
            ends_with_crlf: last.is_none_or(|part| part.ends_with(b"\n")),
            needs_smtputf8: false,
        })
    }

    /// Octets, as the SIZE parameter counts them: line ends included, stuffing not (RFC 1870).
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if there are no octets at all.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// True if any octet is above 127 and so needs 8BITMIME (RFC 6152).
    pub fn eight_bit(&self) -> bool {
        self.eight_bit
    }

    /// The same content, declared to have UTF-8 in its headers (RFC 6532).
    #[must_use]
    pub fn with_utf8_headers(self) -> Self {
        Self {
            needs_smtputf8: true,
            ..self
        }
    }

    /// True if the content itself needs SMTPUTF8 (RFC 6531).
    pub fn needs_smtputf8(&self) -> bool {
        self.needs_smtputf8
    }

    pub(super) fn parts(&self) -> &'a [&'a [u8]] {
        self.parts
    }

    /// True if the dot may follow directly; else the sender owes a CRLF before it.
    pub(super) fn ends_with_crlf(&self) -> bool {
        self.ends_with_crlf
    }
}

fn check_part(part: &[u8], base: usize, after_cr: &mut bool) -> Result<(), ContentError> {
    let mut pos = 0;
    loop {
        if *after_cr {
            match part.get(pos) {
                None => return Ok(()),
                Some(b'\n') => pos += 1,
                Some(_) => return Err(ContentError::BareCr((base + pos).saturating_sub(1))),
            }
            *after_cr = false;
        }
        let Some(found) = memchr::memchr3(0, b'\r', b'\n', &part[pos..]) else {
            return Ok(());
        };
        pos += found;
        match part[pos] {
            b'\r' => *after_cr = true,
            b'\n' => return Err(ContentError::BareLf(base + pos)),
            _ => return Err(ContentError::Nul(base + pos)),
        }
        pos += 1;
    }
}

/// Doubles the dot that begins a line (RFC 5321 section 4.5.2), over any cut of the content.
#[derive(Debug)]
pub(super) struct DotStuffer {
    at_line_start: bool,
}

impl DotStuffer {
    pub(super) fn new() -> Self {
        Self {
            at_line_start: true,
        }
    }

    /// Appends `chunk` to `out`, stuffed.
    pub(super) fn push(&mut self, chunk: &[u8], out: &mut Vec<u8>) {
        let Some(last) = chunk.last() else { return };
        out.reserve(chunk.len() + 16);
        if self.at_line_start && chunk[0] == b'.' {
            out.push(b'.');
        }
        let mut rest = chunk;
        while let Some(found) = memchr::memmem::find(rest, b"\n.") {
            let (lines, dot) = rest.split_at(found + 1);
            out.extend_from_slice(lines);
            out.push(b'.');
            rest = dot;
        }
        out.extend_from_slice(rest);
        self.at_line_start = *last == b'\n';
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stuffed(parts: &[&[u8]]) -> Vec<u8> {
        let mut stuffer = DotStuffer::new();
        let mut out = Vec::new();
        for part in parts {
            stuffer.push(part, &mut out);
        }
        out
    }

    #[test]
    fn leading_dots_are_doubled_and_nothing_else() {
        assert_eq!(
            stuffed(&[b".\r\n..\r\na.b\r\n.c\r\n"]),
            b"..\r\n...\r\na.b\r\n..c\r\n"
        );
        assert_eq!(stuffed(&[b"a\r\n", b".b\r\n"]), b"a\r\n..b\r\n");
        assert_eq!(
            stuffed(&[b"a", b".b\r", b"\n", b".", b".c"]),
            b"a.b\r\n...c"
        );
    }

    #[test]
    fn every_cut_of_the_content_is_stuffed_alike() {
        let whole: &[u8] = b".x\r\n.\r\n\r\n..y\r\nz.\r\n";
        let expected = stuffed(&[whole]);
        for cut in 0..=whole.len() {
            assert_eq!(
                stuffed(&[&whole[..cut], &whole[cut..]]),
                expected,
                "cut at {cut}"
            );
        }
    }

    #[test]
    fn bare_line_ends_and_nul_are_refused_with_their_offset() {
        let check = |parts: &[&[u8]]| WireContent::parse(parts).map(|content| content.len());
        assert_eq!(check(&[b"a\r\nb\r\n"]), Ok(6));
        assert_eq!(check(&[b"a\r", b"\nb"]), Ok(4));
        assert_eq!(check(&[b"a\nb"]), Err(ContentError::BareLf(1)));
        assert_eq!(check(&[b"a\rb"]), Err(ContentError::BareCr(1)));
        assert_eq!(check(&[b"a\r", b"b"]), Err(ContentError::BareCr(1)));
        assert_eq!(check(&[b"a\r\r\n"]), Err(ContentError::BareCr(1)));
        assert_eq!(check(&[b"ab\r"]), Err(ContentError::BareCr(2)));
        assert_eq!(check(&[b"ab", b"\r", b""]), Err(ContentError::BareCr(2)));
        assert_eq!(check(&[b"ab", b"c\0"]), Err(ContentError::Nul(3)));
        assert_eq!(check(&[]), Ok(0));
    }

    #[test]
    fn eight_bit_and_the_missing_final_line_end_are_noticed() {
        let parts: [&[u8]; 2] = [b"a\xe9\r\n", b""];
        let content = WireContent::parse(&parts).unwrap();
        assert!(content.eight_bit() && content.ends_with_crlf());
        let parts: [&[u8]; 2] = [b"a\r\nb", b""];
        assert!(!WireContent::parse(&parts).unwrap().ends_with_crlf());
    }
}
