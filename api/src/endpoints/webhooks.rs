//! Webhook endpoints: who is told about which events. The calls themselves are another role's.

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use mail::event::EventType;
use mail::ids::{WebhookEndpointId, uuid_v7};
use serde::{Deserialize, Serialize};
use store::{AccountNo, EndpointChange, EndpointSummary, NewEndpoint};
use utoipa::ToSchema;
use uuid::Uuid;

use super::webhook_fields::{parse_events, read_events};
use super::webhook_secrets;
use crate::auth::{Allowed, ManageWebhooks};
use crate::config::ApiConfig;
use crate::extract::{JsonBody, Parameters, PathId};
use crate::openapi::{
    BodyProblems, CommonProblems, ConflictProblem, NotFoundProblem, ParameterProblem,
};
use crate::page::{Page, PageParameters, PageRequest};
use crate::problem::{Code, FieldProblem, Problem};
use crate::random;
use crate::state::AppState;
use crate::timestamp::Timestamp;
use crate::webhook_url::{UrlRules, WebhookUrl};

/// An endpoint to be called about events.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "url": "https://hooks.example.com/postrider",
    "events": ["email.delivered", "email.bounced"]
}))]
pub(crate) struct WebhookRequest {
    /// HTTPS, on the public Internet unless the operator allows more.
    #[schema(required = true, nullable = false)]
    url: Option<String>,
    /// Types of events, at least one, such as email.delivered; the answer to an unknown one lists
    /// them all.
    #[serde(default, deserialize_with = "read_events")]
    #[schema(required = true, nullable = false)]
    events: Option<Vec<String>>,
}

/// What to change of a webhook; what is left out stays as it is.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"enabled": true}))]
pub(crate) struct WebhookChange {
    /// Where to call; what is waiting to be called goes there too.
    #[schema(nullable = false)]
    url: Option<String>,
    /// Types of events, in place of all before.
    #[serde(default, deserialize_with = "read_events")]
    #[schema(nullable = false)]
    events: Option<Vec<String>>,
    /// False: it is called no more. Calls that wait are kept for three days; events that happen
    /// meanwhile are told only if they are replayed. True: it is called again.
    #[schema(nullable = false)]
    enabled: Option<bool>,
}

/// A webhook endpoint.
#[derive(Serialize, ToSchema)]
#[schema(as = Webhook)]
pub(crate) struct WebhookView {
    #[schema(value_type = String, example = "whk_01kasxq2bke9qa1bz2t0zc6m4d")]
    id: WebhookEndpointId,
    #[schema(example = "https://hooks.example.com/postrider")]
    url: String,
    #[schema(value_type = Vec<String>, example = json!(["email.delivered"]))]
    events: Vec<EventType>,
    /// `enabled`: it is called. `disabled`: it is not.
    #[schema(example = "enabled")]
    status: &'static str,
    /// Why it is disabled: `owner` (you asked for it), `failing` (no call succeeded for five days)
    /// or `gone` (it answered 410).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, nullable = false, example = "failing")]
    disabled_reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, nullable = false, value_type = String, format = DateTime)]
    disabled_at: Option<Timestamp>,
    /// The first failed call since the last good one. Five days later it is disabled.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, nullable = false, value_type = String, format = DateTime)]
    failing_since: Option<Timestamp>,
}

/// A webhook endpoint just made, with its secret.
#[derive(Serialize, ToSchema)]
pub(crate) struct CreatedWebhook {
    #[serde(flatten)]
    webhook: WebhookView,
    /// What calls are signed with (Standard Webhooks). Shown now and never again.
    #[schema(example = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo=")]
    secret: String,
}

impl From<EndpointSummary> for WebhookView {
    fn from(endpoint: EndpointSummary) -> Self {
        Self {
            id: endpoint.id,
            url: endpoint.url,
            events: endpoint.types,
            status: if endpoint.enabled {
                "enabled"
            } else {
                "disabled"
            },
            disabled_reason: endpoint.disabled.map(|(_, reason)| reason.as_str()),
            disabled_at: endpoint.disabled.map(|(at, _)| at.into()),
            failing_since: endpoint.failing_since.map(Timestamp::from),
        }
    }
}

