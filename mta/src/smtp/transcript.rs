//! What was said in one transaction, for a person to read. Bounded; content is never kept.

use std::fmt::Write;

/// Longest transcript in octets; what comes after is dropped and counted.
pub const TRANSCRIPT_BYTES_MAX: usize = 8 * 1024;

/// Room kept for the closing note that lines were dropped.
const NOTE_BYTES_MAX: usize = 48;

/// Longest opening that is kept through all transactions of a connection.
const OPENING_BYTES_MAX: usize = 2 * 1024;

/// Longest single line; a remote line above it is cut, so that one reply cannot fill the rest.
const LINE_BYTES_MAX: usize = 1024;

/// Commands (`C: `) and replies (`S: `), one a line.
#[derive(Debug, Default)]
pub(super) struct Transcript {
    text: String,
    /// Length of the opening (greeting, EHLO, TLS), which every transaction's transcript keeps.
    opening_len: usize,
    lines_dropped: usize,
}

impl Transcript {
    /// Keeps what was said so far, shortened, as the opening of every transcript to come.
    pub(super) fn end_opening(&mut self) {
        self.text
            .truncate(self.text.floor_char_boundary(OPENING_BYTES_MAX));
        self.opening_len = self.text.len();
    }

    /// Forgets the last transaction.
    pub(super) fn begin_transaction(&mut self) {
        self.text.truncate(self.opening_len);
        self.lines_dropped = 0;
    }

    pub(super) fn sent(&mut self, command: &str) {
        let command = command.trim_end();
        // RFC 4954 section 4: what follows the mechanism is the password, in a thin disguise.
        match command.get(..5) {
            Some(verb) if verb.eq_ignore_ascii_case("AUTH ") => self.push("C: ", "AUTH (hidden)"),
            _ => self.push("C: ", command),
        }
    }

    pub(super) fn received(&mut self, line: &str) {
        self.push("S: ", line);
    }

    /// A remark of our own, such as the size of the content or the TLS version.
    pub(super) fn note(&mut self, remark: std::fmt::Arguments<'_>) {
        let mut line = String::new();
        if write!(line, "{remark}").is_ok() {
            self.push("-- ", &line);
        }
    }

    /// The text so far.
    pub(super) fn text(&self) -> String {
        let mut text = self.text.clone();
        if self.lines_dropped > 0 {
            // Writing into a String cannot fail.
            let _ = writeln!(text, "-- {} lines left out", self.lines_dropped);
        }
        text
    }

    fn push(&mut self, mark: &str, line: &str) {
        let line = &line[..line.floor_char_boundary(LINE_BYTES_MAX)];
        let needed = mark.len() + line.len() + 1;
        if self.text.len() + needed > TRANSCRIPT_BYTES_MAX - NOTE_BYTES_MAX {
            self.lines_dropped += 1;
            return;
        }
        self.text.push_str(mark);
        self.text.push_str(line);
        self.text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_password_gets_in() {
        let mut transcript = Transcript::default();
        transcript.sent("auth plain AGFuYQBzZWNyZXQ=");
        transcript.sent("NOOP");
        assert_eq!(transcript.text(), "C: AUTH (hidden)\nC: NOOP\n");
    }

    #[test]
    fn the_transcript_stays_bounded_and_says_what_it_left_out() {
        let mut transcript = Transcript::default();
        for _ in 0..100 {
            transcript.received(&"é".repeat(3000));
        }
        let text = transcript.text();
        assert!(text.len() <= TRANSCRIPT_BYTES_MAX);
        assert!(text.ends_with("lines left out\n"), "{text}");
    }
}
