//! Address lists as they stand in header fields (RFC 5322 section 3.4): comments, groups, quoted
//! strings, encoded words. Stricter than readers are: what two of them could read differently is
//! refused, since the sender's domain decides who may send.

use mail_parser::MessageParser;
use thiserror::Error;

use crate::address::{AddressError, EmailAddress};
use crate::mailbox::Mailbox;

/// Why a text is no address list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum AddressListError {
    /// A quoted string, comment, angle bracket or group that does not close, or one that closes
    /// without having been opened.
    #[error("has a quote, bracket or group that is not closed")]
    Unclosed,
    /// Something behind the > of an address, or a second address before the comma.
    #[error("has text where only a comma may stand")]
    Separator,
    /// An address that SMTP cannot carry.
    #[error("has something that is no address: {0}")]
    Address(#[from] AddressError),
}

/// Reads an unfolded field value. An empty list, such as that of `undisclosed-recipients:;`, is
/// one.
///
/// # Errors
/// See [`AddressListError`].
pub(crate) fn parse_address_list(text: &str) -> Result<Vec<Mailbox>, AddressListError> {
    let mut list = Vec::new();
    let mut item = Item::default();
    let mut in_group = false;
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        let after = &rest[character.len_utf8()..];
        rest = match character {
            '(' => skip_comment(after)?,
            '"' => {
                let (quoted, after) = quoted_string(rest)?;
                item.push(quoted)?;
                after
            }
            '<' => {
                let (inside, after) = angle_address(after)?;
                item.set_address(inside)?;
                after
            }
            ',' => {
                list.extend(std::mem::take(&mut item).mailbox()?);
                after
            }
            ':' if !in_group && item.is_phrase() => {
                in_group = true;
                item = Item::default();
                after
            }
            ';' if in_group => {
                in_group = false;
                list.extend(std::mem::take(&mut item).mailbox()?);
                after
            }
            ')' | '>' | ':' | ';' => return Err(AddressListError::Unclosed),
            ' ' | '\t' => {
                item.space();
                after
            }
            _ => {
                let end = rest.find(|c| "()\"<>,:; \t".contains(c));
                let (word, after) = rest.split_at(end.unwrap_or(rest.len()));
                item.push(word)?;
                after
            }
        };
    }
    if in_group {
        return Err(AddressListError::Unclosed);
    }
    list.extend(item.mailbox()?);
    Ok(list)
}

/// What stands between two commas.
#[derive(Default)]
struct Item<'a> {
    /// As written, words separated by one space, comments gone.
    written: String,
    /// Words and quoted strings in their order.
    words: Vec<&'a str>,
    address: Option<&'a str>,
}

impl<'a> Item<'a> {
    fn space(&mut self) {
        if !self.written.is_empty() && !self.written.ends_with(' ') {
            self.written.push(' ');
        }
    }

    fn push(&mut self, word: &'a str) -> Result<(), AddressListError> {
        if self.address.is_some() {
            return Err(AddressListError::Separator);
        }
        self.written.push_str(word);
        self.words.push(word);
        Ok(())
    }

    fn set_address(&mut self, address: &'a str) -> Result<(), AddressListError> {
        match self.address.replace(address) {
            Some(_) => Err(AddressListError::Separator),
            None => Ok(()),
        }
    }

    /// Whether this could be the name of a group.
    fn is_phrase(&self) -> bool {
        self.address.is_none() && !self.written.trim().is_empty() && !self.written.contains('@')
    }

    /// Nothing, for an item of comments and spaces only.
    fn mailbox(self) -> Result<Option<Mailbox>, AddressListError> {
        let written = self.written.trim();
        let Some(address) = self.address else {
            if written.is_empty() {
                return Ok(None);
            }
            return Ok(Some(EmailAddress::parse(written)?.into()));
        };
        let address = EmailAddress::parse(address.trim_matches([' ', '\t']))?;
        let name = display_name(&self.words);
        // A name too long to keep is still no reason to refuse the address.
        let named = Mailbox::new(Some(name), address.clone());
        Ok(Some(named.unwrap_or_else(|_| address.into())))
    }
}

/// The rest behind a comment whose ( is gone; comments nest.
fn skip_comment(text: &str) -> Result<&str, AddressListError> {
    let mut depth = 1_usize;
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '(' => depth += 1,
            ')' => depth -= 1,
            '\\' => drop(characters.next()),
            _ => {}
        }
        if depth == 0 {
            return Ok(&text[at + 1..]);
        }
    }
    Err(AddressListError::Unclosed)
}

/// A quoted string with its quotes, and the rest.
fn quoted_string(text: &str) -> Result<(&str, &str), AddressListError> {
    let mut characters = text.char_indices().skip(1);
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Ok(text.split_at(at + 1)),
            '\\' => drop(characters.next()),
            _ => {}
        }
    }
    Err(AddressListError::Unclosed)
}

