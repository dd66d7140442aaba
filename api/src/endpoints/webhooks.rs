//! Webhook endpoints: who is told about which events. The calls themselves are another role's.

use std::collections::HashSet;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mail::event::EventType;
use mail::ids::WebhookEndpointId;
use mail::message_fields::bounded;
use serde::{Deserialize, Deserializer, Serialize};
use store::EndpointSummary;
use utoipa::ToSchema;

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
use crate::webhook_url::{UrlRules, WebhookUrl};

/// Types that one request may name, repeated ones counted.
const EVENTS_MAX: usize = 20;
/// Octets of a signing secret; Standard Webhooks asks for 24 to 64.
const SECRET_OCTETS: usize = 32;

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
];

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

fn read_events<'de, D: Deserializer<'de>>(given: D) -> Result<Option<Vec<String>>, D::Error> {
    bounded::list::<_, 100>(given).map(Some)
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
    /// `enabled`: it is called. `disabled`: it is not; nothing sets this by itself.
    #[schema(example = "enabled")]
    status: &'static str,
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
    let max = state.config.webhook_endpoints_max;
    if state.store.endpoints(principal.account).await?.len() >= max {
        let detail = format!("an account may have {max} webhooks; delete one that is not needed");
        return Err(Problem::new(Code::TooManyWebhooks, detail));
    }
    let secret: [u8; SECRET_OCTETS] = random::octets();
    let unix_ms = u64::try_from(state.clock.unix_ms()).unwrap_or_default();
    let id = WebhookEndpointId::from_uuid(mail::ids::uuid_v7(unix_ms, random::octets()));
    let (account, now) = (principal.account, state.clock.now());
    let sealer = &state.sealer;
    state
        .store
        .create_endpoint(id, account, url.as_str(), &events, &secret, sealer, now)
        .await?;
    let created = CreatedWebhook {
        webhook: WebhookView {
            id,
            url: url.as_str().to_owned(),
            events,
            status: "enabled",
        },
        secret: format!("whsec_{}", STANDARD.encode(secret)),
    };
    let mut headers =
        HeaderMap::from_iter([(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))]);
    let location = format!("{}/v1/webhooks/{id}", state.config.public_url);
    if let Ok(location) = HeaderValue::from_str(&location) {
        headers.insert(header::LOCATION, location);
    }
    Ok((StatusCode::CREATED, headers, axum::Json(created)).into_response())
}

fn parse(
    request: WebhookRequest,
    config: &ApiConfig,
) -> Result<(WebhookUrl, Vec<EventType>), Problem> {
    let mut errors = Vec::new();
    let rules = UrlRules {
        allow_insecure: config.allow_insecure_webhooks,
        networks: &config.webhook_allowed_networks,
    };
    let url = match request.url {
        None => Err(("required", "is required")),
        Some(text) => WebhookUrl::parse(&text, &rules).map_err(|error| error.explain()),
    };
    let url = url.map_err(|(code, detail)| errors.push(FieldProblem::new("/url", code, detail)));
    let events = parse_events(request.events.unwrap_or_default(), &mut errors);
    match url {
        Ok(url) if errors.is_empty() => Ok((url, events)),
        _ => Err(Problem::fields(errors)),
    }
}

/// The types named, each once, in the order they were named.
fn parse_events(words: Vec<String>, errors: &mut Vec<FieldProblem>) -> Vec<EventType> {
    let offered = || {
        OFFERED
            .iter()
            .map(|kind| kind.as_str())
            .collect::<Vec<_>>()
            .join(", ")
    };
    if words.is_empty() {
        let detail = format!("name at least one of {}", offered());
        errors.push(FieldProblem::new("/events", "required", detail));
    }
    if words.len() > EVENTS_MAX {
        let detail = format!("at most {EVENTS_MAX} are allowed");
        errors.push(FieldProblem::new("/events", "too_many", detail));
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
                errors.push(FieldProblem::new(
                    format!("/events/{index}"),
                    "unknown_event",
                    detail,
                ));
            }
        }
    }
    events
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
    let endpoints = state.store.endpoints(principal.account).await?;
    let found = endpoints.into_iter().find(|endpoint| endpoint.id == id);
    Ok(axum::Json(found.ok_or_else(Problem::not_found)?.into()))
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
