//! API keys as their account manages them. A key can make, and give a new secret to, only keys that
//! can do no more than itself; a test key sees test keys only.

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use mail::ids::{ApiKeyId, uuid_v7};
use store::{ApiKey, KeySummary, KeysOf, NewApiKey};

use super::api_key_request::{ApiKeyRequest, RotationRequest, WantedKey};
use super::api_key_view::{ApiKeyView, ApiKeyWithSecret, status};
use crate::auth::{Allowed, ManageKeys, Principal};
use crate::extract::{JsonBody, Parameters, PathId};
use crate::grants;
use crate::keys::{KeyMode, NewKey, generate};
use crate::openapi::{
    BodyProblems, CommonProblems, ConflictProblem, NotFoundProblem, ParameterProblem,
};
use crate::page::{Page, PageParameters, PageRequest};
use crate::problem::{Code, Problem};
use crate::random;
use crate::state::AppState;

impl Principal {
    /// The keys it may see and change.
    fn keys(&self) -> KeysOf<'_> {
        KeysOf {
            account: self.account,
            only_test: self.test,
            within_domains: self.domains(),
        }
    }
}

/// Create an API key
///
/// It can do no more than the key used: no further scopes, domains or networks, no later end, and
/// no live key by a test key (403 `key_escalation`). The secret is shown in this answer only.
#[utoipa::path(
    post,
    path = "/v1/api-keys",
    operation_id = "createApiKey",
    tag = "api-keys",
    request_body = ApiKeyRequest,
    responses(
        (status = 201, description = "Made", body = ApiKeyWithSecret),
        CommonProblems,
        BodyProblems,
        ConflictProblem,
    ),
    security(("api_key" = ["keys:*"])),
)]
pub(crate) async fn create(
    State(state): State<AppState>,
    Allowed { principal, .. }: Allowed<ManageKeys>,
    JsonBody { value, .. }: JsonBody<ApiKeyRequest>,
) -> Result<Response, Problem> {
    let now = state.clock.now();
    let domains = match value.names_domains() {
        true => state.store.sender_domains(principal.account).await?,
        false => Vec::new(),
    };
    let wanted = value.parse(&domains, now)?;
    let name = wanted.name.clone();
    let key = fill(wanted, &principal, &state);
    grants::within(&principal.key, &key)?;
    let max = state.config.api_keys_max;
    let count = state.store.count_keys(principal.account, now).await?;
    if usize::try_from(count).unwrap_or_default() >= max {
        let detail = format!("an account may have {max} API keys; revoke one that is not needed");
        return Err(Problem::new(Code::TooManyKeys, detail));
    }
    let new = new_secret(key.test);
    state
        .store
        .add_key(&NewApiKey {
            key: &key,
            secret_sha256: new.hash,
            hint: &new.hint,
            name: &name,
            created_at: now,
        })
        .await?;
    let summary = KeySummary {
        key,
        name,
        hint: new.hint,
        created_at: now,
        last_used_at: None,
        previous_until: None,
        revoked_at: None,
    };
    let made = ApiKeyWithSecret {
        shown: ApiKeyView::of(summary, now),
        key: new.secret,
    };
    let mut headers = no_store();
    let location = format!("{}/v1/api-keys/{}", state.config.public_url, made.shown.id);
    if let Ok(location) = HeaderValue::from_str(&location) {
        headers.insert(header::LOCATION, location);
    }
    Ok((StatusCode::CREATED, headers, axum::Json(made)).into_response())
}

/// The key that is wanted, made for the account of who asks.
fn fill(wanted: WantedKey, principal: &Principal, state: &AppState) -> ApiKey {
    let unix_ms = u64::try_from(state.clock.unix_ms()).unwrap_or_default();
    ApiKey {
        id: ApiKeyId::from_uuid(uuid_v7(unix_ms, random::octets())),
        account: principal.account,
        test: wanted.test.unwrap_or(principal.test),
        scopes: wanted.scopes,
        domains: wanted.domains,
        networks: wanted.networks,
        expires_at: wanted.expires_at,
    }
}

fn new_secret(test: bool) -> NewKey {
    let mode = match test {
        true => KeyMode::Test,
        false => KeyMode::Live,
    };
    generate(mode, random::octets())
}

fn no_store() -> HeaderMap {
    HeaderMap::from_iter([(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))])
}

