//! Header fields as they go on the wire: encoded words (RFC 2047), quoting, folding.
//! Takes parsed values only; adds no field of its own accord.
//!
//! Lines are kept within 78 octets where the content allows and within 998 always (RFC 5322
//! section 2.1.1). The only octets beyond 7 bits are those of non-ASCII local parts, which
//! nothing but SMTPUTF8 can carry.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::address::write_quoted;
use crate::mailbox::{Mailbox, is_phrase};

/// RFC 5322 section 2.1.1: what a line should not exceed, in octets without CRLF.
const LINE_SHOULD: usize = 78;
/// RFC 2047 section 2: an encoded word has at most 75 characters, 12 of which are its frame.
const ENCODED_TEXT_MAX: usize = 63;
/// Spaces in a row that are still folded as text; more would make lines of nothing but spaces.
const SPACE_RUN_MAX: usize = 32;
/// The longest display name that is quoted; longer ones are encoded, since encoded words fold.
const QUOTED_NAME_MAX: usize = 64;

/// Writes a field of free text, such as Subject. Words that are not printable ASCII, that look
/// like an encoded word, or that are longer than `word_max` are encoded; a reader sees the text
/// exactly as it was given.
pub(crate) fn write_unstructured(out: &mut String, name: &str, value: &str, word_max: usize) {
    let mut line = FoldedLine::begin(out, name);
    let value = value.trim_matches(' ');
    if value.is_empty() {
        return line.end();
    }
    if value.contains(&" ".repeat(SPACE_RUN_MAX)) {
        line.encoded(value);
        return line.end();
    }
    let words: Vec<&str> = value.split(' ').collect();
    let mut next = 0;
    while next < words.len() {
        let end = encoded_run_end(&words, next, word_max);
        if end > next {
            line.encoded(&words[next..end].join(" "));
            next = end;
        } else {
            line.word(words[next]);
            next += 1;
        }
    }
    line.end();
}

/// End of the run of words that must be encoded and that begins at `start`; `start` if the word
/// there needs no encoding. Readers drop the space between two encoded words (RFC 2047 section
/// 6.2), so neighbours are encoded together with the spaces between them.
fn encoded_run_end(words: &[&str], start: usize, word_max: usize) -> usize {
    let mut end = start;
    for (position, word) in words.iter().enumerate().skip(start) {
        if needs_encoding(word, word_max) {
            end = position + 1;
        } else if !word.is_empty() || end == start {
            break;
        }
    }
    end
}

fn needs_encoding(word: &str, word_max: usize) -> bool {
    let looks_encoded = word
        .find("=?")
        .is_some_and(|at| word[at + 2..].contains("?="));
    looks_encoded || word.len() > word_max || !word.bytes().all(|byte| matches!(byte, 33..=126))
}

/// Writes an address list, such as To. Nothing for an empty list.
pub(crate) fn write_mailboxes(out: &mut String, name: &str, mailboxes: &[Mailbox]) {
    let Some(last) = mailboxes.len().checked_sub(1) else {
        return;
    };
    let mut line = FoldedLine::begin(out, name);
    for (index, mailbox) in mailboxes.iter().enumerate() {
        let mut address = mailbox.address().to_string();
        if let Some(name) = mailbox.name() {
            write_display_name(&mut line, name);
            address = format!("<{address}>");
        }
        if index < last {
            address.push(',');
        }
        line.word(&address);
    }
    line.end();
}

fn write_display_name(line: &mut FoldedLine<'_>, name: &str) {
    let printable = name.bytes().all(|byte| matches!(byte, 32..=126));
    if !printable || name.len() > QUOTED_NAME_MAX || name.contains("=?") {
        line.encoded(name);
    } else if is_phrase(name) {
        name.split(' ').for_each(|word| line.word(word));
    } else {
        let mut quoted = String::with_capacity(name.len() + 2);
        write_quoted(&mut quoted, name).expect("writing to a String cannot fail");
        line.word(&quoted);
    }
}

/// Writes a field whose value is known to be short and plain.
pub(crate) fn write_plain(out: &mut String, name: &str, value: &str) {
    let mut line = FoldedLine::begin(out, name);
    line.word(value);
    line.end();
}

/// A field being written: knows how full the current line is.
struct FoldedLine<'a> {
    out: &'a mut String,
    column: usize,
    /// A line must not be folded before anything stands on it: a line of the name alone is legal
    /// but some readers stumble over it.
    line_is_bare: bool,
}

impl<'a> FoldedLine<'a> {
    fn begin(out: &'a mut String, name: &str) -> Self {
        out.push_str(name);
        out.push(':');
        Self {
            column: name.len() + 1,
            out,
            line_is_bare: true,
        }
    }

    /// Adds a space and a word that cannot be broken, on a new line if this one is too full.
    fn word(&mut self, word: &str) {
        // An empty word stands for a further space of a run: folding there could leave a line of
        // spaces only.
        if !word.is_empty() && !self.line_is_bare && self.column + 1 + word.len() > LINE_SHOULD {
            self.out.push_str("\r\n");
            self.column = 0;
        }
        self.out.push(' ');
        self.out.push_str(word);
        self.column += 1 + word.len();
        self.line_is_bare = false;
    }

    /// Adds text as encoded words, breaking between characters only.
    fn encoded(&mut self, text: &str) {
        let quoted_len: usize = text.bytes().map(q_len).sum();
        let scheme = if quoted_len <= text.len().div_ceil(3) * 4 {
            Scheme::Q
        } else {
            Scheme::B
        };
        let mut rest = text;
        while !rest.is_empty() {
            let (chunk, after) = rest.split_at(scheme.prefix_len(rest, self.encoded_room()));
            self.word(&scheme.encode(chunk));
            rest = after;
        }
    }

