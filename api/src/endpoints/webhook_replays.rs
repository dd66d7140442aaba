//! Replays: events told to a webhook once more, one or all of a time. Finding and telling them is
//! another role's.

use axum::extract::State;
use axum::http::StatusCode;
use mail::event::EventType;
use mail::ids::{EventId, WebhookEndpointId, WebhookReplayId};
use serde::{Deserialize, Serialize};
use store::{EndpointSummary, NewReplay, Replay, ReplayState, StoreError};
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};
use utoipa::ToSchema;
use uuid::Uuid;

use super::webhook_calls::disabled;
use super::webhook_fields::{parse_events, read_events};
use super::webhooks::{find, fresh_uuid};
use crate::auth::{Allowed, ManageWebhooks};
use crate::extract::{JsonBody, Parameters, PathId, PathIds};
use crate::openapi::{
    BodyProblems, CommonProblems, ConflictProblem, NotFoundProblem, ParameterProblem,
};
use crate::page::{Page, PageParameters, PageRequest};
use crate::problem::{Code, FieldProblem, Problem};
use crate::state::AppState;
use crate::timestamp::Timestamp;

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

/// Events told once more.
#[derive(Serialize, ToSchema)]
#[schema(as = WebhookReplay)]
pub(crate) struct ReplayView {
    #[schema(value_type = String, example = "whr_01kasxq2bke9qa1bz2t0zc6m4d")]
    id: WebhookReplayId,
    /// `running`, `done` (every call was made or given up) or `cancelled`.
    #[schema(example = "running")]
    status: &'static str,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// The event, for a replay of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, nullable = false, value_type = String)]
    event_id: Option<EventId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, nullable = false, value_type = String, format = DateTime)]
    from: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, nullable = false, value_type = String, format = DateTime)]
    to: Option<Timestamp>,
    #[schema(value_type = Vec<String>, example = json!(["email.delivered"]))]
    types: Vec<EventType>,
    /// Events found so far.
    events: u32,
    /// Of these, calls that are still to be made or repeated.
    waiting: u32,
    /// There were more events than the 100,000 a replay may have: ask for less time at once.
    limit_reached: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, nullable = false, value_type = String, format = DateTime)]
    ended_at: Option<Timestamp>,
}

impl From<Replay> for ReplayView {
    fn from(replay: Replay) -> Self {
        let time_of = |id: EventId| {
            let is_range = replay.event.is_none();
            is_range.then(|| Timestamp::of_id(id.unix_ms()))
        };
        Self {
            id: replay.id,
            status: match replay.state {
                ReplayState::Reading | ReplayState::Calling => "running",
                ReplayState::Done => "done",
                ReplayState::Cancelled => "cancelled",
            },
            created_at: Timestamp::of_id(replay.id.unix_ms()),
            event_id: replay.event,
            from: time_of(replay.from),
            to: time_of(replay.to),
            types: replay.types,
            events: replay.events,
            waiting: replay.waiting,
            limit_reached: replay.is_cut,
            ended_at: replay.ended_at.map(Timestamp::from),
        }
    }
}

/// A request that is right.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    One(EventId),
    Range {
        from: OffsetDateTime,
        to: OffsetDateTime,
        /// None: those of the webhook.
        types: Option<Vec<EventType>>,
    },
}

fn parse(request: ReplayRequest, now: OffsetDateTime) -> Result<Wanted, Problem> {
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

/// The lowest id of this time, to the millisecond.
fn lowest(at: OffsetDateTime) -> EventId {
    let unix_ms = u64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap_or_default();
    EventId::from_uuid(Uuid::from_u128(u128::from(unix_ms) << 80))
}

/// Tell a webhook events once more
///
/// One event, or the account's events of a time, of the types that the webhook asked for or of
/// those given. Calls carry the ids the events had, and go after all other calls of the webhook.
/// At most 100,000 events at once; one replay of a time at once for each webhook.
#[utoipa::path(
    post,
    path = "/v1/webhooks/{id}/replay",
    operation_id = "replayWebhook",
    tag = "webhooks",
    params(("id" = String, Path, description = "Id of the webhook")),
    request_body = ReplayRequest,
    responses(
        (status = 202, description = "The calls will be made", body = ReplayView),
        CommonProblems,
        BodyProblems,
        ConflictProblem,
        NotFoundProblem,
    ),
    security(("api_key" = ["webhooks:*"])),
)]
pub(crate) async fn create(
    State(state): State<AppState>,
    Allowed { principal, .. }: Allowed<ManageWebhooks>,
    PathId(id): PathId<WebhookEndpointId>,
    JsonBody { value, .. }: JsonBody<ReplayRequest>,
) -> Result<(StatusCode, axum::Json<ReplayView>), Problem> {
    let now = state.clock.now();
    let wanted = parse(value, now)?;
    let endpoint = find(&state, principal.account, id).await?;
    if !endpoint.enabled {
        return Err(disabled());
    }
    let (account, no) = (principal.account, endpoint.no);
    let replay_id = WebhookReplayId::from_uuid(fresh_uuid(&state));
    match wanted {
        Wanted::One(event) => {
            let store = &state.store;
            if !store
                .replay_event(replay_id, account, no, event, now)
                .await?
            {
                return Err(Problem::not_found());
            }
        }
        Wanted::Range { from, to, types } => {
            let new = NewReplay {
                id: replay_id,
                account,
                endpoint: no,
                from: lowest(from),
                to: lowest(to),
                types: types.as_deref().unwrap_or(&endpoint.types),
            };
            state
                .store
                .create_replay(&new, now)
                .await
                .map_err(|error| match error {
                    StoreError::Conflict { .. } => {
                        let detail = "a replay of this webhook is under way; wait for its end, or \
                                      cancel it";
                        Problem::new(Code::Conflict, detail)
                    }
                    error => error.into(),
                })?;
        }
    }
    let view = find_replay(&state, &endpoint, replay_id).await?;
    Ok((StatusCode::ACCEPTED, axum::Json(view)))
}