/// List API keys
///
/// Revoked and expired ones too. A test key sees test keys only.
#[utoipa::path(
    get,
    path = "/v1/api-keys",
    operation_id = "listApiKeys",
    tag = "api-keys",
    params(PageParameters),
    responses(
        (status = 200, description = "Oldest first", body = Page<ApiKeyView>),
        CommonProblems,
        ParameterProblem,
    ),
    security(("api_key" = ["keys:*"])),
)]
pub(crate) async fn list(
    State(state): State<AppState>,
    Allowed { principal, .. }: Allowed<ManageKeys>,
    Parameters(page): Parameters<PageParameters>,
) -> Result<axum::Json<Page<ApiKeyView>>, Problem> {
    let PageRequest { limit, after } = page.parse::<ApiKeyId>()?;
    let rows = i64::try_from(limit + 1).unwrap_or(i64::MAX);
    let found = state.store.keys(principal.keys(), rows, after).await?;
    let now = state.clock.now();
    let views = found.into_iter().map(|key| ApiKeyView::of(key, now));
    let page = Page::new(views.collect(), limit, |view: &ApiKeyView| view.id);
    Ok(axum::Json(page))
}

/// Get an API key
#[utoipa::path(
    get,
    path = "/v1/api-keys/{id}",
    operation_id = "getApiKey",
    tag = "api-keys",
    params(("id" = String, Path, description = "Id of the API key")),
    responses(
        (status = 200, description = "The key, without its secret", body = ApiKeyView),
        CommonProblems,
        NotFoundProblem,
    ),
    security(("api_key" = ["keys:*"])),
)]
pub(crate) async fn get(
    State(state): State<AppState>,
    Allowed { principal, .. }: Allowed<ManageKeys>,
    PathId(id): PathId<ApiKeyId>,
) -> Result<axum::Json<ApiKeyView>, Problem> {
    let summary = find(&state, &principal, id).await?;
    Ok(axum::Json(ApiKeyView::of(summary, state.clock.now())))
}

async fn find(
    state: &AppState,
    principal: &Principal,
    id: ApiKeyId,
) -> Result<KeySummary, Problem> {
    let found = state.store.key(principal.keys(), id).await?;
    found.ok_or_else(Problem::not_found)
}

/// Revoke an API key
///
/// It is refused everywhere within five seconds, and stays in the list. A key may revoke itself.
#[utoipa::path(
    delete,
    path = "/v1/api-keys/{id}",
    operation_id = "revokeApiKey",
    tag = "api-keys",
    params(("id" = String, Path, description = "Id of the API key")),
    responses((status = 204, description = "Revoked, now or before"), CommonProblems, NotFoundProblem),
    security(("api_key" = ["keys:*"])),
)]
pub(crate) async fn revoke(
    State(state): State<AppState>,
    Allowed { principal, .. }: Allowed<ManageKeys>,
    PathId(id): PathId<ApiKeyId>,
) -> Result<StatusCode, Problem> {
    let now = state.clock.now();
    match state.store.revoke_key(principal.keys(), id, now).await? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(Problem::not_found()),
    }
}

/// Give an API key a new secret
///
/// The secret before stays good for `overlap`, or until the key expires; the one before that ends
/// at once. Only keys that can do no more than the key used.
#[utoipa::path(
    post,
    path = "/v1/api-keys/{id}/rotate",
    operation_id = "rotateApiKey",
    tag = "api-keys",
    params(("id" = String, Path, description = "Id of the API key")),
    request_body = Option<RotationRequest>,
    responses(
        (status = 200, description = "The key with its new secret", body = ApiKeyWithSecret),
        CommonProblems,
        NotFoundProblem,
        BodyProblems,
        ConflictProblem,
    ),
    security(("api_key" = ["keys:*"])),
)]
pub(crate) async fn rotate(
    State(state): State<AppState>,
    Allowed { principal, .. }: Allowed<ManageKeys>,
    PathId(id): PathId<ApiKeyId>,
    body: Option<JsonBody<RotationRequest>>,
) -> Result<Response, Problem> {
    let request = body.map(|body| body.value).unwrap_or_default();
    let overlap = request.overlap()?;
    let now = state.clock.now();
    let mut summary = find(&state, &principal, id).await?;
    grants::within(&principal.key, &summary.key)?;
    let ended = || {
        let detail = "only active keys get a new secret; create a new key";
        Problem::new(Code::KeyEnded, detail)
    };
    if status(&summary, now) != "active" {
        return Err(ended());
    }
    let (new, until) = (new_secret(summary.key.test), now + overlap);
    let of = principal.keys();
    let rotated = state
        .store
        .rotate_key(of, id, new.hash, &new.hint, until, now);
    if !rotated.await? {
        return Err(ended());
    }
    summary.hint = new.hint;
    summary.previous_until = Some(until);
    let shown = ApiKeyWithSecret {
        shown: ApiKeyView::of(summary, now),
        key: new.secret,
    };
    Ok((no_store(), axum::Json(shown)).into_response())
}
