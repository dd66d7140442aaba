//! What stands beside a finished message: the query and two headers. Reads their names and shapes;
//! what the values mean is `mail`'s part.

use std::collections::BTreeMap;

use axum::http::{HeaderMap, HeaderName};
use mail::handling::HandlingFields;
use mail::message_fields::{FieldError, bounded};
use mail::raw::RawFields;
use serde::Deserialize;
use url::form_urlencoded;
use utoipa::IntoParams;

use crate::query_address::{list_with_plus, with_plus};

const FROM_HEADER: HeaderName = HeaderName::from_static("x-postrider-from");
const TO_HEADER: HeaderName = HeaderName::from_static("x-postrider-to");
/// Parameters that are looked at; more are too many for any request that is right.
const PARAMETERS_MAX: usize = 1_200;

/// The parameters, as they came.
#[derive(Default, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct RawParameters {
    /// The envelope's sender, if it is not the author. Its domain must be verified too; bounces go
    /// to the platform all the same. Also as the header `X-Postrider-From`.
    #[param(nullable = false)]
    from: Option<String>,
    /// Recipients, repeated or with commas; those in To, Cc and Bcc of the message if left out.
    /// Also as the header `X-Postrider-To`. A `+` within an address may stand as it is; before one it
    /// is `%2B`.
    #[param(required = false)]
    to: Vec<String>,
    /// A word to find and count the message by; may be repeated.
    #[param(required = false)]
    tag: Vec<String>,
    /// A JSON object of strings.
    #[param(value_type = Option<String>, nullable = false, example = "{\"order\":\"7\"}")]
    metadata: BTreeMap<String, String>,
    /// Name of the stream.
    #[param(nullable = false)]
    stream: Option<String>,
    /// Name or id of the pool to send from.
    #[param(nullable = false)]
    pool: Option<String>,
    /// When to send, at most 30 days ahead; a time that is over means now.
    #[param(nullable = false, format = DateTime)]
    send_at: Option<String>,
    /// How long to try, from `send_at` on: a whole number and one of s, m, h, d.
    #[param(nullable = false, example = "4h")]
    expires_in: Option<String>,
    /// Deliver over authenticated TLS or not at all.
    #[param(nullable = false)]
    require_tls: Option<bool>,
}

impl RawParameters {
    /// Reads the query and the headers.
    ///
    /// # Errors
    /// All that is unknown, given twice, or of the wrong shape.
    pub(crate) fn parse(query: &str, headers: &HeaderMap) -> Result<Self, Vec<FieldError>> {
        let mut parameters = Self::default();
        let mut errors = Vec::new();
        for (name, value) in form_urlencoded::parse(query.as_bytes()).take(PARAMETERS_MAX) {
            errors.extend(parameters.set(&name, value.into_owned()).err());
        }
        for (header, name) in [(FROM_HEADER, "from"), (TO_HEADER, "to")] {
            for value in headers.get_all(header) {
                match std::str::from_utf8(value.as_bytes()) {
                    Ok(text) if name == "to" => parameters.to.push(text.to_owned()),
                    Ok(text) if parameters.from.is_none() => {
                        parameters.from = Some(text.to_owned())
                    }
                    Ok(_) => errors.push(twice(name)),
                    Err(_) => {
                        let pointer = format!("/{name}");
                        errors.push(FieldError::new(pointer, "invalid_address", "is not UTF-8"));
                    }
                }
            }
        }
        if errors.is_empty() {
            Ok(parameters)
        } else {
            Err(errors)
        }
    }

    fn set(&mut self, name: &str, mut value: String) -> Result<(), FieldError> {
        if name == "from" {
            value = with_plus(&value).into_owned();
        }
        let place = match name {
            "to" => {
                self.to.push(list_with_plus(&value));
                return Ok(());
            }
            "tag" => {
                self.tag.push(value);
                return Ok(());
            }
            "metadata" if self.metadata.is_empty() => {
                self.metadata = parse_metadata(&value)?;
                return Ok(());
            }
            "require_tls" if self.require_tls.is_none() => {
                self.require_tls = Some(parse_flag(&value)?);
                return Ok(());
            }
            "metadata" | "require_tls" => return Err(twice(name)),
            "from" => &mut self.from,
            "stream" => &mut self.stream,
            "pool" => &mut self.pool,
            "send_at" => &mut self.send_at,
            "expires_in" => &mut self.expires_in,
            _ => return Err(unknown(name)),
        };
        match place.replace(value) {
            None => Ok(()),
            Some(_) => Err(twice(name)),
        }
    }