/// Create a webhook
///
/// The endpoint is told about events that happen from now on. The secret is shown in this answer
/// only.
#[utoipa::path(
    post,
    path = "/v1/webhooks",
    operation_id = "createWebhook",
    tag = "webhooks",
    request_body = WebhookRequest,
    responses(
        (status = 201, description = "Made", body = CreatedWebhook),
        CommonProblems,
        BodyProblems,
        ConflictProblem,
    ),
    security(("api_key" = ["webhooks:*"])),
)]
pub(crate) async fn create(
    State(state): State<AppState>,
    Allowed { principal, .. }: Allowed<ManageWebhooks>,
    JsonBody { value, .. }: JsonBody<WebhookRequest>,
) -> Result<Response, Problem> {
    let (url, events) = parse(value, &state.config)?;
    let secret = webhook_secrets::fresh();
    let id = WebhookEndpointId::from_uuid(fresh_uuid(&state));
    let new = NewEndpoint {
        id,
        account: principal.account,
        url: url.as_str(),
        types: &events,
        secret: &secret,
    };
    let max = state.config.webhook_endpoints_max;
    let (sealer, now) = (&state.sealer, state.clock.now());
    let made = state.store.create_endpoint(&new, max, sealer, now).await?;
    if made.is_none() {
        let detail = format!("an account may have {max} webhooks; delete one that is not needed");
        return Err(Problem::new(Code::TooManyWebhooks, detail));
    }
    let created = CreatedWebhook {
        webhook: WebhookView {
            id,
            url: url.as_str().to_owned(),
            events,
            status: "enabled",
            disabled_reason: None,
            disabled_at: None,
            failing_since: None,
        },
        secret: webhook_secrets::text(&secret),
    };
    let mut headers =
        HeaderMap::from_iter([(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))]);
    let location = format!("{}/v1/webhooks/{id}", state.config.public_url);
    if let Ok(location) = HeaderValue::from_str(&location) {
        headers.insert(header::LOCATION, location);
    }
    Ok((StatusCode::CREATED, headers, axum::Json(created)).into_response())
}

/// An id of this moment.
pub(super) fn fresh_uuid(state: &AppState) -> Uuid {
    let unix_ms = u64::try_from(state.clock.unix_ms()).unwrap_or_default();
    uuid_v7(unix_ms, random::octets())
}

/// The account's endpoint of this id.
pub(super) async fn find(
    state: &AppState,
    account: AccountNo,
    id: WebhookEndpointId,
) -> Result<EndpointSummary, Problem> {
    let endpoints = state.store.endpoints(account).await?;
    let found = endpoints.into_iter().find(|endpoint| endpoint.id == id);
    found.ok_or_else(Problem::not_found)
}

fn parse(
    request: WebhookRequest,
    config: &ApiConfig,
) -> Result<(WebhookUrl, Vec<EventType>), Problem> {
    let mut errors = Vec::new();
    if request.url.is_none() {
        errors.push(FieldProblem::new("/url", "required", "is required"));
    }
    let url = parse_url(request.url, config, &mut errors);
    let events = parse_events("/events", request.events.unwrap_or_default(), &mut errors);
    match url {
        Some(url) if errors.is_empty() => Ok((url, events)),
        _ => Err(Problem::fields(errors)),
    }
}

fn parse_url(
    text: Option<String>,
    config: &ApiConfig,
    errors: &mut Vec<FieldProblem>,
) -> Option<WebhookUrl> {
    let rules = UrlRules {
        allow_insecure: config.allow_insecure_webhooks,
        networks: &config.webhook_allowed_networks,
        ports: &config.webhook_ports,
    };
    WebhookUrl::parse(&text?, &rules)
        .map_err(|error| {
            let (code, detail) = error.explain();
            errors.push(FieldProblem::new("/url", code, detail));
        })
        .ok()
}

