//! The suppression list: recipients the account does not send to, whatever it is asked to send.
//! What the list does to mail is decided where mail is accepted and sent, not here.

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use mail::address::EmailAddress;
use mail::ids::{DeliveryId, EventId, MessageId, SuppressionId};
use mail::message_fields::StreamName;
use mail::suppression::SuppressionReason;
use serde::{Deserialize, Serialize};
use store::{AccountNo, NewSuppression, StreamNo, Suppression, SuppressionFilter};
use utoipa::{IntoParams, ToSchema};

use crate::auth::{Allowed, ManageSuppressions};
use crate::extract::{JsonBody, Parameters, PathId};
use crate::openapi::{BodyProblems, CommonProblems, NotFoundProblem, ParameterProblem};
use crate::page::{Page, PageParameters, PageRequest};
use crate::problem::{Code, FieldProblem, Problem};
use crate::query_address::with_plus;
use crate::random;
use crate::state::AppState;
use crate::timestamp::Timestamp;

/// A recipient not to be sent to.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"address": "ana@example.com"}))]
pub(crate) struct SuppressionRequest {
    /// An address without a name. The case of its letters does not matter.
    #[schema(required = true, nullable = false, example = "ana@example.com")]
    address: Option<String>,
    /// hard_bounce, complaint, unsubscribe or manual. An unsubscribe holds back broadcast streams
    /// only, all others hold back everything.
    #[schema(default = "manual")]
    reason: Option<String>,
    /// Name of the only stream that is held back; all of them without it.
    stream: Option<String>,
}

/// An entry of the suppression list.
#[derive(Serialize, ToSchema)]
#[schema(as = Suppression)]
pub(crate) struct SuppressionView {
    #[schema(value_type = String, example = "sup_01kasxq2bke9qa1bz2t0zc6m4d")]
    id: SuppressionId,
    /// As it was first given.
    #[schema(example = "ana@example.com")]
    address: String,
    /// hard_bounce, complaint, unsubscribe or manual.
    #[schema(value_type = String, example = "manual")]
    reason: SuppressionReason,
    /// Name of the only stream that is held back; null for all of them.
    stream: Option<String>,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// When it ends by itself; null for never.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp>,
    /// What put it there; null when it was this interface.
    source: Option<SourceView>,
}

/// What put a recipient on the list.
#[derive(Serialize, ToSchema)]
#[schema(as = SuppressionSource)]
struct SourceView {
    #[schema(value_type = String, example = "evt_01kasxq2bke9qa1bz2t0zc6m4d")]
    event_id: EventId,
    #[schema(value_type = Option<String>, example = "msg_01kasxq2bke9qa1bz2t0zc6800")]
    message_id: Option<MessageId>,
    #[schema(value_type = Option<String>, example = "dlv_01kasxq2bke9qa1bz2t0zc6801")]
    delivery_id: Option<DeliveryId>,
}

impl From<Suppression> for SuppressionView {
    fn from(entry: Suppression) -> Self {
        let delivery = entry.source_delivery;
        Self {
            id: entry.id,
            address: entry.address,
            reason: entry.reason,
            stream: entry.stream,
            created_at: Timestamp::of_id(entry.id.unix_ms()),
            expires_at: entry.expires_at.map(Timestamp::from),
            source: entry.source_event.map(|event_id| SourceView {
                event_id,
                message_id: delivery.map(|key| key.message),
                delivery_id: delivery.map(|key| key.message.delivery(key.rcpt)),
            }),
        }
    }
}

/// Suppress a recipient
///
/// From now on nothing is sent to the address: deliveries to it end with the event
/// `email.suppressed`, those on their way already as well. The same address for the same reason and
/// stream is one entry: it answers 200 and keeps its id.
#[utoipa::path(
    post,
    path = "/v1/suppressions",
    operation_id = "createSuppression",
    tag = "suppressions",
    request_body = SuppressionRequest,
    responses(
        (status = 201, description = "Made", body = SuppressionView),
        (status = 200, description = "Was there already", body = SuppressionView),
        CommonProblems,
        BodyProblems,
    ),
    security(("api_key" = ["suppressions:*"])),
)]
pub(crate) async fn create(
    State(state): State<AppState>,
    Allowed { principal, .. }: Allowed<ManageSuppressions>,
    JsonBody { value, .. }: JsonBody<SuppressionRequest>,
) -> Result<Response, Problem> {
    let account = principal.account;
    let (address, reason, stream) = parse(&state, account, value).await?;
    let unix_ms = u64::try_from(state.clock.unix_ms()).unwrap_or_default();
    let new = NewSuppression {
        id: SuppressionId::from_uuid(mail::ids::uuid_v7(unix_ms, random::octets())),
        account,
        address,
        stream,
        reason,
        expires_at: None,
    };
    let (entry, made) = state.store.suppress(&new).await?;
    let location = format!("{}/v1/suppressions/{}", state.config.public_url, entry.id);
    let body = axum::Json(SuppressionView::from(entry));
    if !made {
        return Ok((StatusCode::OK, body).into_response());
    }
    let mut headers = HeaderMap::new();
    if let Ok(location) = HeaderValue::from_str(&location) {
        headers.insert(header::LOCATION, location);
    }
    Ok((StatusCode::CREATED, headers, body).into_response())
}

