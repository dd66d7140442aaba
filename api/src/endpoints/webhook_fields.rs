//! Which events a webhook can be told about, and how requests name them.

use std::collections::HashSet;

use mail::event::EventType;
use mail::message_fields::bounded;
use serde::Deserializer;

use crate::problem::FieldProblem;

/// Types that one request may name, repeated ones counted.
const EVENTS_MAX: usize = 40;

/// What an endpoint can be told about: the types that happen.
const OFFERED: &[EventType] = &[
    EventType::EmailQueued,
    EventType::EmailDelivered,
    EventType::EmailDeferred,
    EventType::EmailBounced,
    EventType::EmailExpired,
    EventType::EmailSuppressed,
    EventType::EmailScheduled,
    EventType::EmailCancelled,
    EventType::DomainVerified,
    EventType::DomainFailed,
    EventType::WebhookDisabled,
];

/// A list of words that cannot be so long that it costs much.
pub(super) fn read_events<'de, D: Deserializer<'de>>(
    given: D,
) -> Result<Option<Vec<String>>, D::Error> {
    bounded::list::<_, 100>(given).map(Some)
}

/// The types named in the field at `pointer`, each once, in the order they were named.
pub(super) fn parse_events(
    pointer: &str,
    words: Vec<String>,
    errors: &mut Vec<FieldProblem>,
) -> Vec<EventType> {
    let offered = || {
        let words: Vec<_> = OFFERED.iter().map(|kind| kind.as_str()).collect();
        words.join(", ")
    };
    if words.is_empty() {
        let detail = format!("name at least one of {}", offered());
        errors.push(FieldProblem::new(pointer, "required", detail));
    }
    if words.len() > EVENTS_MAX {
        let detail = format!("at most {EVENTS_MAX} are allowed");
        errors.push(FieldProblem::new(pointer, "too_many", detail));
        return Vec::new();
    }
    let mut events = Vec::with_capacity(words.len());
    let mut seen = HashSet::new();
    for (index, word) in words.iter().enumerate() {
        match word.parse::<EventType>() {
            Ok(kind) if OFFERED.contains(&kind) => {
                if seen.insert(kind) {
                    events.push(kind);
                }
            }
            Ok(_) | Err(_) => {
                let detail = format!("is no event that is told; those are {}", offered());
                let at = format!("{pointer}/{index}");
                errors.push(FieldProblem::new(at, "unknown_event", detail));
            }
        }
    }
    events
}