/// List webhooks
#[utoipa::path(
    get,
    path = "/v1/webhooks",
    operation_id = "listWebhooks",
    tag = "webhooks",
    params(PageParameters),
    responses(
        (status = 200, description = "Oldest first", body = Page<WebhookView>),
        CommonProblems,
        ParameterProblem,
    ),
    security(("api_key" = ["webhooks:*"])),
)]
pub(crate) async fn list(
    State(state): State<AppState>,
    Allowed { principal, .. }: Allowed<ManageWebhooks>,
    Parameters(page): Parameters<PageParameters>,
) -> Result<axum::Json<Page<WebhookView>>, Problem> {
    let PageRequest { limit, after } = page.parse::<WebhookEndpointId>()?;
    let mut endpoints = state.store.endpoints(principal.account).await?;
    endpoints.sort_unstable_by_key(|endpoint| endpoint.id);
    let rest = endpoints
        .into_iter()
        .filter(|endpoint| after.is_none_or(|after| endpoint.id > after));
    let views = rest.take(limit + 1).map(WebhookView::from).collect();
    Ok(axum::Json(Page::new(views, limit, |view: &WebhookView| {
        view.id
    })))
}

/// Get a webhook
#[utoipa::path(
    get,
    path = "/v1/webhooks/{id}",
    operation_id = "getWebhook",
    tag = "webhooks",
    params(("id" = String, Path, description = "Id of the webhook")),
    responses(
        (status = 200, description = "The webhook, without its secret", body = WebhookView),
        CommonProblems,
        NotFoundProblem,
    ),
    security(("api_key" = ["webhooks:*"])),
)]
pub(crate) async fn get(
    State(state): State<AppState>,
    Allowed { principal, .. }: Allowed<ManageWebhooks>,
    PathId(id): PathId<WebhookEndpointId>,
) -> Result<axum::Json<WebhookView>, Problem> {
    let found = find(&state, principal.account, id).await?;
    Ok(axum::Json(found.into()))
}

/// Change a webhook
///
/// Enabling a webhook also forgets its failures: it has five days again.
#[utoipa::path(
    patch,
    path = "/v1/webhooks/{id}",
    operation_id = "updateWebhook",
    tag = "webhooks",
    params(("id" = String, Path, description = "Id of the webhook")),
    request_body = WebhookChange,
    responses(
        (status = 200, description = "The webhook as it is now", body = WebhookView),
        CommonProblems,
        BodyProblems,
        NotFoundProblem,
    ),
    security(("api_key" = ["webhooks:*"])),
)]
pub(crate) async fn update(
    State(state): State<AppState>,
    Allowed { principal, .. }: Allowed<ManageWebhooks>,
    PathId(id): PathId<WebhookEndpointId>,
    JsonBody { value, .. }: JsonBody<WebhookChange>,
) -> Result<axum::Json<WebhookView>, Problem> {
    let mut errors = Vec::new();
    if value.url.is_none() && value.events.is_none() && value.enabled.is_none() {
        let detail = "name at least one of url, events and enabled";
        errors.push(FieldProblem::new("", "required", detail));
    }
    let url = parse_url(value.url, &state.config, &mut errors);
    let events = value
        .events
        .map(|words| parse_events("/events", words, &mut errors));
    if !errors.is_empty() {
        return Err(Problem::fields(errors));
    }
    let change = EndpointChange {
        url: url.as_ref().map(WebhookUrl::as_str),
        types: events.as_deref(),
        enabled: value.enabled,
    };
    let (account, now) = (principal.account, state.clock.now());
    let changed = state
        .store
        .change_endpoint(account, id, change, now)
        .await?;
    Ok(axum::Json(changed.ok_or_else(Problem::not_found)?.into()))
}

/// Delete a webhook
#[utoipa::path(
    delete,
    path = "/v1/webhooks/{id}",
    operation_id = "deleteWebhook",
    tag = "webhooks",
    params(("id" = String, Path, description = "Id of the webhook")),
    responses((status = 204, description = "Deleted"), CommonProblems, NotFoundProblem),
    security(("api_key" = ["webhooks:*"])),
)]
pub(crate) async fn delete(
    State(state): State<AppState>,
    Allowed { principal, .. }: Allowed<ManageWebhooks>,
    PathId(id): PathId<WebhookEndpointId>,
) -> Result<StatusCode, Problem> {
    match state.store.delete_endpoint(principal.account, id).await? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(Problem::not_found()),
    }
}
