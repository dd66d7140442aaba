//! The send request as the published document shows it. Never read from a request: that is
//! `mail`'s part, and a test holds the two together.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

/// A message to send. `from`, at least one of `to`, `cc` and `bcc`, `subject`, and at least one
/// of `html` and `text` are needed; unknown fields are refused.
#[derive(Serialize, ToSchema)]
#[schema(as = EmailRequest, example = json!({
    "from": "Acme <hello@acme.test>",
    "to": ["Ana <ana@example.com>"],
    "subject": "Your receipt",
    "html": "<p>Thank you.</p>",
    "text": "Thank you.",
    "tags": ["receipt"],
    "metadata": {"order": "7"}
}))]
pub(crate) struct EmailRequestSchema {
    /// One mailbox, `Name <address>` or an address, of a verified domain of the account.
    from: String,
    /// Recipients that everybody sees.
    #[schema(nullable = false)]
    to: Option<OneOrManySchema>,
    /// Further recipients that everybody sees.
    #[schema(nullable = false)]
    cc: Option<OneOrManySchema>,
    /// Recipients that nobody sees.
    #[schema(nullable = false)]
    bcc: Option<OneOrManySchema>,
    /// Where answers go, if not to `from`.
    #[schema(nullable = false)]
    reply_to: Option<OneOrManySchema>,
    /// One line.
    subject: String,
    /// The body as HTML.
    html: Option<String>,
    /// The body as plain text. Derived from `html` when it is left out; null: there shall be none.
    text: Option<String>,
    /// Header fields of your own, such as `X-Order`.
    #[schema(nullable = false)]
    headers: Option<BTreeMap<String, String>>,
    /// Files that go with it, 50 at most.
    #[schema(nullable = false)]
    attachments: Option<Vec<AttachmentSchema>>,
    /// Words to find and count messages by; they come back on every event.
    #[schema(nullable = false)]
    tags: Option<Vec<String>>,
    /// Your own keys and values; they come back on every event.
    #[schema(nullable = false)]
    metadata: Option<BTreeMap<String, String>>,
    /// Name of the stream.
    #[schema(default = "transactional")]
    stream: Option<String>,
    /// Name or id of the pool to send from.
    pool: Option<String>,
    /// When to send, at most 30 days ahead; a time that is over means now.
    #[schema(format = DateTime, example = "2026-11-23T09:00:00Z")]
    send_at: Option<String>,
    /// How long to try, from `send_at` on: a whole number and one of s, m, h, d.
    #[schema(example = "4h", pattern = "^[0-9]+[smhd]$")]
    expires_in: Option<String>,
    /// Deliver over authenticated TLS or not at all.
    #[schema(default = false)]
    require_tls: Option<bool>,
    /// Values for `{{ name }}` in `subject`, `html`, `text` and the values of `headers`, which are
    /// templates in the syntax of MiniJinja when this is given (`{}` counts) and plain text when it
    /// is not. Values are escaped in `html`. A variable that is not given is an error. In a batch
    /// the `variables` of one message, or of the defaults, make all of its messages templates.
    #[schema(value_type = Option<HashMap<String, serde_json::Value>>, example = json!({"name": "Ana"}))]
    variables: Option<serde_json::Map<String, serde_json::Value>>,
}

/// A file that goes with the message.
#[derive(Serialize, ToSchema)]
#[schema(as = Attachment)]
struct AttachmentSchema {
    /// Name of the file, without folders.
    #[schema(example = "invoice.pdf")]
    filename: String,
    /// The octets in base64 (RFC 4648 section 4), padded and without line breaks.
    #[schema(format = Byte, example = "JVBERi0=")]
    content: String,
    /// Derived from the name when it is left out. No `multipart` and no `message` type: mail may
    /// not encode those; attach such a file as `application/octet-stream`.
    #[schema(example = "application/pdf")]
    content_type: Option<String>,
    /// What the HTML refers to it by, as `cid:logo`.
    #[schema(example = "logo")]
    content_id: Option<String>,
    /// `attachment` or `inline`; inline when there is a content id.
    #[schema(pattern = "^(attachment|inline)$")]
    disposition: Option<String>,
}

/// A list, or its single member.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = OneOrMany)]
#[expect(dead_code, reason = "a shape for the document: no value is ever made")]
enum OneOrManySchema {
    One(String),
    Many(Vec<String>),
}

#[cfg(test)]
mod tests {
    use mail::message_fields::{AttachmentRequest, SendRequest};
    use utoipa::PartialSchema;
    use utoipa::openapi::RefOr;
    use utoipa::openapi::schema::Schema;

    use super::*;

    #[test]
    fn null_is_taken_where_the_document_says_so() {
        let json = serde_json::to_value(EmailRequestSchema::schema()).unwrap();
        for (name, property) in json["properties"].as_object().unwrap() {
            let shown = property.to_string().contains("\"null\"");
            let read =
                serde_json::from_str::<SendRequest>(&format!(r#"{{"{name}":null}}"#)).is_ok();
            // A missing `from` or `subject` reads like null, and is refused with the other fields.
            let needed = name == "from" || name == "subject";
            assert_eq!(shown, read && !needed, "{name}");
        }
    }

    #[test]
    fn the_document_names_the_fields_that_are_read() {
        let refusal = serde_json::from_str::<SendRequest>(r#"{"?":1}"#);
        check_names(refusal.unwrap_err(), EmailRequestSchema::schema());
        let refusal = serde_json::from_str::<AttachmentRequest>(r#"{"?":1}"#);
        check_names(refusal.unwrap_err(), AttachmentSchema::schema());
    }

    fn check_names(refusal: serde_json::Error, schema: RefOr<Schema>) {
        let refusal = refusal.to_string();
        let (_, list) = refusal.split_once("expected one of ").unwrap();
        let mut read: Vec<&str> = list.split('`').skip(1).step_by(2).collect();
        read.sort_unstable();
        let RefOr::T(Schema::Object(schema)) = schema else {
            panic!("the request is no object");
        };
        let mut shown: Vec<&str> = schema.properties.keys().map(String::as_str).collect();
        shown.sort_unstable();
        assert_eq!(shown, read);
    }
}
