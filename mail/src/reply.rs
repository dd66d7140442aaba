//! SMTP replies: what a server said, read strictly from bytes that arrive in any pieces.
//!
//! Reads and bounds, judges nothing ([`crate::judge`] does), and never trusts the peer: every
//! length has a limit, every octet is made printable before anybody stores or shows it.

use std::fmt;
use std::str::FromStr;

use crate::text::DbText;

/// RFC 5321 section 4.5.3.1.5 promises 512 octets a line; real servers send more.
const LINE_MAX: usize = 4096;
/// Lines of one reply; an EHLO answer has about twenty.
const LINES_MAX: usize = 100;
/// Octets of one reply, line ends included.
const REPLY_MAX: usize = 64 * 1024;
/// Octets kept unread: one reply, and some pipelined answers behind it.
const UNREAD_MAX: usize = 2 * REPLY_MAX;
/// Octets of a reply kept in the database.
const STORED_MAX: usize = 1024;

/// A three digit reply code, 200 to 599. RFC 5321 section 4.2 knows second digits up to 5;
/// servers that refuse mail also use 571, 591 and others, whose first digit is what counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplyCode(u16);

impl ReplyCode {
    /// The code as a type, if it is one.
    pub fn new(code: u16) -> Option<Self> {
        (200..=599).contains(&code).then_some(Self(code))
    }

    /// The code as a number.
    pub fn get(self) -> u16 {
        self.0
    }

    /// The first digit, 2 to 5, which decides about permanence.
    pub fn severity(self) -> u8 {
        // 200..=599 by construction.
        u8::try_from(self.0 / 100).unwrap_or(5)
    }

    fn parse(digits: &[u8]) -> Option<Self> {
        let digits = digits.get(..3)?;
        if !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let code = digits
            .iter()
            .fold(0, |code, digit| code * 10 + u16::from(digit - b'0'));
        Self::new(code)
    }
}

impl fmt::Display for ReplyCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// An enhanced status code, class.subject.detail (RFC 3463).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EnhancedCode {
    /// 2, 4 or 5.
    pub class: u8,
    /// What it is about: 1 address, 2 mailbox, 3 system, 4 network, 5 protocol, 6 content, 7 policy.
    pub subject: u16,
    /// Which case of the subject.
    pub detail: u16,
}

/// The text is no enhanced status code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an enhanced status code like 5.1.1")]
pub struct NotEnhancedCode;

impl FromStr for EnhancedCode {
    type Err = NotEnhancedCode;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.split('.').map(|part| {
            let fits = (1..=3).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
            if fits { part.parse::<u16>().ok() } else { None }
        });
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(Some(class @ (2 | 4 | 5))), Some(Some(subject)), Some(Some(detail)), None) => {
                Ok(Self {
                    // One of 2, 4, 5 by the pattern.
                    class: u8::try_from(class).map_err(|_| NotEnhancedCode)?,
                    subject,
                    detail,
                })
            }
            _ => Err(NotEnhancedCode),
        }
    }
}

impl fmt::Display for EnhancedCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.class, self.subject, self.detail)
    }
}

/// One complete reply. Its lines are printable UTF-8, without code and enhanced code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    code: ReplyCode,
    enhanced: Option<EnhancedCode>,
    lines: Vec<String>,
}

impl Reply {
    /// Reads a reply quoted inside a report, where lines may have been joined and the code may
    /// stand alone: `550 5.1.1 no such user`, `550-5.1.1 no such user`. None without a code.
    pub fn from_diagnostic(text: &str) -> Option<Self> {
        let text = text.trim();
        let code = ReplyCode::parse(text.as_bytes())?;
        let mut reply = Self::empty(code);
        for line in text.lines().take(LINES_MAX) {
            let own_code = ReplyCode::parse(line.as_bytes()) == Some(code);
            let separated = matches!(line.as_bytes().get(3), None | Some(b' ' | b'-'));
            let rest = if own_code && separated {
                line.get(4..).unwrap_or_default()
            } else {
                line
            };
            reply.push_line(rest.as_bytes());
        }
        Some(reply)
    }

    fn empty(code: ReplyCode) -> Self {
        Self {
            code,
            enhanced: None,
            lines: Vec::new(),
        }
    }

    /// Adds the text behind a code. The first enhanced code of the reply is kept, every line's
    /// own copy of one is cut off, so that sentences that run over lines can be read.
    fn push_line(&mut self, octets: &[u8]) {
        let line = DbText::from_remote(octets, LINE_MAX).as_str().to_owned();
        let (first, rest) = line.split_once(' ').unwrap_or((&line, ""));
        let line = match first.parse::<EnhancedCode>() {
            Ok(enhanced) => {
                self.enhanced.get_or_insert(enhanced);
                rest.to_owned()
            }
            Err(NotEnhancedCode) => line,
        };
        self.lines.push(line);
    }

    /// The three digits.
    pub fn code(&self) -> ReplyCode {
        self.code
    }

    /// The enhanced code that began the text, as sent: its class may contradict the reply code,
    /// and then the reply code rules.
    pub fn enhanced(&self) -> Option<EnhancedCode> {
        self.enhanced
    }

    /// The text line by line, without codes; never empty.
    pub fn lines(&self) -> &[String] {
        &self.lines
    }