    /// Encoded characters that the next word may have: what this line still takes, unless that
    /// is so little that a new line is better.
    fn encoded_room(&self) -> usize {
        let left = LINE_SHOULD.saturating_sub(self.column + 1 + 12);
        if left >= 24 || self.line_is_bare {
            left.clamp(24, ENCODED_TEXT_MAX)
        } else {
            ENCODED_TEXT_MAX
        }
    }

    fn end(self) {
        self.out.push_str("\r\n");
    }
}

/// The two encodings of RFC 2047 section 4.
#[derive(Clone, Copy)]
enum Scheme {
    B,
    Q,
}

impl Scheme {
    /// Octets of the longest prefix of whole characters that encodes into `room` characters; at
    /// least one character.
    fn prefix_len(self, text: &str, room: usize) -> usize {
        let mut octets = 0;
        let mut quoted = 0;
        for character in text.chars() {
            let next_octets = octets + character.len_utf8();
            let piece = &text[octets..next_octets];
            quoted += piece.bytes().map(q_len).sum::<usize>();
            let encoded = match self {
                Self::Q => quoted,
                Self::B => next_octets.div_ceil(3) * 4,
            };
            if encoded > room && octets > 0 {
                break;
            }
            octets = next_octets;
        }
        octets
    }

    fn encode(self, text: &str) -> String {
        match self {
            Self::B => format!("=?utf-8?B?{}?=", BASE64.encode(text)),
            Self::Q => format!(
                "=?utf-8?Q?{}?=",
                text.bytes().map(q_encode).collect::<String>()
            ),
        }
    }
}

/// The characters RFC 2047 section 5 (3) leaves unencoded in a display name, the strictest case.
fn is_q_safe(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!*+-/".contains(&byte)
}

fn q_len(byte: u8) -> usize {
    if byte == b' ' || is_q_safe(byte) {
        1
    } else {
        3
    }
}

fn q_encode(byte: u8) -> String {
    match byte {
        b' ' => "_".to_owned(),
        safe if is_q_safe(safe) => char::from(safe).to_string(),
        other => format!("={other:02X}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(value: &str) -> String {
        let mut out = String::new();
        write_unstructured(&mut out, "Subject", value, 75);
        out
    }

    #[test]
    fn plain_text_stays_plain() {
        assert_eq!(subject("Your order 7"), "Subject: Your order 7\r\n");
        assert_eq!(subject("two  spaces"), "Subject: two  spaces\r\n");
        assert_eq!(subject(" "), "Subject:\r\n");
    }

    #[test]
    fn only_the_words_that_need_it_are_encoded() {
        assert_eq!(
            subject("Hello 🎉 you"),
            "Subject: Hello =?utf-8?B?8J+OiQ==?= you\r\n"
        );
        assert_eq!(
            subject("à la carte"),
            "Subject: =?utf-8?B?w6A=?= la carte\r\n"
        );
        assert_eq!(subject("déjà vu"), "Subject: =?utf-8?B?ZMOpasOg?= vu\r\n");
        assert_eq!(subject("é  é x"), "Subject: =?utf-8?B?w6kgIMOp?= x\r\n");
    }

    #[test]
    fn text_that_looks_encoded_arrives_as_text() {
        let out = subject("=?utf-8?q?fake?=");
        assert_eq!(out, "Subject: =?utf-8?B?PT91dGYtOD9xP2Zha2U/PQ==?=\r\n");
    }

    #[test]
    fn long_text_is_folded_before_the_line_is_full() {
        for value in [
            "word ".repeat(60),
            "x".repeat(998),
            "né ".repeat(100),
            "é".repeat(400),
        ] {
            let out = subject(&value);
            assert!(out.is_ascii());
            for line in out.trim_end().split("\r\n") {
                assert!(line.len() <= 78 && !line.trim().is_empty(), "{line}");
            }
        }
    }

    #[test]
    fn names_are_atoms_quoted_or_encoded() {
        let check = |mailbox: &str, wire: &str| {
            let mut out = String::new();
            write_mailboxes(&mut out, "To", &[Mailbox::parse(mailbox).unwrap()]);
            assert_eq!(out, format!("To: {wire}\r\n"));
        };
        check("a@b.example", "a@b.example");
        check("Ana Doe <a@b.example>", "Ana Doe <a@b.example>");
        check("\"Doe, J.\" <a@b.example>", "\"Doe, J.\" <a@b.example>");
        check(
            "Zoë <a@bücher.example>",
            "=?utf-8?Q?Zo=C3=AB?= <a@xn--bcher-kva.example>",
        );
        check(
            "=?x?q?y?= <a@b.example>",
            "=?utf-8?B?PT94P3E/eT89?= <a@b.example>",
        );
    }

    #[test]
    fn lists_are_folded_between_mailboxes() {
        let mailboxes: Vec<Mailbox> = (0..50)
            .map(|n| Mailbox::parse(&format!("Name {n} <user{n}@example.com>")).unwrap())
            .collect();
        let mut out = String::new();
        write_mailboxes(&mut out, "Cc", &mailboxes);
        assert!(out.split("\r\n").all(|line| line.len() <= 78));
        assert_eq!(out.matches("@example.com>,").count(), 49);
        write_mailboxes(&mut out, "Bcc", &[]);
        assert!(!out.contains("Bcc"));
    }
}
