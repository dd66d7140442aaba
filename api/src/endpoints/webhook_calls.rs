//! Calls of a webhook: what was told and answered, and a test of it. The calls themselves are
//! another role's.

use axum::extract::State;
use axum::http::StatusCode;
use mail::event::EventType;
use mail::ids::{EventId, WebhookCallId, WebhookEndpointId};
use serde::{Deserialize, Serialize};
use store::{CallFilter, CallRecord, CallResult};
use time::Duration;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::webhooks::{find, fresh_uuid};
use crate::auth::{Allowed, ManageWebhooks};
use crate::extract::{Parameters, PathId};
use crate::openapi::{CommonProblems, ConflictProblem, NotFoundProblem, ParameterProblem};
use crate::page::{Page, PageParameters, PageRequest};
use crate::problem::{Code, Problem};
use crate::state::AppState;
use crate::timestamp::Timestamp;

/// How long calls are shown; as long as they are kept, about.
const SHOWN: Duration = Duration::days(8);

/// Which calls are wanted.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct CallParameters {
    /// `succeeded` or `failed`.
    status: Option<String>,
    /// Id of an event: only the calls about it.
    event: Option<String>,
    /// How many to list.
    #[param(minimum = 1, maximum = 100, default = 20)]
    limit: Option<usize>,
    /// The `next` of the page before.
    after: Option<String>,
}

/// A call of a webhook.
#[derive(Serialize, ToSchema)]
#[schema(as = WebhookCall)]
pub(crate) struct CallView {
    #[schema(value_type = String, example = "whc_01kasxq2bke9qa1bz2t0zc6m4d")]
    id: WebhookCallId,
    #[schema(value_type = String, example = "evt_01kasxq2bke9qa1bz2t0zc6m4d")]
    event_id: EventId,
    /// Type of the event.
    #[serde(rename = "type")]
    #[schema(value_type = String, example = "email.delivered")]
    kind: EventType,
    /// 1 for the first call about the event, or of a replay of it.
    attempt: u16,
    /// When the call began.
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    /// `succeeded` or `failed`.
    #[schema(example = "failed")]
    status: &'static str,
    /// Why it failed: `status` (another than 2xx), `gone` (410), `timeout`, `connection`, or
    /// `refused` (the URL leads where webhooks may not go).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, nullable = false, example = "status")]
    error: Option<&'static str>,
    /// The status answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, nullable = false, example = 500)]
    response_status: Option<u16>,
    /// The first kilobyte of the answer's body, or why there was none. Control characters are
    /// shown as `\\x0a`.
    response: String,
    duration_ms: i32,
    /// When it is made again; absent when it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, nullable = false, value_type = String, format = DateTime)]
    next_at: Option<Timestamp>,
    /// Whether it was made because of a replay.
    replay: bool,
}

impl From<CallRecord> for CallView {
    fn from(call: CallRecord) -> Self {
        let is_taken = call.result == CallResult::Taken;
        Self {
            id: call.id,
            event_id: call.event,
            kind: call.kind,
            attempt: call.attempt,
            at: Timestamp::of_id(call.id.unix_ms()),
            status: if is_taken { "succeeded" } else { "failed" },
            error: (!is_taken).then(|| call.result.as_str()),
            response_status: call.status,
            response: call.response.into_string(),
            duration_ms: call.duration_ms,
            next_at: call.next_at.map(Timestamp::from),
            replay: call.is_replay,
        }
    }
}

impl CallParameters {
    fn filter(&self) -> Result<CallFilter, Problem> {
        let refuse = |detail| Err(Problem::new(Code::InvalidParameter, detail));
        let taken = match self.status.as_deref() {
            None => None,
            Some("succeeded") => Some(true),
            Some("failed") => Some(false),
            Some(_) => return refuse("status must be succeeded or failed"),
        };
        let event = match self.event.as_deref().map(str::parse) {
            None => None,
            Some(Ok(event)) => Some(event),
            Some(Err(_)) => return refuse("event must be the id of an event"),
        };
        Ok(CallFilter { taken, event })
    }
}

/// List the calls of a webhook
///
/// Good ones and failed ones of the last seven days, a second or so after they were made. A crash
/// of the platform may lose some of the list; it loses no call.
#[utoipa::path(
    get,
    path = "/v1/webhooks/{id}/calls",
    operation_id = "listWebhookCalls",
    tag = "webhooks",
    params(("id" = String, Path, description = "Id of the webhook"), CallParameters),
    responses(
        (status = 200, description = "Newest first", body = Page<CallView>),
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
    Parameters(parameters): Parameters<CallParameters>,
) -> Result<axum::Json<Page<CallView>>, Problem> {
    let filter = parameters.filter()?;
    let page = PageParameters::new(parameters.limit, parameters.after);
    let PageRequest { limit, after } = page.parse::<WebhookCallId>()?;
    let endpoint = find(&state, principal.account, id).await?;
    let oldest = state.clock.now() - SHOWN;
    let unix_ms = u64::try_from(oldest.unix_timestamp_nanos() / 1_000_000).unwrap_or_default();
    let lowest = WebhookCallId::from_uuid(Uuid::from_u128(u128::from(unix_ms) << 80));
    let rows = i64::try_from(limit + 1).unwrap_or(i64::MAX);
    let calls = state
        .store
        .calls(endpoint.no, filter, lowest, after, rows)
        .await?;
    let views = calls.into_iter().map(CallView::from).collect();
    Ok(axum::Json(Page::new(views, limit, |view: &CallView| {
        view.id
    })))
}

/// An event that was made for a test.
#[derive(Serialize, ToSchema)]
pub(crate) struct WebhookTest {
    #[schema(value_type = String, example = "evt_01kasxq2bke9qa1bz2t0zc6m4d")]
    event_id: EventId,
}

/// Test a webhook
///
/// Makes an event `webhook.test` and tells it to this webhook alone, like any other event but
/// before all that wait. What came of it is in the list of calls, under the id answered here.
#[utoipa::path(
    post,
    path = "/v1/webhooks/{id}/test",
    operation_id = "testWebhook",
    tag = "webhooks",
    params(("id" = String, Path, description = "Id of the webhook")),
    responses(
        (status = 202, description = "The webhook will be called in a moment", body = WebhookTest),
        CommonProblems,
        ConflictProblem,
        NotFoundProblem,
    ),
    security(("api_key" = ["webhooks:*"])),
)]
pub(crate) async fn test(
    State(state): State<AppState>,
    Allowed { principal, .. }: Allowed<ManageWebhooks>,
    PathId(id): PathId<WebhookEndpointId>,
) -> Result<(StatusCode, axum::Json<WebhookTest>), Problem> {
    let event_id = EventId::from_uuid(fresh_uuid(&state));
    let account = principal.account;
    if !state.store.test_endpoint(account, id, event_id).await? {
        find(&state, account, id).await?;
        return Err(disabled());
    }
    Ok((StatusCode::ACCEPTED, axum::Json(WebhookTest { event_id })))
}

/// Why a webhook is not told what somebody wants it to be told.
pub(super) fn disabled() -> Problem {
    let detail = "the webhook is disabled, so nothing is told to it; enable it first";
    Problem::new(Code::WebhookDisabled, detail)
}
