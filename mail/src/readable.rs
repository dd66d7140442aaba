//! A received message as a person reads it: decoded subject and names, text, HTML, attachments.
//! For looking at only: nothing here makes HTML safe, and no rule of delivery rests on it.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mail_parser::decoders::base64::base64_decode;
use mail_parser::decoders::quoted_printable::quoted_printable_decode;
use mail_parser::{Address, Encoding, Message, MessageParser, MessagePart, MimeHeaders, PartType};

/// Octets that images in the HTML may add to it; images beyond stay references.
const EMBEDDED_MAX_OCTETS: usize = 8 * 1024 * 1024;
/// Image types that are shown in place. SVG is not among them: it can hold more than an image.
const EMBEDDED_TYPES: [&str; 4] = ["image/png", "image/jpeg", "image/gif", "image/webp"];
/// Elements for which browsers open connections before they ask whether they may load anything
/// (`rel=preconnect`, frames), and names without effect in their place.
const CONNECTING: [(&str, &str); 3] = [
    ("link", "meta"),
    ("iframe", "x-iframe"),
    ("frame", "x-frame"),
];
/// Name of an attachment that brings none.
const UNNAMED: &str = "attachment";
/// Most characters of an attachment's name.
const NAME_MAX_CHARS: usize = 120;

/// What a list shows of a message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Heading {
    /// Authors, with their names; empty if the message names none.
    pub from: String,
    /// Addressees as the header names them, with their names.
    pub to: String,
    /// Decoded (RFC 2047), on one line; empty if there is none.
    pub subject: String,
}

/// A whole message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Readable {
    /// What a list shows of it.
    pub heading: Heading,
    /// The plain text to read.
    pub text: Option<String>,
    /// The HTML to read, as it came. Hostile.
    pub html: Option<String>,
    /// In the order of the message.
    pub attachments: Vec<Attachment>,
}

/// A part that is not read in place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// A file name without path, control or format characters; never empty.
    pub name: String,
    /// As the part says, in lower case: `application/pdf`.
    pub media_type: String,
    /// Decoded length.
    pub octets: usize,
}

impl Heading {
    /// Reads the header block; of a `head` that was cut off, what is there.
    pub fn parse(head: &[u8]) -> Self {
        let parsed = MessageParser::default().parse_headers(head);
        parsed.map(|message| Self::of(&message)).unwrap_or_default()
    }

    fn of(message: &Message<'_>) -> Self {
        Self {
            from: shown(message.from()),
            to: shown(message.to()),
            subject: one_line(message.subject().unwrap_or_default()),
        }
    }
}

impl Readable {
    /// Reads a message. What cannot be read is left out; nothing is refused.
    pub fn parse(raw: &[u8]) -> Self {
        let Some(message) = MessageParser::default().parse(raw) else {
            return Self::default();
        };
        let attachments = message.attachments();
        Self {
            heading: Heading::of(&message),
            text: joined(message.text_bodies(), |body| match body {
                PartType::Text(text) => Some(text),
                _ => None,
            }),
            html: joined(message.html_bodies(), |body| match body {
                PartType::Html(html) => Some(html),
                _ => None,
            }),
            attachments: attachments
                .map(|part| Attachment {
                    octets: content(part, raw).len(),
                    ..Attachment::named(part)
                })
                .collect(),
        }
    }

    /// The HTML of a message with the images it brings along (RFC 2392) put in place as `data:`
    /// addresses, and without the elements that make a browser connect to other hosts whatever the
    /// page's policy. As hostile as it came in all else.
    pub fn html_with_images(raw: &[u8]) -> Option<String> {
        let message = MessageParser::default().parse(raw)?;
        let mut html = joined(message.html_bodies(), |body| match body {
            PartType::Html(html) => Some(html),
            _ => None,
        })?;
        html = without_connections(&html);
        let mut room = EMBEDDED_MAX_OCTETS;
        for part in &message.parts {
            let (Some(id), media_type) = (part.content_id(), media_type(part)) else {
                continue;
            };
            if id.is_empty() || !EMBEDDED_TYPES.contains(&media_type.as_str()) {
                continue;
            }
            let data = STANDARD.encode(content(part, raw));
            html = embed(
                &html,
                id,
                &format!("data:{media_type};base64,{data}"),
                &mut room,
            );
        }
        Some(html)
    }

    /// The attachment at `index` of [`Readable::attachments`], and its octets.
    pub fn attachment(raw: &[u8], index: usize) -> Option<(Attachment, Vec<u8>)> {
        let message = MessageParser::default().parse(raw)?;
        let part = message.attachment(u32::try_from(index).ok()?)?;
        let content = content(part, raw).into_owned();
        let attachment = Attachment {
            octets: content.len(),
            ..Attachment::named(part)
        };
        Some((attachment, content))
    }
}