async fn find_replay(
    state: &AppState,
    endpoint: &EndpointSummary,
    id: WebhookReplayId,
) -> Result<ReplayView, Problem> {
    let found = state.store.replays(endpoint.no, Some(id), None, 1).await?;
    let found = found.into_iter().next().ok_or_else(Problem::not_found)?;
    Ok(found.into())
}

/// List the replays of a webhook
#[utoipa::path(
    get,
    path = "/v1/webhooks/{id}/replays",
    operation_id = "listWebhookReplays",
    tag = "webhooks",
    params(("id" = String, Path, description = "Id of the webhook"), PageParameters),
    responses(
        (status = 200, description = "Newest first, for 30 days", body = Page<ReplayView>),
        CommonProblems,
        NotFoundProblem,
        ParameterProblem,
    ),
    security(("api_key" = ["webhooks:*"])),
)]
pub(crate) async fn list(
    State(state): State<AppState>,
    Allowed { principal, .. }: Allowed<ManageWebhooks>,
    PathId(id): PathId<WebhookEndpointId>,
    Parameters(page): Parameters<PageParameters>,
) -> Result<axum::Json<Page<ReplayView>>, Problem> {
    let PageRequest { limit, after } = page.parse::<WebhookReplayId>()?;
    let endpoint = find(&state, principal.account, id).await?;
    let rows = i64::try_from(limit + 1).unwrap_or(i64::MAX);
    let replays = state.store.replays(endpoint.no, None, after, rows).await?;
    let views = replays.into_iter().map(ReplayView::from).collect();
    Ok(axum::Json(Page::new(views, limit, |view: &ReplayView| {
        view.id
    })))
}

/// Get a replay
#[utoipa::path(
    get,
    path = "/v1/webhooks/{id}/replays/{replay_id}",
    operation_id = "getWebhookReplay",
    tag = "webhooks",
    params(
        ("id" = String, Path, description = "Id of the webhook"),
        ("replay_id" = String, Path, description = "Id of the replay"),
    ),
    responses(
        (status = 200, description = "The replay and how far it is", body = ReplayView),
        CommonProblems,
        NotFoundProblem,
    ),
    security(("api_key" = ["webhooks:*"])),
)]
pub(crate) async fn get(
    State(state): State<AppState>,
    Allowed { principal, .. }: Allowed<ManageWebhooks>,
    PathIds(id, replay_id): PathIds<WebhookEndpointId, WebhookReplayId>,
) -> Result<axum::Json<ReplayView>, Problem> {
    let endpoint = find(&state, principal.account, id).await?;
    find_replay(&state, &endpoint, replay_id)
        .await
        .map(axum::Json)
}

/// Cancel a replay
///
/// Calls that are about to be made are still made; one that is done or cancelled stays as it is.
#[utoipa::path(
    delete,
    path = "/v1/webhooks/{id}/replays/{replay_id}",
    operation_id = "cancelWebhookReplay",
    tag = "webhooks",
    params(
        ("id" = String, Path, description = "Id of the webhook"),
        ("replay_id" = String, Path, description = "Id of the replay"),
    ),
    responses(
        (status = 200, description = "The replay as it is now", body = ReplayView),
        CommonProblems,
        NotFoundProblem,
    ),
    security(("api_key" = ["webhooks:*"])),
)]
pub(crate) async fn cancel(
    State(state): State<AppState>,
    Allowed { principal, .. }: Allowed<ManageWebhooks>,
    PathIds(id, replay_id): PathIds<WebhookEndpointId, WebhookReplayId>,
) -> Result<axum::Json<ReplayView>, Problem> {
    let endpoint = find(&state, principal.account, id).await?;
    let now = state.clock.now();
    state
        .store
        .cancel_replay(endpoint.no, replay_id, now)
        .await?;
    find_replay(&state, &endpoint, replay_id)
        .await
        .map(axum::Json)
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

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