    /// The fields that `mail` looks at.
    pub(crate) fn fields(&self) -> RawFields<'_> {
        RawFields {
            from: self.from.as_deref(),
            to: &self.to,
            handling: HandlingFields {
                tags: &self.tag,
                metadata: &self.metadata,
                stream: self.stream.as_deref(),
                pool: self.pool.as_deref(),
                send_at: self.send_at.as_deref(),
                expires_in: self.expires_in.as_deref(),
                require_tls: self.require_tls.unwrap_or(false),
            },
        }
    }
}

fn twice(name: &str) -> FieldError {
    FieldError::new(
        format!("/{name}"),
        "duplicate_field",
        "is given more than once",
    )
}

fn unknown(name: &str) -> FieldError {
    let shown: String = name.chars().take(100).collect();
    let pointer = format!("/{}", shown.replace('~', "~0").replace('/', "~1"));
    FieldError::new(pointer, "unknown_field", "is no parameter of this request")
}

fn parse_flag(text: &str) -> Result<bool, FieldError> {
    let detail = "must be true or false";
    text.parse()
        .map_err(|_| FieldError::new("/require_tls", "invalid_type", detail))
}

fn parse_metadata(text: &str) -> Result<BTreeMap<String, String>, FieldError> {
    #[derive(Deserialize)]
    struct Metadata(#[serde(deserialize_with = "bounded::map::<_, 200>")] BTreeMap<String, String>);
    serde_json::from_str(text)
        .map(|Metadata(map)| map)
        .map_err(|_| {
            let detail = "must be a JSON object of strings";
            FieldError::new("/metadata", "invalid_type", detail)
        })
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn query_and_headers_are_read_together() {
        let mut headers = HeaderMap::new();
        headers.insert(FROM_HEADER, HeaderValue::from_static("b@acme.test"));
        headers.append(TO_HEADER, HeaderValue::from_static("c@d.example"));
        let query = "to=a+1%40b.example&to=x@y.example,+z%2B2@y.example&tag=one&tag=two+words&\
                     metadata=%7B%22k%22%3A%22v%22%7D&require_tls=true&expires_in=4h";
        let parameters = RawParameters::parse(query, &headers).unwrap();
        let fields = parameters.fields();
        assert_eq!(fields.from, Some("b@acme.test"));
        assert_eq!(
            fields.to,
            ["a+1@b.example", "x@y.example,z+2@y.example", "c@d.example"]
        );
        assert_eq!(fields.handling.tags, ["one", "two words"]);
        assert_eq!(fields.handling.metadata["k"], "v");
        assert!(fields.handling.require_tls);
    }

    #[test]
    fn all_that_is_wrong_is_told_with_a_pointer() {
        let mut headers = HeaderMap::new();
        headers.insert(FROM_HEADER, HeaderValue::from_static("b@acme.test"));
        headers.insert(
            TO_HEADER,
            HeaderValue::from_bytes(b"\xff@d.example").unwrap(),
        );
        let query = "from=a&stream=a&stream=b&metadata=%5B%5D&require_tls=yes&form=x&a/b~c";
        let errors = RawParameters::parse(query, &headers).err().unwrap();
        let found: Vec<(&str, &str)> = errors
            .iter()
            .map(|e| (e.pointer.as_str(), e.code))
            .collect();
        let expected = [
            ("/stream", "duplicate_field"),
            ("/metadata", "invalid_type"),
            ("/require_tls", "invalid_type"),
            ("/form", "unknown_field"),
            ("/a~1b~0c", "unknown_field"),
            ("/from", "duplicate_field"),
            ("/to", "invalid_address"),
        ];
        assert_eq!(found, expected);
    }
}
