//! The fields of a send request as they arrive, and the rules of the single field.
//! Puts no fields together: that is `message`'s part.

pub mod bounded;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::header::HeaderError;
use crate::mailbox::{Mailbox, MailboxError};
use crate::text::{DbText, TextError};

/// The JSON body of one send, before any rule was looked at.
///
/// An unknown field, or one given twice, is an error of serde that names the field. In the maps
/// `headers` and `metadata` the last of two equal keys counts. Lists and maps far beyond every
/// limit are errors of serde too, which begin with [`bounded::TOO_MANY`].
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SendRequest {
    /// One mailbox.
    pub from: Option<String>,
    /// Mailboxes shown as To.
    #[serde(default)]
    pub to: OneOrMany,
    /// Mailboxes shown as Cc.
    #[serde(default)]
    pub cc: OneOrMany,
    /// Mailboxes that no header shows.
    #[serde(default)]
    pub bcc: OneOrMany,
    /// Where answers go.
    #[serde(default)]
    pub reply_to: OneOrMany,
    /// Subject, unencoded.
    pub subject: Option<String>,
    /// HTML body.
    pub html: Option<String>,
    /// Plain text body.
    #[serde(default)]
    pub text: GivenText,
    /// Further header fields.
    #[serde(default, deserialize_with = "bounded::map::<_, 500>")]
    pub headers: BTreeMap<String, String>,
    /// Files that go with it.
    #[serde(default, deserialize_with = "bounded::items::<_, _, 200>")]
    pub attachments: Vec<AttachmentRequest>,
    /// Words to find and count the message by.
    #[serde(default, deserialize_with = "bounded::list::<_, 100>")]
    pub tags: Vec<String>,
    /// The sender's own keys and values, given back on every event.
    #[serde(default, deserialize_with = "bounded::map::<_, 200>")]
    pub metadata: BTreeMap<String, String>,
    /// Name of the stream.
    pub stream: Option<String>,
    /// Name or id of the pool.
    pub pool: Option<String>,
    /// When to send, as RFC 3339 writes it.
    pub send_at: Option<String>,
    /// How long to try, such as `4h`.
    pub expires_in: Option<String>,
    /// Deliver over authenticated TLS or not at all.
    pub require_tls: Option<bool>,
    /// Values for the template that subject, html, text and headers are when this is given: an
    /// object, read by [`variables`](crate::variables).
    pub variables: Option<Box<RawValue>>,
}

/// One file to attach, before any rule was looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AttachmentRequest {
    /// What readers may save it as.
    pub filename: Option<String>,
    /// The octets, in base64.
    pub content: Option<String>,
    /// Media type; derived from the name when absent.
    pub content_type: Option<String>,
    /// What HTML refers to it by, as `cid:…`.
    pub content_id: Option<String>,
    /// `attachment` or `inline`.
    pub disposition: Option<String>,
}

/// A text that may be left out, which is not the same as refusing one with null.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub enum GivenText {
    /// Left out: one may be made.
    #[default]
    Absent,
    /// Null: there shall be none.
    Refused,
    /// This text.
    Given(String),
}

impl GivenText {
    /// Whether nothing is said of it.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }

    /// The text that was given.
    pub fn as_deref(&self) -> Option<&str> {
        match self {
            Self::Given(text) => Some(text),
            Self::Absent | Self::Refused => None,
        }
    }

    /// The text that was given.
    pub fn into_option(self) -> Option<String> {
        match self {
            Self::Given(text) => Some(text),
            Self::Absent | Self::Refused => None,
        }
    }
}

impl Serialize for GivenText {
    /// To be left out where it is absent.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.as_deref().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for GivenText {
    /// Asked only where the field is there.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        Ok(text.map_or(Self::Refused, Self::Given))
    }
}

/// A list that may also be written as its single member.
#[derive(Debug, Clone)]
pub enum OneOrMany {
    /// `"a@b.example"`
    One(String),
    /// `["a@b.example", "c@d.example"]`
    Many(Vec<String>),
}

impl OneOrMany {
    /// The members.
    pub fn as_slice(&self) -> &[String] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }
}

impl Default for OneOrMany {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

/// One thing wrong with one field of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// JSON pointer to the field (RFC 6901), such as `/to/0`.
    pub pointer: String,
    /// Stable word in snake_case, for programs.
    pub code: &'static str,
    /// A sentence for people. Never repeats the value.
    pub detail: String,
}

impl FieldError {
    /// An error at a pointer that is already escaped.
    pub fn new(pointer: impl Into<String>, code: &'static str, detail: impl fmt::Display) -> Self {
        Self {
            pointer: pointer.into(),
            code,
            detail: detail.to_string(),
        }
    }

