//! How a message is to be handled: when, over what, how long, and what to find it by. The same for
//! a message we compose and for one that came finished.
//! Knows no account: whether stream and pool exist is asked elsewhere.

use std::collections::BTreeMap;
use std::time::Duration;

use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, UtcOffset};

use crate::ids::PoolId;
use crate::message_fields::{
    FieldError, StreamName, member, parse_duration, parse_line, parse_text,
};
use crate::message_limits::Limits;
use crate::text::DbText;

/// Longest name of a pool, in octets.
const POOL_NAME_MAX: usize = 100;

/// How one message is to be handled.
#[derive(Debug, Clone, Default)]
pub struct Handling {
    tags: Vec<DbText>,
    metadata: BTreeMap<DbText, DbText>,
    stream: Option<StreamName>,
    pool: Option<PoolRef>,
    send_at: Option<OffsetDateTime>,
    expires_in: Option<Duration>,
    require_tls: bool,
}

/// A pool as a request names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PoolRef {
    /// By its id, `pool_…`.
    Id(PoolId),
    /// By its name.
    Name(DbText),
}

/// The fields of a request that say how it is to be handled, before any rule was looked at.
#[derive(Debug, Clone, Copy)]
pub struct HandlingFields<'a> {
    /// Words to find and count the message by.
    pub tags: &'a [String],
    /// The sender's own keys and values.
    pub metadata: &'a BTreeMap<String, String>,
    /// Name of the stream.
    pub stream: Option<&'a str>,
    /// Name or id of the pool.
    pub pool: Option<&'a str>,
    /// RFC 3339.
    pub send_at: Option<&'a str>,
    /// Such as `4h`.
    pub expires_in: Option<&'a str>,
    /// Deliver over authenticated TLS or not at all.
    pub require_tls: bool,
}

impl Handling {
    /// Looks at every field.
    ///
    /// # Errors
    /// All that is wrong, in the order of the fields; never an empty list.
    pub fn parse(fields: HandlingFields<'_>, limits: &Limits) -> Result<Self, Vec<FieldError>> {
        let mut errors = Errors::default();
        let tags = parse_tags(fields.tags, limits, &mut errors);
        let metadata = parse_metadata(fields.metadata, limits, &mut errors);
        let stream = errors.take(fields.stream.map(parse_stream).transpose());
        let pool = errors.take(fields.pool.map(parse_pool).transpose());
        let send_at = errors.take(fields.send_at.map(parse_send_at).transpose());
        let expires_in = fields.expires_in.map(|text| parse_expires_in(text, limits));
        let expires_in = errors.take(expires_in.transpose());
        match (stream, pool, send_at, expires_in) {
            (Some(stream), Some(pool), Some(send_at), Some(expires_in)) if errors.0.is_empty() => {
                Ok(Self {
                    tags,
                    metadata,
                    stream,
                    pool,
                    send_at,
                    expires_in,
                    require_tls: fields.require_tls,
                })
            }
            _ => Err(errors.0),
        }
    }

    /// Tags, as given.
    pub fn tags(&self) -> &[DbText] {
        &self.tags
    }

    /// Metadata; never copied into a header.
    pub fn metadata(&self) -> &BTreeMap<DbText, DbText> {
        &self.metadata
    }

    /// The stream, if one was named.
    pub fn stream(&self) -> Option<&StreamName> {
        self.stream.as_ref()
    }

    /// The pool, if one was named.
    pub fn pool(&self) -> Option<&PoolRef> {
        self.pool.as_ref()
    }

    /// When to send, as given; [`Handling::due_at`] says what it means.
    pub fn send_at(&self) -> Option<OffsetDateTime> {
        self.send_at
    }

    /// When the message is due: `now`, unless it was asked for later.
    ///
    /// # Errors
    /// It was asked for a time too far ahead.
    pub fn due_at(
        &self,
        now: OffsetDateTime,
        limits: &Limits,
    ) -> Result<OffsetDateTime, FieldError> {
        let due_at = self.send_at.map_or(now, |send_at| send_at.max(now));
        if due_at - now > limits.send_ahead_max {
            let days = limits.send_ahead_max.as_secs() / 86_400;
            let detail = format!("may be at most {days} days ahead");
            return Err(FieldError::new("/send_at", "out_of_range", detail));
        }
        Ok(due_at)
    }

    /// How long to try, if the sender said.
    pub fn expires_in(&self) -> Option<Duration> {
        self.expires_in
    }

    /// Whether clear text and unauthenticated TLS are ruled out.
    pub fn require_tls(&self) -> bool {
        self.require_tls
    }
}

/// Collects errors so that parsing can go on after the first.
#[derive(Debug, Default)]
pub(crate) struct Errors(pub(crate) Vec<FieldError>);

impl Errors {
    pub(crate) fn push(&mut self, error: FieldError) {
        self.0.push(error);
    }

    pub(crate) fn take<T>(&mut self, result: Result<T, FieldError>) -> Option<T> {
        result.map_err(|error| self.push(error)).ok()
    }

    pub(crate) fn take_all<T>(&mut self, result: Result<T, Vec<FieldError>>) -> Option<T> {
        result.map_err(|errors| self.0.extend(errors)).ok()
    }
}

fn parse_tags(given: &[String], limits: &Limits, errors: &mut Errors) -> Vec<DbText> {
    if given.len() > limits.tags_max {
        errors.push(FieldError::too_many("/tags", limits.tags_max));
        return Vec::new();
    }
    let parse = |(index, tag): (usize, &String)| {
        let pointer = format!("/tags/{index}");
        if tag.is_empty() {
            errors.push(FieldError::new(
                pointer,
                "empty",
                "a tag has at least one character",
            ));
            return None;
        }
        errors.take(parse_line(&pointer, tag, limits.tag_max_octets))
    };
    given.iter().enumerate().filter_map(parse).collect()
}