impl Attachment {
    fn named(part: &MessagePart<'_>) -> Self {
        Self {
            name: file_name(part.attachment_name().unwrap_or_default()),
            media_type: media_type(part),
            octets: 0,
        }
    }
}

/// The decoded octets of a part. Text keeps its charset, which a reader of the file expects.
fn content<'a>(part: &'a MessagePart<'_>, raw: &'a [u8]) -> Cow<'a, [u8]> {
    let range = part.offset_body as usize..part.offset_end as usize;
    let encoded = raw.get(range).unwrap_or_default();
    let decoded = match part.encoding {
        Encoding::None => return Cow::Borrowed(encoded),
        Encoding::Base64 => base64_decode(encoded),
        Encoding::QuotedPrintable => quoted_printable_decode(encoded),
    };
    decoded.map_or(Cow::Borrowed(encoded), Cow::Owned)
}

fn media_type(part: &MessagePart<'_>) -> String {
    let Some(given) = part.content_type() else {
        return "text/plain".to_owned();
    };
    let subtype = given.subtype().unwrap_or("octet-stream");
    one_line(&format!("{}/{subtype}", given.ctype()).to_ascii_lowercase())
}

fn joined<'x>(
    parts: impl Iterator<Item = &'x MessagePart<'x>>,
    pick: impl Fn(&'x PartType<'x>) -> Option<&'x Cow<'x, str>>,
) -> Option<String> {
    let texts: Vec<&str> = parts
        .filter_map(|part| pick(&part.body))
        .map(AsRef::as_ref)
        .collect();
    (!texts.is_empty()).then(|| texts.join("\n"))
}

/// Replaces `cid:ID` by the address, as often as there is room.
fn embed(html: &str, id: &str, address: &str, room: &mut usize) -> String {
    let reference = format!("cid:{id}");
    let mut result = String::with_capacity(html.len());
    let mut rest = html;
    while let Some((before, after)) = rest.split_once(&reference) {
        result.push_str(before);
        match room.checked_sub(address.len()) {
            Some(left) => {
                *room = left;
                result.push_str(address);
            }
            None => result.push_str(&reference),
        }
        rest = after;
    }
    result.push_str(rest);
    result
}

/// Renames the elements of [`CONNECTING`]. A tag begins with `<` and its name, with nothing
/// between them and no other spelling (HTML, section 13.2.5.6), so that text can be looked at.
fn without_connections(html: &str) -> String {
    let mut result = String::with_capacity(html.len());
    let mut rest = html;
    while let Some((before, tag)) = rest.split_once('<') {
        result.push_str(before);
        let starts = |name: &str| {
            let start = tag.get(..name.len());
            start.is_some_and(|start| start.eq_ignore_ascii_case(name))
        };
        let mut connecting = CONNECTING.iter();
        let (name, harmless) = connecting
            .find(|(name, _)| starts(name))
            .unwrap_or(&("", ""));
        result.push('<');
        result.push_str(harmless);
        rest = &tag[name.len()..];
    }
    result.push_str(rest);
    result
}

/// `Ana <ana@a.test>, bob@b.test`.
fn shown(addresses: Option<&Address<'_>>) -> String {
    let each = addresses.into_iter().flat_map(Address::iter);
    let each = each.map(|one| match (one.name(), one.address()) {
        (Some(name), Some(address)) => format!("{name} <{address}>"),
        (name, address) => name.or(address).unwrap_or_default().to_owned(),
    });
    one_line(&each.collect::<Vec<_>>().join(", "))
}

/// Without what could break a line, or turn the direction of the text around it.
fn one_line(text: &str) -> String {
    let mut line: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .filter(|c| !turns_text(*c))
        .collect();
    line.truncate(line.trim_end().len());
    line
}

/// A name that a file can have and that shows its ending where it is.
fn file_name(given: &str) -> String {
    let last = given.rsplit(['/', '\\']).next().unwrap_or_default();
    let safe: String = last
        .chars()
        .filter(|c| !c.is_control() && !turns_text(*c))
        .map(|c| match c {
            '"' | '<' | '>' | ':' | '|' | '?' | '*' => '_',
            c => c,
        })
        .take(NAME_MAX_CHARS)
        .collect();
    let safe = safe.trim().trim_start_matches('.');
    match safe {
        "" => UNNAMED.to_owned(),
        safe => safe.to_owned(),
    }
}