    /// Whether it is about filling in, and not about what came out.
    pub fn is_of_template(&self) -> bool {
        self.code == "undefined_variable" || self.code.starts_with("template_")
    }

    pub(crate) fn required(pointer: &str) -> Self {
        Self::new(pointer, "required", "is required")
    }

    pub(crate) fn too_many(pointer: &str, max: usize) -> Self {
        Self::new(pointer, "too_many", format!("at most {max} are allowed"))
    }

    pub(crate) fn too_long(pointer: &str, max_octets: usize) -> Self {
        Self::new(pointer, "too_long", TextError::TooLong { max_octets })
    }
}

/// Pointer to the member of an object, escaped as RFC 6901 section 3 wants it. Only the start of
/// an overlong key is shown: an answer need not be as long as the question.
pub(crate) fn member(object: &str, key: &str) -> String {
    let shown: String = key.chars().take(100).collect();
    format!("{object}/{}", shown.replace('~', "~0").replace('/', "~1"))
}

/// The name of a stream: 1 to 64 of `a-z 0-9 _ -`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamName(String);

impl StreamName {
    /// Takes the name as it is; `None` when it is not one.
    pub fn parse(text: &str) -> Option<Self> {
        let allowed =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte);
        let fits = (1..=64).contains(&text.len()) && text.bytes().all(allowed);
        fits.then(|| Self(text.to_owned()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Reads `90s`, `30m`, `4h` or `2d`: one whole number and one unit.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let unit_at = text.len().checked_sub(1)?;
    let (number, unit) = text.split_at_checked(unit_at)?;
    let unit_secs = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return None,
    };
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    number
        .parse::<u64>()
        .ok()?
        .checked_mul(unit_secs)
        .map(Duration::from_secs)
}

pub(crate) fn parse_mailbox(pointer: &str, text: &str) -> Result<Mailbox, FieldError> {
    Mailbox::parse(text).map_err(|error| {
        let code = match error {
            MailboxError::Address(_) => "invalid_address",
            MailboxError::Control => "control_character",
            _ => "invalid_mailbox",
        };
        FieldError::new(pointer, code, error)
    })
}

/// Text for the database that also stays on one line: no control characters at all.
pub(crate) fn parse_line(
    pointer: &str,
    text: &str,
    max_octets: usize,
) -> Result<DbText, FieldError> {
    if text.chars().any(char::is_control) {
        return Err(FieldError::new(
            pointer,
            "control_character",
            "has a control character",
        ));
    }
    parse_text(pointer, text, max_octets)
}

pub(crate) fn parse_text(
    pointer: &str,
    text: &str,
    max_octets: usize,
) -> Result<DbText, FieldError> {
    DbText::parse(text, max_octets).map_err(|error| match error {
        TextError::Nul => FieldError::new(pointer, "control_character", error),
        TextError::TooLong { .. } => FieldError::new(pointer, "too_long", error),
    })
}

pub(crate) fn header_error(pointer: String, error: HeaderError) -> FieldError {
    let code = match error {
        HeaderError::NameSyntax => "invalid_header_name",
        HeaderError::Reserved => "reserved_header",
        HeaderError::ValueControl => "control_character",
        HeaderError::ValueTooLong | HeaderError::WordTooLong => "too_long",
    };
    FieldError::new(pointer, code, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_a_number_and_a_unit() {
        let check = |text: &str, secs: Option<u64>| {
            assert_eq!(
                parse_duration(text),
                secs.map(Duration::from_secs),
                "{text}"
            );
        };
        check("90s", Some(90));
        check("30m", Some(1_800));
        check("4h", Some(14_400));
        check("2d", Some(172_800));
        for bad in [
            "",
            "h",
            "4",
            "4 h",
            "-4h",
            "+4h",
            "4H",
            "1.5h",
            "4hé",
            "99999999999999999999d",
        ] {
            check(bad, None);
        }
        check("9999999999999999999d", None);
    }

    #[test]
    fn stream_names_are_plain_words() {
        assert!(StreamName::parse("transactional").is_some());
        for bad in ["", "News", "a b", "a/b", &"a".repeat(65)] {
            assert!(StreamName::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn keys_in_pointers_are_escaped() {
        assert_eq!(member("/headers", "a/b~c"), "/headers/a~1b~0c");
    }

    #[test]
    fn unknown_and_doubled_fields_are_named() {
        let refusal = |json| {
            serde_json::from_str::<SendRequest>(json)
                .unwrap_err()
                .to_string()
        };
        let check = |json, part: &str| assert!(refusal(json).contains(part), "{json}");
        check(r#"{"form":"a@b.example"}"#, "unknown field `form`");
        check(
            r#"{"to":"a@b.example","to":"c@d.example"}"#,
            "duplicate field `to`",
        );
        check(r#"{"to":7}"#, "a string or an array of strings");
    }
}
