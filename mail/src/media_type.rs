//! Media types of attachments (RFC 2045 section 5.1): what a sender says, or what a file's name
//! suggests. Never looks at the octets.

use std::fmt;

use thiserror::Error;

/// Longest type with its parameters, in octets.
const MEDIA_TYPE_MAX: usize = 255;
const PARAMETERS_MAX: usize = 10;

/// A media type that an attachment can have on the wire, with its parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaType {
    /// `type/subtype`, in lower case.
    essence: String,
    parameters: Vec<(String, String)>,
}

/// Why a text is no media type for an attachment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum MediaTypeError {
    /// Not `type/subtype` with `; name=value` behind it, all in printable ASCII, or too long.
    #[error("must be a media type such as application/pdf, at most 255 characters long")]
    Syntax,
    /// `multipart/*` and `message/*`: RFC 2046 sections 5.1 and 5.2.1 allow them no base64, and
    /// attachments are octets.
    #[error(
        "multipart and message types cannot be attachments, because mail may not encode them; \
         attach the file as application/octet-stream"
    )]
    Composite,
}

impl MediaType {
    /// Reads `type/subtype` and parameters, such as `text/calendar; method=REQUEST`.
    ///
    /// # Errors
    /// See [`MediaTypeError`].
    pub fn parse(text: &str) -> Result<Self, MediaTypeError> {
        let printable = text.bytes().all(|byte| matches!(byte, 32..=126));
        if text.len() > MEDIA_TYPE_MAX || !printable {
            return Err(MediaTypeError::Syntax);
        }
        let (essence, rest) = match text.split_once(';') {
            Some((essence, rest)) => (essence, Some(rest)),
            None => (text, None),
        };
        let essence = essence.trim_matches(' ').to_ascii_lowercase();
        let (kind, subtype) = essence.split_once('/').ok_or(MediaTypeError::Syntax)?;
        if !is_token(kind) || !is_token(subtype) {
            return Err(MediaTypeError::Syntax);
        }
        if matches!(kind, "multipart" | "message") {
            return Err(MediaTypeError::Composite);
        }
        let parameters = rest.map_or(Ok(Vec::new()), parse_parameters)?;
        Ok(Self {
            essence,
            parameters,
        })
    }

    /// What a file of this name usually is; `application/octet-stream` if nothing is known.
    pub fn of_file_name(name: &str) -> Self {
        let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
        let extension = extension.to_ascii_lowercase();
        let known = BY_EXTENSION
            .iter()
            .find(|(extensions, _)| extensions.split(' ').any(|known| known == extension));
        let essence = known.map_or("application/octet-stream", |(_, essence)| essence);
        // Without it a text is US-ASCII (RFC 2046 section 4.1.2), which few files are.
        let charset = ("charset".to_owned(), "utf-8".to_owned());
        Self {
            essence: essence.to_owned(),
            parameters: Vec::from_iter(essence.starts_with("text/").then_some(charset)),
        }
    }
}

/// Name and value, one after another, in any number up to [`PARAMETERS_MAX`].
fn parse_parameters(text: &str) -> Result<Vec<(String, String)>, MediaTypeError> {
    let mut parameters: Vec<(String, String)> = Vec::new();
    let mut rest = text.trim_start_matches(' ');
    while !rest.is_empty() {
        let (name, after) = rest.split_once('=').ok_or(MediaTypeError::Syntax)?;
        let name = name.trim_matches(' ').to_ascii_lowercase();
        let (value, after) = parse_value(after.trim_start_matches(' '))?;
        let is_new = parameters.iter().all(|(earlier, _)| *earlier != name);
        if !is_token(&name) || !is_new || parameters.len() == PARAMETERS_MAX {
            return Err(MediaTypeError::Syntax);
        }
        parameters.push((name, value));
        rest = match after.trim_start_matches(' ') {
            "" => "",
            more => more.strip_prefix(';').ok_or(MediaTypeError::Syntax)?,
        }
        .trim_start_matches(' ');
    }
    Ok(parameters)
}

/// A token or a quoted string, and what follows it.
fn parse_value(text: &str) -> Result<(String, &str), MediaTypeError> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([';', ' ']).unwrap_or(text.len());
        let (value, after) = text.split_at(end);
        return match is_token(value) {
            true => Ok((value.to_owned(), after)),
            false => Err(MediaTypeError::Syntax),
        };
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Ok((value, &quoted[at + 1..])),
            '\\' => value.push(characters.next().ok_or(MediaTypeError::Syntax)?.1),
            other => value.push(other),
        }
    }
    Err(MediaTypeError::Syntax)
}

/// RFC 2045 section 5.1: printable ASCII without space and tspecials.
fn is_token(text: &str) -> bool {
    let token = |byte: u8| byte.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?=".contains(&byte);
    !text.is_empty() && text.bytes().all(token)
}

