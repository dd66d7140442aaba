//! Text that PostgreSQL will take: bounded and without NUL.
//! Knows nothing of columns; whoever parses the text says how long it may be.

use std::fmt;

use serde::Serialize;
use thiserror::Error;

/// Text without NUL and of bounded length, so that one row can never make a batch fail.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct DbText(String);

/// Why a text is not fit for the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TextError {
    /// PostgreSQL has no way to store NUL in text.
    #[error("contains NUL")]
    Nul,
    /// Longer than the caller's bound.
    #[error("is longer than {max_octets} octets")]
    TooLong {
        /// The bound, in octets of UTF-8.
        max_octets: usize,
    },
}

impl DbText {
    /// What we keep of one remote reply, in octets.
    pub const REMOTE_MAX_OCTETS: usize = 1024;

    /// Takes the text as it is.
    ///
    /// # Errors
    /// `Nul` or `TooLong`; nothing is cut or replaced.
    pub fn parse(text: &str, max_octets: usize) -> Result<Self, TextError> {
        if text.len() > max_octets {
            return Err(TextError::TooLong { max_octets });
        }
        if text.contains('\0') {
            return Err(TextError::Nul);
        }
        Ok(Self(text.to_owned()))
    }

    /// Keeps what can be kept of bytes another host sent: invalid UTF-8 becomes U+FFFD, control
    /// characters (line ends and tabs too) become `\x07` or `\u{85}`, and the rest is cut at
    /// `max_octets`, never inside a character or an escape.
    pub fn from_remote(bytes: &[u8], max_octets: usize) -> Self {
        // Every input octet gives at least one octet of output, save that an invalid sequence
        // of up to four gives three: a little more than the bound is all that can matter.
        let window = &bytes[..bytes
            .len()
            .min(max_octets.saturating_mul(2).saturating_add(4))];
        let mut kept = String::with_capacity(window.len().min(max_octets));
        let mut piece = String::new();
        for character in String::from_utf8_lossy(window).chars() {
            piece.clear();
            push_escaped(&mut piece, character);
            if kept.len() + piece.len() > max_octets {
                break;
            }
            kept.push_str(&piece);
        }
        Self(kept)
    }

    /// Like [`DbText::from_remote`], for text of several lines: line ends stay, as a bare LF.
    pub fn from_remote_lines(bytes: &[u8], max_octets: usize) -> Self {
        let mut kept = String::new();
        for line in bytes.split(|octet| *octet == b'\n') {
            let separator = usize::from(!kept.is_empty());
            let Some(room) = max_octets.checked_sub(kept.len() + separator) else {
                break;
            };
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let line = Self::from_remote(line, room);
            if separator == 1 {
                kept.push('\n');
            }
            kept.push_str(line.as_str());
        }
        Self(kept)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text, owned.
    pub fn into_string(self) -> String {
        self.0
    }
}

fn push_escaped(out: &mut String, character: char) {
    match character {
        c if c.is_ascii_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
        c if c.is_control() => out.push_str(&format!("\\u{{{:x}}}", u32::from(c))),
        c => out.push(c),
    }
}

impl fmt::Display for DbText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for DbText {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parse_refuses_nul_and_too_long_text() {
        assert_eq!(DbText::parse("a\0", 9), Err(TextError::Nul));
        assert_eq!(
            DbText::parse("héé", 4),
            Err(TextError::TooLong { max_octets: 4 })
        );
        assert_eq!(DbText::parse("hé", 3).unwrap().as_str(), "hé");
    }

    #[test]
    fn remote_text_is_escaped_and_cut_whole() {
        let row = |bytes: &[u8], max, expected: &str| {
            assert_eq!(DbText::from_remote(bytes, max).as_str(), expected);
        };
        row(
            b"550 no\x07\0such\r\nuser",
            99,
            "550 no\\x07\\x00such\\x0d\\x0auser",
        );
        row(b"caf\xe9", 99, "caf\u{fffd}");
        row("\u{85}ok".as_bytes(), 99, "\\u{85}ok");
        row("aé".as_bytes(), 2, "a");
        row(b"ab\x01", 5, "ab");
        row("\u{1f389}".as_bytes(), 3, "");
    }

    #[test]
    fn lines_stay_lines() {
        let row = |bytes: &[u8], max, expected: &str| {
            assert_eq!(DbText::from_remote_lines(bytes, max).as_str(), expected);
        };
        row(
            b"C: a\r\nS: b\x07\0\nC: c\n",
            99,
            "C: a\nS: b\\x07\\x00\nC: c\n",
        );
        row(b"abc\ndef", 5, "abc\nd");
        row(b"abc\ndef", 3, "abc");
        row(b"", 3, "");
    }

    proptest! {
        #[test]
        fn remote_lines_are_always_fit(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            max in 0usize..100,
        ) {
            let text = DbText::from_remote_lines(&bytes, max);
            prop_assert!(text.as_str().len() <= max);
            prop_assert!(!text.as_str().chars().any(|c| c.is_control() && c != '\n'));
        }

        #[test]
        fn remote_text_is_always_fit(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            max in 0usize..100,
        ) {
            let text = DbText::from_remote(&bytes, max);
            prop_assert!(text.as_str().len() <= max);
            prop_assert!(!text.as_str().chars().any(char::is_control));
        }
    }
}