async fn parse(
    state: &AppState,
    account: AccountNo,
    request: SuppressionRequest,
) -> Result<(EmailAddress, SuppressionReason, Option<StreamNo>), Problem> {
    let mut errors = Vec::new();
    let address = match request.address {
        None => Err(FieldProblem::new("/address", "required", "is required")),
        Some(text) => parse_address(&text)
            .map_err(|detail| FieldProblem::new("/address", "invalid_address", detail)),
    };
    let address = address.map_err(|error| errors.push(error));
    let reason = match request.reason {
        None => Ok(SuppressionReason::Manual),
        Some(word) => parse_reason(&word)
            .map_err(|detail| FieldProblem::new("/reason", "unknown_reason", detail)),
    };
    let reason = reason.map_err(|error| errors.push(error));
    let stream = match request.stream {
        None => Ok(None),
        Some(name) => find_stream(state, account, &name).await?.map(Some),
    };
    let stream = stream
        .map_err(|detail| errors.push(FieldProblem::new("/stream", "unknown_stream", detail)));
    match (address, reason, stream) {
        (Ok(address), Ok(reason), Ok(stream)) => Ok((address, reason, stream)),
        _ => Err(Problem::fields(errors)),
    }
}

fn parse_address(text: &str) -> Result<EmailAddress, String> {
    EmailAddress::parse(text).map_err(|error| error.to_string())
}

fn parse_reason(word: &str) -> Result<SuppressionReason, String> {
    word.parse().map_err(|_| {
        let words: Vec<&str> = SuppressionReason::ALL
            .iter()
            .map(|reason| reason.as_str())
            .collect();
        format!("must be one of {}", words.join(", "))
    })
}

/// The stream of that name; or what to say when the account has none.
async fn find_stream(
    state: &AppState,
    account: AccountNo,
    name: &str,
) -> Result<Result<StreamNo, String>, Problem> {
    let Some(name) = StreamName::parse(name) else {
        return Ok(Err("is no name of a stream".to_owned()));
    };
    let stream = state.store.stream(account, name.as_str()).await?;
    Ok(stream
        .map(|stream| stream.no)
        .ok_or_else(|| format!("the account has no stream named {name}")))
}

/// Which entries to list.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct SuppressionParameters {
    /// Only entries of this address, whatever the case of its letters; a `+` in it may stand as it is.
    address: Option<String>,
    /// Only entries made for this reason: hard_bounce, complaint, unsubscribe or manual.
    reason: Option<String>,
    /// Only entries that hold back this stream and no other.
    stream: Option<String>,
    /// How many to list.
    #[param(minimum = 1, maximum = 100, default = 20)]
    limit: Option<usize>,
    /// The `next` of the page before.
    after: Option<String>,
}

/// List suppressions
#[utoipa::path(
    get,
    path = "/v1/suppressions",
    operation_id = "listSuppressions",
    tag = "suppressions",
    params(SuppressionParameters),
    responses(
        (status = 200, description = "Newest first", body = Page<SuppressionView>),
        CommonProblems,
        ParameterProblem,
    ),
    security(("api_key" = ["suppressions:*"])),
)]
pub(crate) async fn list(
    State(state): State<AppState>,
    Allowed { principal, .. }: Allowed<ManageSuppressions>,
    Parameters(wanted): Parameters<SuppressionParameters>,
) -> Result<axum::Json<Page<SuppressionView>>, Problem> {
    let account = principal.account;
    let refuse = |name: &str, detail: String| {
        Problem::new(Code::InvalidParameter, format!("{name}: {detail}"))
    };
    let page = PageParameters::new(wanted.limit, wanted.after);
    let PageRequest { limit, after } = page.parse::<SuppressionId>()?;
    let address = wanted.address.as_deref().map(with_plus);
    let address = address.as_deref().map(parse_address).transpose();
    let reason = wanted.reason.as_deref().map(parse_reason).transpose();
    let stream = match &wanted.stream {
        Some(name) => find_stream(&state, account, name).await?.map(Some),
        None => Ok(None),
    };
    let filter = SuppressionFilter {
        address: address.map_err(|detail| refuse("address", detail))?,
        reason: reason.map_err(|detail| refuse("reason", detail))?,
        stream: stream.map_err(|detail| refuse("stream", detail))?,
    };
    let rows = i64::try_from(limit + 1).unwrap_or(i64::MAX);
    let entries = state
        .store
        .suppressions(account, &filter, after, rows)
        .await?;
    let views = entries.into_iter().map(SuppressionView::from).collect();
    Ok(axum::Json(Page::new(
        views,
        limit,
        |view: &SuppressionView| view.id,
    )))
}

/// Get a suppression
#[utoipa::path(
    get,
    path = "/v1/suppressions/{id}",
    operation_id = "getSuppression",
    tag = "suppressions",
    params(("id" = String, Path, description = "Id of the entry")),
    responses(
        (status = 200, description = "The entry", body = SuppressionView),
        CommonProblems,
        NotFoundProblem,
    ),
    security(("api_key" = ["suppressions:*"])),
)]
pub(crate) async fn get(
    State(state): State<AppState>,
    Allowed { principal, .. }: Allowed<ManageSuppressions>,
    PathId(id): PathId<SuppressionId>,
) -> Result<axum::Json<SuppressionView>, Problem> {
    let found = state.store.suppression(principal.account, id).await?;
    Ok(axum::Json(found.ok_or_else(Problem::not_found)?.into()))
}

/// Delete a suppression
///
/// The address is sent to again, unless another entry holds it back.
#[utoipa::path(
    delete,
    path = "/v1/suppressions/{id}",
    operation_id = "deleteSuppression",
    tag = "suppressions",
    params(("id" = String, Path, description = "Id of the entry")),
    responses((status = 204, description = "Deleted"), CommonProblems, NotFoundProblem),
    security(("api_key" = ["suppressions:*"])),
)]
pub(crate) async fn delete(
    State(state): State<AppState>,
    Allowed { principal, .. }: Allowed<ManageSuppressions>,
    PathId(id): PathId<SuppressionId>,
) -> Result<StatusCode, Problem> {
    match state.store.unsuppress(principal.account, id).await? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(Problem::not_found()),
    }
}
