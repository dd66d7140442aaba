//! Replays: events told to a webhook once more, one or all of a time. Finding and telling them is
//! another role's.

use axum::extract::State;
use axum::http::StatusCode;
use mail::event::EventType;
use mail::ids::{EventId, WebhookEndpointId, WebhookReplayId};
use serde::Serialize;
use store::{EndpointSummary, NewReplay, Replay, ReplayState, StoreError};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::webhook_calls::disabled;
use super::webhook_replay_request::{ReplayRequest, Wanted, parse};
use super::webhooks::{find, fresh_uuid};
use crate::auth::{Allowed, ManageWebhooks};
use crate::extract::{JsonBody, Parameters, PathId, PathIds};
use crate::openapi::{
    BodyProblems, CommonProblems, ConflictProblem, NotFoundProblem, ParameterProblem,
};
use crate::page::{Page, PageParameters, PageRequest};
use crate::problem::{Code, Problem};
use crate::state::AppState;
use crate::timestamp::Timestamp;

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