/// What stands in angle brackets whose < is gone, and the rest. Quotes may hold a >.
fn angle_address(text: &str) -> Result<(&str, &str), AddressListError> {
    let mut is_quoted = false;
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '>' if !is_quoted => return Ok((&text[..at], &text[at + 1..])),
            '"' => is_quoted = !is_quoted,
            '\\' if is_quoted => drop(characters.next()),
            _ => {}
        }
    }
    Err(AddressListError::Unclosed)
}

/// A phrase as people read it. Encoded words count outside of quotes only (RFC 2047 section 5).
fn display_name(words: &[&str]) -> String {
    let is_quoted = |word: &&str| word.starts_with('"');
    let runs = words.chunk_by(|a, b| !is_quoted(a) && !is_quoted(b));
    let read = |run: &[&str]| match run {
        [quoted] if is_quoted(quoted) => unquote(quoted),
        plain => decode_unstructured(plain.join(" ").as_bytes()),
    };
    let name = runs.map(read).collect::<Vec<_>>().join(" ");
    name.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// The content of a quoted string.
fn unquote(quoted: &str) -> String {
    let inside = quoted.strip_prefix('"').unwrap_or(quoted);
    let inside = inside.strip_suffix('"').unwrap_or(inside);
    let mut content = String::with_capacity(inside.len());
    let mut characters = inside.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => content.extend(characters.next()),
            other => content.push(other),
        }
    }
    content
}

/// A value of free text, such as that of Subject, as people read it: unfolded, its encoded words
/// decoded.
pub(crate) fn decode_unstructured(value: &[u8]) -> String {
    let field = [b"Subject: ", value.trim_ascii(), b"\r\n\r\n"].concat();
    let message = MessageParser::default().parse(&field);
    let subject = message.as_ref().and_then(|message| message.subject());
    subject.unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lists_are_read_as_headers_have_them() {
        let check = |text: &str, expected: &[&str]| {
            let list = parse_address_list(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            let shown: Vec<String> = list.iter().map(ToString::to_string).collect();
            assert_eq!(shown, expected, "{text}");
        };
        check("a@b.example", &["a@b.example"]);
        check(
            "Ana <a@b.example>, c@d.example",
            &["Ana <a@b.example>", "c@d.example"],
        );
        check(
            "\"Doe, J. \\\"JJ\\\"\" <j@b.example>",
            &["\"Doe, J. \\\"JJ\\\"\" <j@b.example>"],
        );
        check(
            "=?utf-8?q?Zo=C3=AB?= =?utf-8?q?_B?= <z@b.example>",
            &["\"Zoë B\" <z@b.example>"],
        );
        check(
            "\"=?utf-8?q?x?=\" <z@b.example>",
            &["=?utf-8?q?x?= <z@b.example>"],
        );
        check("A. \"B\" C <a@b.example>", &["\"A. B C\" <a@b.example>"]);
        check("a@b.example (Ana (A) \\) x), (only)", &["a@b.example"]);
        check(
            "Team: a@b.example, B <b@b.example>;, c@b.example",
            &["a@b.example", "B <b@b.example>", "c@b.example"],
        );
        check("undisclosed-recipients:;", &[]);
        check("", &[]);
        check(", ,", &[]);
        check("\"a, b\"@c.example", &["\"a, b\"@c.example"]);
        check("<\"a>b\"@c.example>", &["\"a>b\"@c.example"]);
        check(
            &format!("{} <a@b.example>", "n".repeat(600)),
            &["a@b.example"],
        );
        check(
            "=?utf-8?q?a=0D=0AB?= <a@b.example>",
            &["\"a  B\" <a@b.example>"],
        );
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for text in [
            "a@b.example c@d.example",
            "a@b.example <c@d.example> e@f.example",
            "<a@b.example> <c@d.example>",
            "<a@b.example> x",
            "<a@b.example",
            "a@b.example>",
            "\"a@b.example",
            "(a@b.example",
            "a@b.example)",
            "Team: a@b.example",
            "a@b.example;",
            "x: y: a@b.example;;",
            "<@r.example:a@b.example>",
            "<>",
            "ana",
            "a@b.example\r\nBcc: c@d.example",
            "a\0@b.example",
        ] {
            assert!(parse_address_list(text).is_err(), "{text:?}");
        }
        // The comma decides: this is two mailboxes.
        assert_eq!(
            parse_address_list("a@b.example, <c@d.example>").map(|l| l.len()),
            Ok(2)
        );
        // The name may look like an address; the address in brackets counts.
        let list = parse_address_list("\"a@b.example\" <c@d.example>").unwrap();
        assert_eq!(list[0].address().to_string(), "c@d.example");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(\\(|\\)|<|>|\"|,|;|:|@|\\\\| |=\\?|a|é|\\PC){0,40}") {
            let _ = parse_address_list(&text);
        }

        #[test]
        fn any_mailbox_is_read_as_it_was_written(name in "[a-zé ,.<>@\"\\\\]{0,20}") {
            let address = EmailAddress::parse("a@b.example").unwrap();
            let mailbox = Mailbox::new(Some(name), address).unwrap();
            let list = parse_address_list(&mailbox.to_string());
            prop_assert_eq!(list, Ok(vec![mailbox]));
        }
    }
}
