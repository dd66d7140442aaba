//! The MIME tree of a message (RFC 2046): which parts there are, in which order, and the octets
//! between them. Text is encoded by the builder of the mail library; attachments are long, so
//! their base64 goes straight into the message.
//!
//! mixed ( alternative ( text, related ( html, inline … ) ), attachment … ), each level only where
//! it has more than one part.

use lettre::message::SinglePart;
use lettre::message::header::{ContentTransferEncoding, ContentType};

use crate::attachments::{Attachment, Disposition};
use crate::message::{Body, Message};

/// Room for the fields of one part.
const PART_FIELDS: usize = 1024;

/// A part, and what it is made of.
enum Node<'m> {
    Text(&'m str),
    Html(&'m str),
    File(&'m Attachment),
    Several(Kind, Vec<Node<'m>>),
}

/// How parts belong together.
#[derive(Clone, Copy)]
enum Kind {
    /// The same in several forms, the best one last.
    Alternative,
    /// The first one and what it shows (RFC 2387).
    Related,
    /// One after another.
    Mixed,
}

impl Kind {
    /// The value of Content-Type and the boundary. No encoded body can contain "=_" (RFC 2045
    /// section 6.7), and whoever writes a plain one cannot know the id it will get. No boundary
    /// is the beginning of another: some readers compare no further.
    fn content_type(self, digits: &str) -> (String, String) {
        let (subtype, boundary) = match self {
            Self::Alternative => ("alternative", format!("=_{digits}")),
            Self::Related => ("related", format!("=_r_{digits}")),
            Self::Mixed => ("mixed", format!("=_m_{digits}")),
        };
        let root = match self {
            Self::Related => ";\r\n type=\"text/html\"",
            Self::Alternative | Self::Mixed => "",
        };
        let value = format!("multipart/{subtype}; boundary=\"{boundary}\"{root}");
        (value, boundary)
    }
}

/// Appends the fields that describe the body, the empty line, and the body, which ends in CRLF.
/// `digits` is the message's own. Returns where the body begins.
pub(crate) fn write_entity(out: &mut Vec<u8>, message: &Message, digits: &str) -> usize {
    let tree = tree(message);
    out.reserve(estimate(message));
    write(out, &tree, digits)
}

fn tree(message: &Message) -> Node<'_> {
    let files = |related: bool| {
        let attachments = message.attachments().iter();
        let wanted = attachments.filter(move |one| one.is_related() == related);
        wanted.map(Node::File)
    };
    let html = |html| several(Kind::Related, Node::Html(html), files(true));
    let shown = match message.body() {
        Body::Text(text) => Node::Text(text),
        Body::Html(only) => html(only),
        Body::Both { text, html: rich } => {
            several(Kind::Alternative, Node::Text(text), [html(rich)])
        }
    };
    several(Kind::Mixed, shown, files(false))
}

/// The first alone when no more come.
fn several<'m>(kind: Kind, first: Node<'m>, more: impl IntoIterator<Item = Node<'m>>) -> Node<'m> {
    let mut more = more.into_iter().peekable();
    if more.peek().is_none() {
        return first;
    }
    let mut parts = vec![first];
    parts.extend(more);
    Node::Several(kind, parts)
}

fn estimate(message: &Message) -> usize {
    let attachments = message.attachments().iter();
    let files: usize = attachments
        .map(|one| one.content().lines_len() + PART_FIELDS)
        .sum();
    let texts = message.html().map_or(0, str::len) + message.text().map_or(0, str::len);
    files + texts + texts / 8 + PART_FIELDS
}

/// Writes a part. Returns where its body begins.
fn write(out: &mut Vec<u8>, node: &Node<'_>, digits: &str) -> usize {
    let start = out.len();
    match node {
        Node::Text(text) => write_text(out, ContentType::TEXT_PLAIN, text),
        Node::Html(html) => write_text(out, ContentType::TEXT_HTML, html),
        Node::File(attachment) => return write_file(out, attachment),
        Node::Several(kind, parts) => return write_parts(out, *kind, parts, digits),
    }
    let fields_len = out[start..]
        .windows(4)
        .position(|w| w == b"\r\n\r\n")
        .map_or(0, |at| at + 4);
    start + fields_len
}

/// Three levels at most, so this never goes deep.
fn write_parts(out: &mut Vec<u8>, kind: Kind, parts: &[Node<'_>], digits: &str) -> usize {
    let (content_type, boundary) = kind.content_type(digits);
    push(out, &["Content-Type: ", &content_type, "\r\n\r\n"]);
    let body = out.len();
    for part in parts {
        push(out, &["--", &boundary, "\r\n"]);
        write(out, part, digits);
    }
    push(out, &["--", &boundary, "--\r\n"]);
    body
}

fn write_file(out: &mut Vec<u8>, attachment: &Attachment) -> usize {
    let disposition = match attachment.disposition() {
        Disposition::Attachment => "attachment",
        Disposition::Inline => "inline",
    };
    let media_type = attachment.media_type().to_string();
    let file_name = attachment.file_name().to_string();
    push(out, &["Content-Type: ", &media_type, "\r\n"]);
    push(
        out,
        &["Content-Disposition: ", disposition, &file_name, "\r\n"],
    );
    if let Some(id) = attachment.content_id() {
        push(out, &["Content-ID: <", id, ">\r\n"]);
    }
    push(out, &["Content-Transfer-Encoding: base64\r\n\r\n"]);
    let body = out.len();
    attachment.content().write_lines(out);
    body
}

fn push(out: &mut Vec<u8>, pieces: &[&str]) {
    for piece in pieces {
        out.extend_from_slice(piece.as_bytes());
    }
}

fn write_text(out: &mut Vec<u8>, content_type: ContentType, text: &str) {
    let text = canonical_lines(text);
    // Without a way out in the middle this is done many octets at a time.
    let has_controls = text.bytes().fold(false, |found, b| {
        found | (b == 0x7f) | ((b < 0x20) & (b != b'\t') & (b != b'\r') & (b != b'\n'))
    });
    let builder = SinglePart::builder().header(content_type);
    let part = if has_controls {
        builder
            .header(ContentTransferEncoding::QuotedPrintable)
            .body(text)
    } else {
        builder.body(text)
    };
    out.append(&mut part.formatted());
}

/// Every line end becomes CRLF, and white space at the very end goes: signers and relays
/// disagree about trailing blank lines, so none are sent (the builder adds the last CRLF).
fn canonical_lines(text: &str) -> String {
    let text = text.trim_end_matches([' ', '\t', '\r', '\n']);
    let mut out = String::with_capacity(text.len() + text.len() / 32);
    let mut rest = text;
    while let Some(end) = memchr::memchr2(b'\r', b'\n', rest.as_bytes()) {
        let (line, ended) = rest.split_at(end);
        out.push_str(line);
        out.push_str("\r\n");
        rest = ended.strip_prefix("\r\n").unwrap_or_else(|| &ended[1..]);
    }
    out.push_str(rest);
    out
}