impl fmt::Display for MediaType {
    /// As the value of Content-Type, each parameter on a line of its own.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.essence)?;
        for (name, value) in &self.parameters {
            write!(f, ";\r\n {name}=")?;
            if is_token(value) {
                f.write_str(value)?;
            } else {
                crate::address::write_quoted(f, value)?;
            }
        }
        Ok(())
    }
}

/// Extensions, separated by spaces, and their type in the IANA registry. No `eml`: see
/// [`MediaTypeError::Composite`].
const BY_EXTENSION: &[(&str, &str)] = &[
    ("7z", "application/x-7z-compressed"),
    ("avif", "image/avif"),
    ("bmp", "image/bmp"),
    ("css", "text/css"),
    ("csv", "text/csv"),
    ("doc", "application/msword"),
    (
        "docx",
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    ),
    ("epub", "application/epub+zip"),
    ("gif", "image/gif"),
    ("gz tgz", "application/gzip"),
    ("heic", "image/heic"),
    ("htm html", "text/html"),
    ("ico", "image/vnd.microsoft.icon"),
    ("ics", "text/calendar"),
    ("jpeg jpg", "image/jpeg"),
    ("js mjs", "text/javascript"),
    ("json", "application/json"),
    ("log txt", "text/plain"),
    ("m4a", "audio/mp4"),
    ("md", "text/markdown"),
    ("mov", "video/quicktime"),
    ("mp3", "audio/mpeg"),
    ("mp4", "video/mp4"),
    ("odp", "application/vnd.oasis.opendocument.presentation"),
    ("ods", "application/vnd.oasis.opendocument.spreadsheet"),
    ("odt", "application/vnd.oasis.opendocument.text"),
    ("ogg", "audio/ogg"),
    ("p7m", "application/pkcs7-mime"),
    ("p7s", "application/pkcs7-signature"),
    ("pdf", "application/pdf"),
    ("pkpass", "application/vnd.apple.pkpass"),
    ("png", "image/png"),
    ("ppt", "application/vnd.ms-powerpoint"),
    (
        "pptx",
        "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    ),
    ("rar", "application/vnd.rar"),
    ("rtf", "application/rtf"),
    ("svg", "image/svg+xml"),
    ("tar", "application/x-tar"),
    ("tif tiff", "image/tiff"),
    ("vcf", "text/vcard"),
    ("wav", "audio/wav"),
    ("webm", "video/webm"),
    ("webp", "image/webp"),
    ("xls", "application/vnd.ms-excel"),
    (
        "xlsx",
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    ),
    ("xml", "application/xml"),
    ("yaml yml", "application/yaml"),
    ("zip", "application/zip"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_read_with_their_parameters() {
        let check = |text: &str, written: &str| {
            assert_eq!(
                MediaType::parse(text).unwrap().to_string(),
                written,
                "{text}"
            );
        };
        check("application/pdf", "application/pdf");
        check(" Image/PNG ", "image/png");
        check(
            "text/calendar; method=REQUEST;charset=\"utf-8\"",
            "text/calendar;\r\n method=REQUEST;\r\n charset=utf-8",
        );
        check("a/b; x=\"\"", "a/b;\r\n x=\"\"");
        check("a/b; x=\"c \\\"d; e\"; ", "a/b;\r\n x=\"c \\\"d; e\"");
    }

    #[test]
    fn what_is_no_type_is_refused() {
        for bad in [
            "",
            "pdf",
            "a/",
            "/b",
            "a/b/c",
            "a b/c",
            "a/b\r\nBcc: x",
            "a/b; x",
            "a/b; =y",
            "a/b; x=",
            "a/b; x=y z",
            "a/b; x=\"y",
            "a/b; x=\"y\\",
            "a/b; x=1; X=2",
            "a/é",
            &format!("a/{}", "b".repeat(300)),
        ] {
            assert_eq!(
                MediaType::parse(bad),
                Err(MediaTypeError::Syntax),
                "{bad:?}"
            );
        }
        for composite in [
            "multipart/mixed; boundary=x",
            "message/rfc822",
            "Message/global",
        ] {
            assert_eq!(
                MediaType::parse(composite),
                Err(MediaTypeError::Composite),
                "{composite}"
            );
        }
    }

    #[test]
    fn names_suggest_types() {
        let check = |name: &str, written: &str| {
            assert_eq!(MediaType::of_file_name(name).to_string(), written, "{name}");
        };
        check("Invoice.PDF", "application/pdf");
        check("photo.jpg", "image/jpeg");
        check("notes.txt", "text/plain;\r\n charset=utf-8");
        check("forwarded.eml", "application/octet-stream");
        check("README", "application/octet-stream");
        check("archive.", "application/octet-stream");
        for (extensions, essence) in BY_EXTENSION {
            assert!(MediaType::parse(essence).is_ok(), "{extensions}");
        }
    }
}