fn parse_metadata(
    given: &BTreeMap<String, String>,
    limits: &Limits,
    errors: &mut Errors,
) -> BTreeMap<DbText, DbText> {
    if given.len() > limits.metadata_max {
        errors.push(FieldError::too_many("/metadata", limits.metadata_max));
        return BTreeMap::new();
    }
    let mut metadata = BTreeMap::new();
    for (key, value) in given {
        let pointer = member("/metadata", key);
        if key.is_empty() {
            errors.push(FieldError::new(
                &pointer,
                "empty",
                "a key has at least one character",
            ));
        }
        let key = errors.take(parse_line(&pointer, key, limits.metadata_key_max_octets));
        let value = errors.take(parse_text(
            &pointer,
            value,
            limits.metadata_value_max_octets,
        ));
        if let (Some(key), Some(value)) = (key, value) {
            metadata.insert(key, value);
        }
    }
    metadata
}

fn parse_stream(text: &str) -> Result<StreamName, FieldError> {
    let detail = "must be 1 to 64 characters of a-z, 0-9, _ and -";
    StreamName::parse(text).ok_or_else(|| FieldError::new("/stream", "invalid_name", detail))
}

/// What looks like an id and is none could still be a name: names are the operator's choice.
fn parse_pool(text: &str) -> Result<PoolRef, FieldError> {
    if let Ok(id) = text.parse() {
        return Ok(PoolRef::Id(id));
    }
    if text.is_empty() {
        let detail = "must be the name or the id of a pool";
        return Err(FieldError::new("/pool", "invalid_name", detail));
    }
    parse_line("/pool", text, POOL_NAME_MAX).map(PoolRef::Name)
}

fn parse_send_at(text: &str) -> Result<OffsetDateTime, FieldError> {
    OffsetDateTime::parse(text, &Rfc3339)
        .ok()
        .and_then(|at| at.checked_to_offset(UtcOffset::UTC))
        .ok_or_else(|| {
            let detail = "must be a time as in RFC 3339, such as 2026-11-23T09:00:00Z";
            FieldError::new("/send_at", "invalid_time", detail)
        })
}

fn parse_expires_in(text: &str, limits: &Limits) -> Result<Duration, FieldError> {
    let duration = parse_duration(text).ok_or_else(|| {
        let detail = "must be a whole number and one of s, m, h, d, such as 4h";
        FieldError::new("/expires_in", "invalid_duration", detail)
    })?;
    if !limits.expires_in.contains(&duration) {
        let (min, max) = (limits.expires_in.start(), limits.expires_in.end());
        let detail = format!(
            "must be from {} to {} seconds",
            min.as_secs(),
            max.as_secs()
        );
        return Err(FieldError::new("/expires_in", "out_of_range", detail));
    }
    Ok(duration)
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    fn parse(pool: Option<&str>, send_at: Option<&str>) -> Result<Handling, Vec<FieldError>> {
        let fields = HandlingFields {
            tags: &[],
            metadata: &BTreeMap::new(),
            stream: None,
            pool,
            send_at,
            expires_in: None,
            require_tls: false,
        };
        Handling::parse(fields, &Limits::default())
    }

    #[test]
    fn a_time_is_due_then_now_or_never() {
        let now = datetime!(2026-11-22 09:00 UTC);
        let due = |text: &str| {
            let handling = parse(None, Some(text)).map_err(|errors| errors[0].code)?;
            handling
                .due_at(now, &Limits::default())
                .map_err(|error| error.code)
        };
        assert_eq!(
            due("2026-11-22T11:00:00+01:00"),
            Ok(datetime!(2026-11-22 10:00 UTC))
        );
        assert_eq!(due("2020-01-01T00:00:00Z"), Ok(now));
        assert_eq!(
            due("2026-12-22T09:00:00Z"),
            Ok(datetime!(2026-12-22 09:00 UTC))
        );
        assert_eq!(due("2026-12-22T09:00:00.001Z"), Err("out_of_range"));
        assert_eq!(due("9999-12-31T23:59:59-23:59"), Err("invalid_time"));
        assert_eq!(due("0000-01-01T00:00:00+23:59"), Ok(now));
        for bad in [
            "",
            "soon",
            "2026-11-23",
            "2026-11-23T09:00:00",
            "2026-13-23T09:00:00Z",
            "1793000000",
            "2026-11-23T09:00:00Z\r\n",
            "2026-11-23T09:00:00Z\0",
        ] {
            assert_eq!(due(bad), Err("invalid_time"), "{bad:?}");
        }
        assert_eq!(Handling::default().due_at(now, &Limits::default()), Ok(now));
    }

    #[test]
    fn a_pool_has_an_id_or_a_name() {
        let id = PoolId::from_uuid(uuid::Uuid::from_u128(7));
        let pool = |text: &str| {
            parse(Some(text), None)
                .map(|handling| handling.pool().cloned().unwrap())
                .map_err(|errors| errors[0].code)
        };
        assert_eq!(pool(&id.to_string()), Ok(PoolRef::Id(id)));
        let named = |text: &str| PoolRef::Name(DbText::parse(text, 99).unwrap());
        assert_eq!(pool("shared EU"), Ok(named("shared EU")));
        assert_eq!(pool("pool_7"), Ok(named("pool_7")));
        assert_eq!(pool(""), Err("invalid_name"));
        assert_eq!(pool("a\r\nb"), Err("control_character"));
        assert_eq!(pool("a\0"), Err("control_character"));
        assert_eq!(pool(&"p".repeat(101)), Err("too_long"));
    }
}
