//! Attachments: named octets with a media type. They arrive in base64 and leave in base64, so
//! they are checked and cut into lines, never decoded.

use std::collections::HashSet;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::handling::Errors;
use crate::media_type::{MediaType, MediaTypeError};
use crate::message::Body;
use crate::message_fields::{AttachmentRequest, FieldError};
use crate::message_limits::Limits;

/// Longest name, in octets: what file systems take.
const FILE_NAME_MAX: usize = 255;
/// Longest content id, in octets.
const CONTENT_ID_MAX: usize = 128;

/// One file that goes with a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    file_name: FileName,
    media_type: MediaType,
    content_id: Option<ContentId>,
    disposition: Disposition,
    content: Base64Text,
}

/// What readers do with an attachment (RFC 2183 section 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition {
    /// Offered as a file.
    Attachment,
    /// Shown where the text refers to it.
    Inline,
}

impl Attachment {
    /// The name readers may save it under: no path, no control characters.
    pub fn file_name(&self) -> &FileName {
        &self.file_name
    }

    /// What it is.
    pub fn media_type(&self) -> &MediaType {
        &self.media_type
    }

    /// What HTML refers to it by, without angle brackets.
    pub fn content_id(&self) -> Option<&str> {
        self.content_id.as_ref().map(|id| id.0.as_str())
    }

    /// Whether it is shown or offered.
    pub fn disposition(&self) -> Disposition {
        self.disposition
    }

    /// The octets.
    pub fn content(&self) -> &Base64Text {
        &self.content
    }

    /// Part of the HTML: shown where a `cid:` URL says.
    pub fn is_related(&self) -> bool {
        self.disposition == Disposition::Inline && self.content_id.is_some()
    }

    /// Octets on the wire, line ends left out.
    pub fn encoded_len(&self) -> usize {
        self.content.0.len()
    }

    fn parse(pointer: &str, given: AttachmentRequest) -> Result<Self, Vec<FieldError>> {
        let mut errors = Errors::default();
        let at = |field: &str| format!("{pointer}/{field}");
        let file_name = required(at("filename"), given.filename);
        let file_name = file_name.and_then(|name| FileName::parse(&at("filename"), name));
        let file_name = errors.take(file_name);
        let content = required(at("content"), given.content);
        let content = content.and_then(|text| Base64Text::parse(&at("content"), text));
        let content = errors.take(content);
        let media_type = given.content_type.as_deref().map(MediaType::parse);
        let media_type = media_type.transpose().map_err(|error| {
            let code = match error {
                MediaTypeError::Syntax => "invalid_media_type",
                MediaTypeError::Composite => "composite_media_type",
            };
            FieldError::new(at("content_type"), code, error)
        });
        let media_type = errors.take(media_type);
        let parse_id = |id: String| ContentId::parse(&at("content_id"), id);
        let content_id = errors.take(given.content_id.map(parse_id).transpose());
        let disposition = given.disposition.as_deref();
        let disposition = errors.take(parse_disposition(at("disposition"), disposition));
        match (file_name, content, media_type, content_id, disposition) {
            (Some(file_name), Some(content), Some(media_type), Some(content_id), Some(shown))
                if errors.0.is_empty() =>
            {
                let by_reference = match content_id {
                    Some(_) => Disposition::Inline,
                    None => Disposition::Attachment,
                };
                Ok(Self {
                    media_type: media_type.unwrap_or_else(|| MediaType::of_file_name(&file_name.0)),
                    file_name,
                    content_id,
                    disposition: shown.unwrap_or(by_reference),
                    content,
                })
            }
            _ => Err(errors.0),
        }
    }
}

fn required(pointer: String, text: Option<String>) -> Result<String, FieldError> {
    text.ok_or_else(|| FieldError::required(&pointer))
}

/// Absent: whoever gives a content id wants it shown, everybody else a file.
fn parse_disposition(
    pointer: String,
    text: Option<&str>,
) -> Result<Option<Disposition>, FieldError> {
    match text {
        None => Ok(None),
        Some("attachment") => Ok(Some(Disposition::Attachment)),
        Some("inline") => Ok(Some(Disposition::Inline)),
        Some(_) => {
            let detail = "must be attachment or inline";
            Err(FieldError::new(pointer, "invalid_disposition", detail))
        }
    }
}

/// Looks at every attachment of a request. `body` is what they go with, as far as it is known.
///
/// # Errors
/// All that is wrong, with pointers such as `/attachments/0/content`.
pub(crate) fn parse_attachments(
    given: Vec<AttachmentRequest>,
    body: Option<&Body>,
    limits: &Limits,
) -> Result<Vec<Attachment>, Vec<FieldError>> {
    const POINTER: &str = "/attachments";
    if given.len() > limits.attachments_max {
        return Err(vec![FieldError::too_many(POINTER, limits.attachments_max)]);
    }
    let octets = |one: &AttachmentRequest| one.content.as_ref().map_or(0, String::len);
    if given.iter().map(octets).sum::<usize>() > limits.attachments_max_octets {
        let max = limits.attachments_max_octets;
        return Err(vec![FieldError::too_long(POINTER, max)]);
    }
    let mut errors = Errors::default();
    let mut attachments = Vec::with_capacity(given.len());
    let mut content_ids = HashSet::new();
    for (index, one) in given.into_iter().enumerate() {
        let pointer = format!("{POINTER}/{index}");
        let Some(attachment) = errors.take_all(Attachment::parse(&pointer, one)) else {
            continue;
        };
        let pointer = format!("{pointer}/content_id");
        if let Some(id) = attachment.content_id()
            && !content_ids.insert(id.to_owned())
        {
            let detail = "is the content id of an earlier attachment";
            errors.push(FieldError::new(&pointer, "duplicate_content_id", detail));
        }
        if attachment.is_related() && matches!(body, Some(Body::Text(_))) {
            let detail = "there is no HTML that could refer to it";
            errors.push(FieldError::new(&pointer, "no_html", detail));
        }
        attachments.push(attachment);
    }
    if errors.0.is_empty() {
        Ok(attachments)
    } else {
        Err(errors.0)
    }
}

