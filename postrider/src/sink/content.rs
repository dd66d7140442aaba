//! One message's content on its way past: finds its end, counts it and keeps nothing but the
//! beginning of its header, where the id is.

use bytes::{Buf, BytesMut};
use memchr::memmem;

const END: &[u8] = b"\r\n.\r\n";
/// The whole of a message without content: the line end before it is that of DATA.
const EMPTY: &[u8] = b".\r\n";
const HEADER_END: &[u8] = b"\r\n\r\n";
/// An id further down is not found.
const HEADER_MAX: usize = 16 * 1024;
/// Longest id that is kept; a longer one is cut.
const ID_OCTETS_MAX: usize = 200;

/// The content of one message after another; the memory is used again.
#[derive(Debug, Default)]
pub(super) struct Content {
    octets: u64,
    header: Vec<u8>,
    header_is_over: bool,
}

impl Content {
    /// Before the first octet of a message.
    pub(super) fn begin(&mut self) {
        self.octets = 0;
        self.header.clear();
        self.header_is_over = false;
    }

    /// Takes octets up to the end of the message and leaves the rest; true when it was there. Dots
    /// that the client doubled are counted as they came.
    pub(super) fn take(&mut self, input: &mut BytesMut) -> bool {
        if self.octets == 0 {
            if input.starts_with(EMPTY) {
                input.advance(EMPTY.len());
                return true;
            }
            if EMPTY.starts_with(input) {
                return false;
            }
        }
        let end = memmem::find(input, END);
        // What may be the beginning of the end is looked at again when more has come.
        let taken = match end {
            Some(at) => at + 2,
            None => input.len().saturating_sub(END.len() - 1),
        };
        self.keep_header(&input[..taken]);
        self.octets += taken as u64;
        input.advance(taken);
        if end.is_some() {
            input.advance(EMPTY.len());
        }
        end.is_some()
    }

    /// Octets of the message.
    pub(super) fn octets(&self) -> u64 {
        self.octets
    }

    /// The value of the first header field with this name.
    pub(super) fn header_value(&self, name: &str) -> Option<&str> {
        let field = |line: &'_ [u8]| {
            let (head, value) = line.split_at_checked(name.len())?;
            let is_it = value.first() == Some(&b':') && head.eq_ignore_ascii_case(name.as_bytes());
            is_it.then_some(name.len() + 1)
        };
        let lines = self.header.split(|byte| *byte == b'\n');
        let value = lines
            .take_while(|line| !line.trim_ascii().is_empty())
            .find_map(|line| Some(line[field(line)?..].trim_ascii()))?;
        let value = &value[..value.len().min(ID_OCTETS_MAX)];
        std::str::from_utf8(value).ok()
    }

    fn keep_header(&mut self, octets: &[u8]) {
        if self.header_is_over {
            return;
        }
        let room = HEADER_MAX - self.header.len();
        // The empty line may have begun in what is here already.
        let before = self.header.len().saturating_sub(HEADER_END.len() - 1);
        self.header
            .extend_from_slice(&octets[..octets.len().min(room)]);
        self.header_is_over = self.header.len() == HEADER_MAX
            || memmem::find(&self.header[before..], HEADER_END).is_some();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes `wire` in two pieces; what is left, if the end was found.
    fn take(content: &mut Content, wire: &[u8], cut: usize) -> Option<Vec<u8>> {
        content.begin();
        let mut input = BytesMut::new();
        for piece in [&wire[..cut], &wire[cut..]] {
            input.extend_from_slice(piece);
            if content.take(&mut input) {
                return Some(input.to_vec());
            }
        }
        None
    }

    #[test]
    fn only_a_dot_on_a_line_of_its_own_is_the_end_wherever_the_wire_is_cut() {
        let mut content = Content::default();
        for (wire, octets, rest) in [
            (&b".\r\nQUIT\r\n"[..], 0, &b"QUIT\r\n"[..]),
            (b"a\r\n.\r\n", 3, b""),
            (b"a\r\n..\r\n.\n.\r\n.b\r\n.\r\nMAIL", 16, b"MAIL"),
            (b"\r\n.\r\n", 2, b""),
        ] {
            for cut in 0..wire.len() {
                // The rest may come with the second piece only.
                let left = take(&mut content, wire, cut);
                let left = left.unwrap_or_else(|| panic!("no end in {wire:?} cut at {cut}"));
                assert!(rest.starts_with(&left), "{wire:?} cut at {cut}");
                assert_eq!(content.octets(), octets, "{wire:?} cut at {cut}");
            }
        }
        for endless in [&b"a\r\n.\n"[..], b"a\n.\r\n", b".a\r\n", b"a.\r\n"] {
            assert_eq!(take(&mut content, endless, 1), None, "{endless:?}");
        }
    }

    #[test]
    fn the_id_is_found_in_the_header_only() {
        let mut content = Content::default();
        let wire = b"X-Id-Not: 0\r\nx-ID:  42 \r\nX-Id: 43\r\n\r\nX-Id2: 44\r\n.\r\n";
        for cut in 0..wire.len() {
            take(&mut content, wire, cut).unwrap();
            assert_eq!(content.header_value("X-Id"), Some("42"), "cut at {cut}");
            assert_eq!(content.header_value("X-Id2"), None, "cut at {cut}");
        }
        take(&mut content, b".\r\n", 1).unwrap();
        assert_eq!(content.header_value("X-Id"), None);
    }

    #[test]
    fn a_header_without_end_takes_bounded_memory() {
        let mut content = Content::default();
        let mut input = BytesMut::from(&b"a".repeat(10 * HEADER_MAX)[..]);
        content.begin();
        assert!(!content.take(&mut input));
        assert_eq!((content.header.len(), input.len()), (HEADER_MAX, 4));
    }
}