/// Marks of direction and of no width (Unicode bidirectional algorithm, explicit controls).
fn turns_text(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAIL: &str = "From: =?utf-8?q?Gr=C3=BCn?= <a@a.test>\r\nTo: b@b.test, C <c@c.test>\r\n\
        Subject: =?utf-8?b?SGkKdGhlcmU=?=\r\nMIME-Version: 1.0\r\n\
        Content-Type: multipart/mixed; boundary=m\r\n\r\n\
        --m\r\nContent-Type: multipart/alternative; boundary=a\r\n\r\n\
        --a\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nHello\r\n\
        --a\r\nContent-Type: text/html; charset=utf-8\r\n\r\n<img src=\"cid:logo\"><img src='cid:x'>\r\n--a--\r\n\
        --m\r\nContent-Type: image/png\r\nContent-ID: <logo>\r\nContent-Transfer-Encoding: base64\r\n\
        Content-Disposition: inline; filename=logo.png\r\n\r\niVBORw==\r\n\
        --m\r\nContent-Type: text/plain; charset=iso-8859-1\r\nContent-Transfer-Encoding: quoted-printable\r\n\
        Content-Disposition: attachment; filename=\"../../etc/x\u{202e}fdp.exe\"\r\n\r\nGr=FCn=\r\n!\r\n--m--\r\n";

    #[test]
    fn a_message_is_taken_apart_for_reading() {
        let mail = Readable::parse(MAIL.as_bytes());
        assert_eq!(mail.heading.from, "Grün <a@a.test>");
        assert_eq!(mail.heading.to, "b@b.test, C <c@c.test>");
        assert_eq!(mail.heading.subject, "Hi there");
        assert_eq!(mail.heading, Heading::parse(MAIL.as_bytes()));
        assert_eq!(mail.text.as_deref().map(str::trim), Some("Hello"));
        assert!(mail.html.unwrap().contains("cid:logo"));
        let last = mail.attachments.last().unwrap();
        assert_eq!(
            (last.name.as_str(), last.media_type.as_str()),
            ("xfdp.exe", "text/plain")
        );
        let index = mail.attachments.len() - 1;
        let (same, content) = Readable::attachment(MAIL.as_bytes(), index).unwrap();
        assert_eq!(&same, last);
        assert_eq!(content, b"Gr\xfcn!", "octets as they were attached");
        assert!(Readable::attachment(MAIL.as_bytes(), index + 1).is_none());
    }

    #[test]
    fn images_of_the_message_come_into_its_html_within_a_limit() {
        let html = Readable::html_with_images(MAIL.as_bytes()).unwrap();
        assert!(
            html.contains("src=\"data:image/png;base64,iVBORw==\""),
            "{html}"
        );
        assert!(html.contains("'cid:x'"), "unknown references stay: {html}");
        let mut room = 9;
        assert_eq!(
            embed("cid:a cid:a cid:a", "a", "1234", &mut room),
            "1234 1234 cid:a"
        );
        assert_eq!(room, 1);
    }

    #[test]
    fn elements_that_connect_lose_their_names() {
        let check = |html: &str, expected: &str| assert_eq!(without_connections(html), expected);
        check(
            "<p>a < b<LiNk rel=preconnect>",
            "<p>a < b<meta rel=preconnect>",
        );
        check("<<iframe src=x>é</iframe>", "<<x-iframe src=x>é</iframe>");
        check("<frameset><frame>", "<x-frameset><x-frame>");
        check("<é<lin", "<é<lin");
        check("<lin<linklink link", "<lin<metalink link");
    }

    #[test]
    fn nothing_readable_is_no_failure() {
        for raw in [
            "",
            "\r\n",
            "no header",
            "\0\u{1}",
            "Subject:\r\n\r\n",
            "From: <<<\r\nTo: ,;:\r\n\r\nx",
        ] {
            let mail = Readable::parse(raw.as_bytes());
            assert_eq!(mail.heading.subject, "", "{raw:?}");
            assert!(
                Readable::html_with_images(raw.as_bytes()).is_none(),
                "{raw:?}"
            );
        }
    }

    #[test]
    fn names_of_files_are_tame() {
        let check =
            |given: &str, expected: &str| assert_eq!(file_name(given), expected, "{given:?}");
        check("a.pdf", "a.pdf");
        check("C:\\dir\\a.pdf", "a.pdf");
        check("a\"; x=\r\nSet-Cookie: a.pdf", "a_; x=Set-Cookie_ a.pdf");
        check("..", UNNAMED);
        check("", UNNAMED);
        check(" .htaccess", "htaccess");
        check(&"é".repeat(300), &"é".repeat(NAME_MAX_CHARS));
    }
}
