//! The stored octets of a message taken apart for a person to read: header fields, HTML, text, and
//! what is attached. For showing only: nothing that is sent goes through here.

use mail_parser::{MessageParser, MessagePart, MimeHeaders, PartType};

/// A message in parts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContentParts {
    /// Name and unfolded value (RFC 5322 section 2.2.3), in their order; encoded words stay encoded.
    pub headers: Vec<(String, String)>,
    /// The parts shown as HTML, one after another.
    pub html: Option<String>,
    /// The parts shown as plain text, one after another.
    pub text: Option<String>,
    /// What is attached or embedded, in order.
    pub attachments: Vec<AttachmentInfo>,
}

/// One attachment, without its octets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachmentInfo {
    /// As the sender named it.
    pub filename: Option<String>,
    /// Type and subtype, in lower case.
    pub content_type: String,
    /// What HTML refers to it by, without angle brackets.
    pub content_id: Option<String>,
    /// Octets once decoded.
    pub octets: usize,
}

impl ContentParts {
    /// Takes a message apart. What cannot be understood is shown as nothing.
    pub fn parse(raw: &[u8]) -> Self {
        let Some(message) = MessageParser::default().parse(raw) else {
            return Self::default();
        };
        let part = |id: &u32| message.parts.get(*id as usize);
        // An alternative in one form only stands in both lists.
        let html = message.html_body.iter().filter_map(part);
        let html = joined(html.filter_map(|part| match &part.body {
            PartType::Html(html) => Some(html.as_ref()),
            _ => None,
        }));
        let text = message.text_body.iter().filter_map(part);
        let text = joined(text.filter_map(|part| match &part.body {
            PartType::Text(text) => Some(text.as_ref()),
            _ => None,
        }));
        let headers = message
            .headers_raw()
            .map(|(name, value)| (name.to_owned(), unfolded(value)));
        Self {
            headers: headers.collect(),
            html,
            text,
            attachments: message.attachments().map(attachment).collect(),
        }
    }
}

fn joined<'a>(texts: impl Iterator<Item = &'a str>) -> Option<String> {
    let texts: Vec<&str> = texts.collect();
    (!texts.is_empty()).then(|| texts.join("\n"))
}

fn unfolded(value: &str) -> String {
    value.replace(['\r', '\n'], "").trim().to_owned()
}

fn attachment(part: &MessagePart<'_>) -> AttachmentInfo {
    let content_type = part.content_type().map(|kind| match kind.subtype() {
        Some(subtype) => format!("{}/{subtype}", kind.ctype()),
        None => kind.ctype().to_owned(),
    });
    // RFC 2045 section 5.2.
    let content_type = content_type.unwrap_or_else(|| "text/plain".to_owned());
    AttachmentInfo {
        filename: part.attachment_name().map(str::to_owned),
        content_type: content_type.to_ascii_lowercase(),
        content_id: part.content_id().map(str::to_owned),
        octets: part.contents().len(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_message_is_taken_apart() {
        let raw = b"From: a@b.test\r\nSubject: Hi\r\n there\r\nMIME-Version: 1.0\r\n\
            Content-Type: multipart/mixed; boundary=m\r\n\r\n\
            --m\r\nContent-Type: multipart/alternative; boundary=a\r\n\r\n\
            --a\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nCaf=C3=A9\r\n\
            --a\r\nContent-Type: text/html\r\n\r\n<p>x</p>\r\n--a--\r\n\
            --m\r\nContent-Type: Application/PDF; name=\"a.pdf\"\r\nContent-Disposition: attachment; filename=\"b.pdf\"\r\n\
            Content-ID: <logo>\r\nContent-Transfer-Encoding: base64\r\n\r\nQUJD\r\n--m--\r\n";
        let parts = ContentParts::parse(raw);
        assert_eq!(
            parts.headers[1],
            ("Subject".to_owned(), "Hi there".to_owned())
        );
        assert_eq!(parts.text.as_deref(), Some("Café"));
        assert_eq!(parts.html.as_deref(), Some("<p>x</p>"));
        let expected = AttachmentInfo {
            filename: Some("b.pdf".into()),
            content_type: "application/pdf".into(),
            content_id: Some("logo".into()),
            octets: 3,
        };
        assert_eq!(parts.attachments, [expected]);
    }

    #[test]
    fn one_form_is_not_shown_as_the_other() {
        let parts =
            ContentParts::parse(b"Subject: x\r\nContent-Type: text/html\r\n\r\n<b>x</b>\r\n");
        assert_eq!(parts.text, None);
        assert_eq!(parts.html.as_deref().map(str::trim_end), Some("<b>x</b>"));
        let parts = ContentParts::parse(b"Subject: x\r\n\r\nplain\r\n");
        assert_eq!(parts.html, None);
        assert_eq!(parts.text.as_deref().map(str::trim_end), Some("plain"));
        assert_eq!(ContentParts::parse(b""), ContentParts::default());
    }

    proptest! {
        #[test]
        fn any_octets_are_taken_apart_or_left(raw in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = ContentParts::parse(&raw);
        }
    }
}
