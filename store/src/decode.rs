//! From stored numbers to the types of the vocabulary, and back. A number that means nothing is an
//! error with its column's name, never a default.

use std::borrow::Cow;

use mail::bounce_class::BounceClass;
use mail::domain_name::DomainName;
use mail::event::EventType;
use mail::retry::StreamClass;

use crate::error::StoreError;

/// As a parameter of a statement.
pub(crate) fn domain_texts(names: &[DomainName]) -> Vec<&str> {
    names.iter().map(DomainName::as_str).collect()
}

pub(crate) fn unsigned(what: &'static str, value: i16) -> Result<u16, StoreError> {
    u16::try_from(value).map_err(|_| StoreError::corrupt(what, value))
}

/// Counts of ours stay far below the bound; a count that reached it stands still.
pub(crate) fn signed(value: u16) -> i16 {
    i16::try_from(value).unwrap_or(i16::MAX)
}

pub(crate) fn event_type(code: i16) -> Result<EventType, StoreError> {
    EventType::from_code(code).ok_or_else(|| StoreError::corrupt("event type", code))
}

pub(crate) fn bounce_class(code: i16) -> Result<BounceClass, StoreError> {
    BounceClass::from_code(code).ok_or_else(|| StoreError::corrupt("bounce class", code))
}

pub(crate) fn stream_class(code: i16) -> Result<StreamClass, StoreError> {
    match code {
        0 => Ok(StreamClass::Transactional),
        1 => Ok(StreamClass::Broadcast),
        _ => Err(StoreError::corrupt("stream class", code)),
    }
}

pub(crate) fn stream_class_code(class: StreamClass) -> i16 {
    match class {
        StreamClass::Transactional => 0,
        StreamClass::Broadcast => 1,
    }
}

pub(crate) fn domain_name(text: &str) -> Result<DomainName, StoreError> {
    DomainName::parse_host(text).map_err(|error| StoreError::corrupt("domain name", error))
}

pub(crate) fn sha256(what: &'static str, bytes: &[u8]) -> Result<[u8; 32], StoreError> {
    bytes
        .try_into()
        .map_err(|_| StoreError::corrupt(what, "not 32 octets"))
}

/// PostgreSQL takes no NUL in text, and one such value must not fail a batch of strangers.
pub(crate) fn without_nul(text: &str) -> Cow<'_, str> {
    if text.contains('\0') {
        Cow::Owned(text.replace('\0', "\u{fffd}"))
    } else {
        Cow::Borrowed(text)
    }
}