    /// The text in one line, lines joined by a space.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for line in self.lines.iter().map(|line| line.trim()) {
            if !text.is_empty() && !line.is_empty() {
                text.push(' ');
            }
            text.push_str(line);
        }
        text
    }

    /// `550 5.1.1 no such user` for the database and for people: one line, at most 1 KiB.
    pub fn stored_text(&self) -> DbText {
        DbText::from_remote(self.to_string().as_bytes(), STORED_MAX)
    }

    /// 2xx: done.
    pub fn is_positive(&self) -> bool {
        self.code.severity() == 2
    }

    /// 3xx: go on (354 after DATA).
    pub fn is_intermediate(&self) -> bool {
        self.code.severity() == 3
    }

    /// 4xx: not now.
    pub fn is_transient(&self) -> bool {
        self.code.severity() == 4
    }

    /// 5xx: not so.
    pub fn is_permanent(&self) -> bool {
        self.code.severity() == 5
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if let Some(enhanced) = self.enhanced {
            write!(f, " {enhanced}")?;
        }
        let text = self.text();
        if text.is_empty() {
            return Ok(());
        }
        write!(f, " {text}")
    }
}

/// What is not a reply. After any of these the connection is of no use: nobody can say which
/// command the next line answers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// The line does not begin with a code from 200 to 599.
    #[error("a reply line has no reply code: {0}")]
    NoCode(DbText),
    /// Neither space nor hyphen behind the code.
    #[error("a reply line has neither space nor hyphen behind its code: {0}")]
    BadSeparator(DbText),
    /// RFC 5321 section 4.2.1: every line of a reply has the same code.
    #[error("a reply began with {first} and went on with {then}")]
    CodeChanged {
        /// Code of the first line.
        first: ReplyCode,
        /// Code of the line that differs.
        then: ReplyCode,
    },
    /// A line of more than 4,096 octets.
    #[error("a reply line is longer than {LINE_MAX} octets")]
    LineTooLong,
    /// More than 100 lines or 64 KiB.
    #[error("a reply has more than {LINES_MAX} lines or {REPLY_MAX} octets")]
    ReplyTooLong,
    /// The peer sends faster than replies are taken out.
    #[error("more than {UNREAD_MAX} octets came that nobody waited for")]
    TooMuchUnread,
}

/// Cuts a stream of octets into replies.
///
/// A bare LF ends a line as CRLF does: RFC 5321 forbids it, yet answers with bare LF exist and
/// nothing but the peer's own text can be smuggled into a reply. A CR elsewhere is escaped.
#[derive(Debug, Default)]
pub struct ReplyParser {
    unread: Vec<u8>,
    begun: Option<(Reply, usize)>,
}

impl ReplyParser {
    /// A parser for a new connection.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes what was read from the peer and returns the first complete reply; `None` means that
    /// more octets are needed. Replies behind the first are kept for [`Self::next_reply`].
    ///
    /// # Errors
    /// A [`ReplyError`]; the connection must then be given up.
    pub fn feed(&mut self, octets: &[u8]) -> Result<Option<Reply>, ReplyError> {
        if self.unread.len() + octets.len() > UNREAD_MAX {
            return Err(ReplyError::TooMuchUnread);
        }
        self.unread.extend_from_slice(octets);
        self.next_reply()
    }

    /// The next complete reply of what was fed before (pipelined commands).
    ///
    /// # Errors
    /// As [`Self::feed`].
    pub fn next_reply(&mut self) -> Result<Option<Reply>, ReplyError> {
        while let Some(end) = self.unread.iter().position(|octet| *octet == b'\n') {
            let line: Vec<u8> = self.unread.drain(..=end).collect();
            if let Some(reply) = self.take_line(&line)? {
                return Ok(Some(reply));
            }
        }
        if self.unread.len() > LINE_MAX {
            return Err(ReplyError::LineTooLong);
        }
        Ok(None)
    }

    /// True while octets of a later or unfinished reply are held.
    pub fn has_unread(&self) -> bool {
        !self.unread.is_empty() || self.begun.is_some()
    }

    /// Forgets everything held and says how many octets that was. After STARTTLS whatever came
    /// before the handshake was sent in clear by anybody (RFC 3207 section 6).
    pub fn discard_unread(&mut self) -> usize {
        let begun = self.begun.take().map_or(0, |(_, octets)| octets);
        let unread = self.unread.len();
        self.unread.clear();
        unread + begun
    }

    /// One line with its line end; a reply when it was the last line of one.
    fn take_line(&mut self, line: &[u8]) -> Result<Option<Reply>, ReplyError> {
        if line.len() > LINE_MAX {
            return Err(ReplyError::LineTooLong);
        }
        let length = line.len();
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let shown = || DbText::from_remote(line, 128);
        let code = ReplyCode::parse(line).ok_or_else(|| ReplyError::NoCode(shown()))?;
        let last = match line.get(3) {
            None | Some(b' ') => true,
            Some(b'-') => false,
            Some(_) => return Err(ReplyError::BadSeparator(shown())),
        };
        let (mut reply, before) = self.begun.take().unwrap_or((Reply::empty(code), 0));
        if reply.code != code {
            return Err(ReplyError::CodeChanged {
                first: reply.code,
                then: code,
            });
        }
        if reply.lines.len() == LINES_MAX || before + length > REPLY_MAX {
            return Err(ReplyError::ReplyTooLong);
        }
        reply.push_line(line.get(4..).unwrap_or_default());
        if last {
            return Ok(Some(reply));
        }
        self.begun = Some((reply, before + length));
        Ok(None)
    }
}
