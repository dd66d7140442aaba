//! What a replay is asked for: one event, or those of a time. Finding them is another role's.

use mail::event::EventType;
use mail::ids::EventId;
use serde::Deserialize;
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};
use utoipa::ToSchema;

use super::webhook_fields::{parse_events, read_events};
use crate::problem::{FieldProblem, Problem};

/// How old the events of a replay may be.
const AGE_MAX: Duration = Duration::days(30);

/// What to tell once more: one event, or those of a time.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"from": "2026-11-22T08:00:00Z", "to": "2026-11-22T09:00:00Z"}))]
pub(crate) struct ReplayRequest {
    /// The one event to tell; nothing else may be given with it.
    #[schema(nullable = false)]
    event_id: Option<String>,
    /// Events from this time on, at most 30 days ago.
    #[schema(nullable = false, format = DateTime)]
    from: Option<String>,
    /// Events before this time; without it, those until now.
    #[schema(nullable = false, format = DateTime)]
    to: Option<String>,
    /// Types of events; without it, those of the webhook.
    #[serde(default, deserialize_with = "read_events")]
    #[schema(nullable = false)]
    types: Option<Vec<String>>,
}

/// A request that is right.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    One(EventId),
    Range {
        from: OffsetDateTime,
        to: OffsetDateTime,
        /// None: those of the webhook.
        types: Option<Vec<EventType>>,
    },
}

pub(super) fn parse(request: ReplayRequest, now: OffsetDateTime) -> Result<Wanted, Problem> {
    let mut errors = Vec::new();
    let event = request.event_id.map(|text| text.parse::<EventId>());
    if let Some(event) = event {
        if request.from.is_some() || request.to.is_some() || request.types.is_some() {
            let detail = "cannot be given together with from, to or types";
            errors.push(FieldProblem::new("/event_id", "ambiguous", detail));
        }
        return match event {
            Ok(event) if errors.is_empty() => Ok(Wanted::One(event)),
            Ok(_) => Err(Problem::fields(errors)),
            Err(_) => {
                let detail = "must be the id of an event, such as evt_ and 26 characters";
                errors.push(FieldProblem::new("/event_id", "invalid_id", detail));
                Err(Problem::fields(errors))
            }
        };
    }
    let from = parse_time("/from", request.from, &mut errors);
    let to = parse_time("/to", request.to, &mut errors).map_or(now, |to| to.min(now));
    let types = request
        .types
        .map(|words| parse_events("/types", words, &mut errors));
    match from {
        None if errors.is_empty() => {
            let detail = "give event_id for one event, or from for those of a time";
            errors.push(FieldProblem::new("", "required", detail));
        }
        Some(from) if from < now - AGE_MAX => {
            let detail = "must be at most 30 days ago";
            errors.push(FieldProblem::new("/from", "too_early", detail));
        }
        Some(from) if from >= to => {
            let detail = "must be before to, and in the past";
            errors.push(FieldProblem::new("/from", "invalid_range", detail));
        }
        _ => {}
    }
    match from {
        Some(from) if errors.is_empty() => Ok(Wanted::Range { from, to, types }),
        _ => Err(Problem::fields(errors)),
    }
}

fn parse_time(
    pointer: &str,
    text: Option<String>,
    errors: &mut Vec<FieldProblem>,
) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(&text?, &Rfc3339)
        .map_err(|_| {
            let detail = "must be a time such as 2026-11-22T09:00:00Z";
            errors.push(FieldProblem::new(pointer, "invalid_time", detail));
        })
        .ok()
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;
    use uuid::Uuid;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-11-22 09:00 UTC);

    fn check(json: &str, expected: Result<Wanted, &[(&str, &str)]>) {
        let found = parse(serde_json::from_str(json).unwrap(), NOW);
        match (&found, &expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{json}"),
            (Err(problem), Err(expected)) => {
                let (_, _, errors) = problem.parts();
                let found: Vec<_> = errors.iter().map(FieldProblem::parts).collect();
                assert_eq!(found, *expected, "{json}");
            }
            _ => panic!("{json}: {found:?}"),
        }
    }

    #[test]
    fn one_event_or_a_time_is_wanted() {
        let range = |from, to, types| Ok(Wanted::Range { from, to, types });
        let from = datetime!(2026-11-22 08:00 UTC);
        check(
            r#"{"from": "2026-11-22T08:00:00Z"}"#,
            range(from, NOW, None),
        );
        check(
            r#"{"from": "2026-11-22T09:00:00+01:00", "to": "2030-01-01T00:00:00Z"}"#,
            range(from, NOW, None),
        );
        check(
            r#"{"from": "2026-11-22T08:00:00Z", "to": "2026-11-22T08:30:00Z",
                "types": ["email.bounced"]}"#,
            range(
                from,
                datetime!(2026-11-22 08:30 UTC),
                Some(vec![EventType::EmailBounced]),
            ),
        );
        let id = EventId::from_uuid(Uuid::from_u128(7));
        check(&format!(r#"{{"event_id": "{id}"}}"#), Ok(Wanted::One(id)));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        check("{}", Err(&[("", "required")]));
        check(
            r#"{"event_id": "msg_1"}"#,
            Err(&[("/event_id", "invalid_id")]),
        );
        let id = EventId::from_uuid(Uuid::from_u128(7));
        let both = format!(r#"{{"event_id": "{id}", "from": "2026-11-22T08:00:00Z"}}"#);
        check(&both, Err(&[("/event_id", "ambiguous")]));
        check(
            r#"{"from": "yesterday", "to": "\u0000", "types": ["webhook.test"]}"#,
            Err(&[
                ("/from", "invalid_time"),
                ("/to", "invalid_time"),
                ("/types/0", "unknown_event"),
            ]),
        );
        check(
            r#"{"from": "2026-10-23T08:59:59Z"}"#,
            Err(&[("/from", "too_early")]),
        );
        check(
            r#"{"from": "2026-11-22T09:00:00Z"}"#,
            Err(&[("/from", "invalid_range")]),
        );
        check(
            r#"{"from": "2026-11-22T08:00:00Z", "to": "2026-11-22T08:00:00Z"}"#,
            Err(&[("/from", "invalid_range")]),
        );
    }
}