/// The name of a file: one to 255 octets, no path, nothing that hides or breaks a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileName(String);

impl FileName {
    fn parse(pointer: &str, text: String) -> Result<Self, FieldError> {
        if text.chars().any(char::is_control) {
            let detail = "has a control character";
            return Err(FieldError::new(pointer, "control_character", detail));
        }
        if text.len() > FILE_NAME_MAX {
            return Err(FieldError::too_long(pointer, FILE_NAME_MAX));
        }
        let is_path = text.contains(['/', '\\']) || matches!(text.as_str(), "." | "..");
        // Marks that turn the direction of text make `exe` look like `txt`.
        let deceives = |c: char| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if text.trim().is_empty() || is_path || text.contains(deceives) {
            let detail = "must be the name of a file, without folders and direction marks";
            return Err(FieldError::new(pointer, "invalid_filename", detail));
        }
        Ok(Self(text))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FileName {
    /// As parameters of Content-Disposition, each on a line of its own. A name that is not plain
    /// ASCII comes in the form of RFC 2231 section 4, and after it stands a plain one for readers
    /// that know no other. The first is never cut into sections (section 3): readers put sections
    /// and plain form together into one wrong name, and 255 octets fit a line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |c: char| matches!(c, ' '..='~') && !matches!(c, '"' | '\\');
        if self.0.chars().all(plain) && !self.0.contains("=?") {
            return write!(f, ";\r\n filename=\"{}\"", self.0);
        }
        f.write_str(";\r\n filename*=utf-8''")?;
        for byte in self.0.bytes() {
            // The attribute-char of RFC 2231, less those that readers have been seen to mistake.
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                write!(f, "{}", char::from(byte))?;
            } else {
                write!(f, "%{byte:02X}")?;
            }
        }
        let substitute = |c: char| if plain(c) && c != '=' { c } else { '_' };
        let fallback: String = self.0.chars().map(substitute).collect();
        write!(f, ";\r\n filename=\"{fallback}\"")
    }
}

/// What a `cid:` URL names (RFC 2392): printable ASCII without what would end it early. An @ is
/// not asked for, since readers do not.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ContentId(String);

impl ContentId {
    fn parse(pointer: &str, text: String) -> Result<Self, FieldError> {
        let fits = (1..=CONTENT_ID_MAX).contains(&text.len());
        let plain =
            |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&'*+-./=?@^_`{|}~".contains(&byte);
        if fits && text.bytes().all(plain) {
            return Ok(Self(text));
        }
        let detail = "must be 1 to 128 letters, digits and marks, such as logo or logo@example.com, \
                      without cid: and angle brackets";
        Err(FieldError::new(pointer, "invalid_content_id", detail))
    }
}

/// Octets in base64 (RFC 4648 section 4): padded, on one line, every bit accounted for.
#[derive(Clone, PartialEq, Eq)]
pub struct Base64Text(String);

impl Base64Text {
    /// Line length on the wire, as RFC 2045 section 6.8 wants it.
    const LINE: usize = 76;

    fn parse(pointer: &str, text: String) -> Result<Self, FieldError> {
        let whole = text.len().is_multiple_of(4);
        let (start, end) = text.as_bytes().split_at(text.len().saturating_sub(4));
        // Padding may only end the text, and bits below it must be zero: the decoder knows.
        if whole
            && start.iter().all(|byte| IS_DIGIT[usize::from(*byte)])
            && BASE64.decode(end).is_ok()
        {
            return Ok(Self(text));
        }
        let detail = "must be base64 as in RFC 4648 section 4: padded, without line breaks";
        Err(FieldError::new(pointer, "invalid_base64", detail))
    }

    /// The text, without line ends.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Octets that [`Base64Text::write_lines`] writes.
    pub(crate) fn lines_len(&self) -> usize {
        self.0.len() + 2 * self.0.len().div_ceil(Self::LINE)
    }

    /// Writes the text as the body of a part.
    pub(crate) fn write_lines(&self, out: &mut Vec<u8>) {
        for line in self.0.as_bytes().chunks(Self::LINE) {
            out.extend_from_slice(line);
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// The 64 digits; a table, because content is long.
const IS_DIGIT: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] =
            (byte as u8).is_ascii_alphanumeric() || byte == b'+' as usize || byte == b'/' as usize;
        byte += 1;
    }
    table
};

impl fmt::Debug for Base64Text {
    /// Content has no place in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Base64Text({} octets)", self.0.len())
    }
}

#[cfg(test)]
mod tests;
