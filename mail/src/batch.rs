//! Messages of one request that have fields in common: what a message leaves out comes from the
//! defaults. Looks at no field's value.

use crate::message_fields::{OneOrMany, SendRequest};

/// Fills in the fields that a message leaves out, a field as a whole; returns their names. What
/// makes the content and the variables are left alone: they are shared and not copied
/// ([`ContentFields::or`](crate::content_source::ContentFields::or),
/// [`Variables::new`](crate::variables::Variables::new)).
pub fn fill_in_absent(message: &mut SendRequest, defaults: &SendRequest) -> Vec<&'static str> {
    let mut filled = Vec::new();
    macro_rules! fill {
        ($($field:ident),+ where $absent:expr) => {$(
            if $absent(&message.$field) && !$absent(&defaults.$field) {
                message.$field = defaults.$field.clone();
                filled.push(stringify!($field));
            }
        )+};
    }
    let no_one = |list: &OneOrMany| list.as_slice().is_empty();
    fill!(from, subject, stream, pool, send_at, expires_in where Option::is_none);
    fill!(require_tls where Option::is_none);
    fill!(to, cc, bcc, reply_to where no_one);
    fill!(headers, metadata where std::collections::BTreeMap::is_empty);
    fill!(tags where Vec::is_empty);
    filled
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(json: &str) -> SendRequest {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_field_comes_whole_from_the_message_or_from_the_defaults() {
        let defaults = request(
            r#"{"from":"a@b.example","subject":"s","html":"h","headers":{"X-A":"1","X-B":"2"},
                "tags":["t"],"require_tls":true}"#,
        );
        let mut message = request(r#"{"to":"c@d.example","subject":"own","headers":{"X-A":"3"}}"#);
        let filled = fill_in_absent(&mut message, &defaults);
        assert_eq!(filled, ["from", "require_tls", "tags"]);
        assert_eq!(message.from.as_deref(), Some("a@b.example"));
        assert_eq!(message.subject.as_deref(), Some("own"));
        assert_eq!(message.headers.len(), 1);
        assert_eq!(message.html, None);
        assert_eq!(message.require_tls, Some(true));
    }

    #[test]
    fn every_field_of_a_request_is_filled_in_or_left_alone_on_purpose() {
        let full = r#"{"from":"a","to":"a","cc":"a","bcc":"a","reply_to":"a","subject":"a","html":"a",
            "text":"a","headers":{"a":"a"},"tags":["a"],"metadata":{"a":"a"},"stream":"a",
            "expires_in":"a","require_tls":true,"variables":{},"pool":"a","send_at":"a","attachments":[{}]}"#;
        let defaults = request(full);
        let mut message = SendRequest::default();
        let mut known = fill_in_absent(&mut message, &defaults);
        known.extend(["html", "text", "attachments", "variables"]);
        known.sort_unstable();
        let refusal = serde_json::from_str::<SendRequest>(r#"{"?":1}"#).unwrap_err();
        let refusal = refusal.to_string();
        let (_, list) = refusal.split_once("expected one of ").unwrap();
        let mut all: Vec<&str> = list.split('`').skip(1).step_by(2).collect();
        all.sort_unstable();
        assert_eq!(known, all);
    }
}
