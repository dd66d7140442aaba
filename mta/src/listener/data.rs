//! Content after DATA: finds the one true end of data and removes dot-stuffing.
//!
//! Only CRLF.CRLF ends the content (RFC 5321 section 4.1.1.4). Bare CR and LF are noticed so that
//! the message can be refused, and never count as line ends: this is what stops SMTP smuggling.

use bytes::{Buf, Bytes, BytesMut};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Position {
    LineStart,
    Middle,
    AfterCr,
    AfterLeadingDot,
    AfterLeadingDotCr,
}

/// What [`DataDecoder::push`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    NeedMore,
    Complete,
    /// Far over the limit: reading on to be polite is no longer worth it.
    Hopeless,
}

/// Why complete content is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ContentFault {
    TooLarge,
    BareLineEnd,
}

/// Incremental decoder of one message's content.
#[derive(Debug)]
pub(super) struct DataDecoder {
    position: Position,
    content: BytesMut,
    max_bytes: usize,
    discarded: usize,
    bare_line_end: bool,
}

impl DataDecoder {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self {
            position: Position::LineStart,
            content: BytesMut::new(),
            max_bytes,
            discarded: 0,
            bare_line_end: false,
        }
    }

    /// Takes octets from `input` up to the end of data and leaves the rest there.
    pub(super) fn push(&mut self, input: &mut BytesMut) -> Progress {
        while let Some(&byte) = input.first() {
            match (self.position, byte) {
                (Position::LineStart, b'.') => self.position = Position::AfterLeadingDot,
                (Position::AfterLeadingDot, b'\r') => self.position = Position::AfterLeadingDotCr,
                (Position::AfterLeadingDotCr, b'\n') => {
                    input.advance(1);
                    return Progress::Complete;
                }
                (Position::AfterLeadingDotCr, _) => {
                    // The CR was no line end after all; it is content, and a bare one.
                    self.store(b"\r");
                    self.position = Position::AfterCr;
                    continue;
                }
                (Position::AfterCr, b'\n') => {
                    self.store(b"\n");
                    self.position = Position::LineStart;
                }
                (Position::AfterCr, _) => {
                    self.bare_line_end = true;
                    self.position = Position::Middle;
                    continue;
                }
                (_, b'\r') => {
                    self.store(b"\r");
                    self.position = Position::AfterCr;
                }
                (_, b'\n') => {
                    self.store(b"\n");
                    self.bare_line_end = true;
                    self.position = Position::Middle;
                }
                _ => {
                    let line_end = input.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
                    let run = line_end.unwrap_or(input.len());
                    self.store(&input[..run]);
                    self.position = Position::Middle;
                    input.advance(run);
                    continue;
                }
            }
            input.advance(1);
        }
        if self.discarded > self.max_bytes {
            Progress::Hopeless
        } else {
            Progress::NeedMore
        }
    }

    /// The content, once [`Progress::Complete`] was returned.
    pub(super) fn finish(self) -> Result<Bytes, ContentFault> {
        if self.discarded > 0 {
            Err(ContentFault::TooLarge)
        } else if self.bare_line_end {
            Err(ContentFault::BareLineEnd)
        } else {
            Ok(self.content.freeze())
        }
    }

    fn store(&mut self, bytes: &[u8]) {
        if self.discarded > 0 || self.content.len() + bytes.len() > self.max_bytes {
            self.discarded += bytes.len();
        } else {
            self.content.extend_from_slice(bytes);
        }
    }
}

/// True if `content` has a CR or LF that is not part of a CRLF: for content that came by BDAT,
/// where no decoder sees it.
pub(super) fn has_bare_line_end(content: &[u8]) -> bool {
    let mut previous = 0_u8;
    for &byte in content {
        if (previous == b'\r') != (byte == b'\n') {
            return true;
        }
        previous = byte;
    }
    previous == b'\r'
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `wire` in two pieces; nothing if no end of data was found.
    fn decode(wire: &[u8], cut: usize) -> Option<Result<Bytes, ContentFault>> {
        let mut decoder = DataDecoder::new(1000);
        let mut input = BytesMut::new();
        for piece in [&wire[..cut], &wire[cut..]] {
            input.extend_from_slice(piece);
            if decoder.push(&mut input) == Progress::Complete {
                return Some(decoder.finish());
            }
        }
        None
    }

    fn check(wire: &[u8], content: Result<&[u8], ContentFault>) {
        for cut in 0..=wire.len() {
            let got = decode(wire, cut).unwrap_or_else(|| panic!("no end in {wire:?} cut {cut}"));
            assert_eq!(got.as_deref(), content.as_deref(), "{wire:?} cut at {cut}");
        }
    }

    #[test]
    fn what_follows_the_end_is_left_for_the_next_command() {
        let mut input = BytesMut::from(&b"a\r\n.\r\nQUIT\r\n"[..]);
        assert_eq!(DataDecoder::new(10).push(&mut input), Progress::Complete);
        assert_eq!(&input[..], b"QUIT\r\n");
    }

    #[test]
    fn stuffing_is_removed_and_the_end_found_at_every_cut() {
        check(b".\r\n", Ok(b""));
        check(b"a\r\n.\r\n", Ok(b"a\r\n"));
        check(
            b"..\r\n..a\r\n. b\r\n\r\n.\r\n",
            Ok(b".\r\n.a\r\n b\r\n\r\n"),
        );
    }

    #[test]
    fn nothing_but_crlf_dot_crlf_ends_data() {
        for fake in [
            &b"a\n.\r\n"[..],
            b"a\n.\n",
            b"a\r.\r\n",
            b"a\r\n.\n",
            b"a\r\n.\rb",
            b"a\r\n.\r\r\n",
            b"a\r\n.\0\r\n",
            b"a\r\n. \r\n",
        ] {
            for cut in 0..=fake.len() {
                assert_eq!(decode(fake, cut), None, "{fake:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn bare_line_ends_are_refused_at_the_true_end() {
        check(b"a\nb\r\n.\r\n", Err(ContentFault::BareLineEnd));
        check(b"a\rb\r\n.\r\n", Err(ContentFault::BareLineEnd));
        check(b"a\r\n.\rb\r\n.\r\n", Err(ContentFault::BareLineEnd));
        check(b"a\r\r\n.\r\n", Err(ContentFault::BareLineEnd));
    }

    #[test]
    fn content_over_the_limit_is_read_to_its_end_and_refused() {
        let mut wire = vec![b'x'; 1500];
        wire.extend_from_slice(b"\r\n.\r\n");
        check(&wire, Err(ContentFault::TooLarge));
        let mut decoder = DataDecoder::new(10);
        assert_eq!(
            decoder.push(&mut BytesMut::from(&[b'x'; 100][..])),
            Progress::Hopeless
        );
    }

    #[test]
    fn bare_line_ends_are_found_in_chunks_too() {
        assert!(!has_bare_line_end(b"a\r\nb\r\n"));
        for bad in [&b"a\n"[..], b"\n", b"a\r", b"a\rb\r\n", b"\r\r\n"] {
            assert!(has_bare_line_end(bad), "{bad:?}");
        }
    }
}
