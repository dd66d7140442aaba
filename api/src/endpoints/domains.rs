//! Sending domains: registered, proved by the records they publish, given new keys, removed.

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use mail::domain_name::DomainName;
use mail::domain_records::DOMAIN_MAX_OCTETS;
use mail::ids::DomainId;
use mail::public_suffix::is_public_suffix;
use serde::Deserialize;
use store::RegisteredDomain;
use utoipa::ToSchema;

use crate::account_turns::AccountTurns;
use crate::auth::{Allowed, ManageDomains, Principal};
use crate::domains;
use crate::endpoints::domain_view::DomainView;
use crate::extract::{JsonBody, Parameters, PathId};
use crate::openapi::{
    BodyProblems, BusyProblem, CommonProblems, ConflictProblem, NotFoundProblem, ParameterProblem,
};
use crate::page::{Page, PageParameters, PageRequest};
use crate::problem::{FieldProblem, Problem};
use crate::state::AppState;

/// A domain to send from.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"name": "mail.example.com"}))]
pub(crate) struct DomainRequest {
    /// The part after the @ of senders, exactly: a domain does not speak for its subdomains.
    #[schema(required = true, nullable = false)]
    name: Option<String>,
}

fn parse(request: DomainRequest) -> Result<DomainName, Problem> {
    let refuse = |code, detail: String| Problem::fields([FieldProblem::new("/name", code, detail)]);
    let text = request
        .name
        .ok_or_else(|| refuse("required", "is required".to_owned()))?;
    let name = DomainName::parse(&text)
        .map_err(|error| refuse("invalid_domain", format!("cannot be used: {error}")))?;
    if is_public_suffix(&name) {
        let detail = "is a suffix that belongs to everybody; use a name below it";
        return Err(refuse("public_suffix", detail.to_owned()));
    }
    if name.as_str().len() > DOMAIN_MAX_OCTETS {
        let detail = format!("may have {DOMAIN_MAX_OCTETS} octets as A-labels");
        return Err(refuse("too_long", detail));
    }
    Ok(name)
}

fn view(state: &AppState, domain: RegisteredDomain) -> DomainView {
    DomainView::new(domain, state.config.return_path_domain.as_ref())
}

/// Create a domain
///
/// Publish the records of the answer, then ask for them to be looked at; they are also looked at
/// by themselves for 72 hours. Several accounts may register a name, one may prove it.
#[utoipa::path(
    post,
    path = "/v1/domains",
    operation_id = "createDomain",
    tag = "domains",
    request_body = DomainRequest,
    responses(
        (status = 201, description = "Made, with the records to publish", body = DomainView),
        CommonProblems,
        BusyProblem,
        BodyProblems,
        ConflictProblem,
    ),
    security(("api_key" = ["domains:*"])),
)]
pub(crate) async fn create(
    State(state): State<AppState>,
    Allowed { principal, .. }: Allowed<ManageDomains>,
    Extension(turns): Extension<AccountTurns>,
    JsonBody { value, .. }: JsonBody<DomainRequest>,
) -> Result<Response, Problem> {
    let name = parse(value)?;
    principal.may_use_domain(&name)?;
    let domain = domains::register(&state, &turns, principal.account, &name).await?;
    let location = format!("{}/v1/domains/{}", state.config.public_url, domain.id);
    let mut headers = HeaderMap::new();
    if let Ok(location) = HeaderValue::from_str(&location) {
        headers.insert(header::LOCATION, location);
    }
    let body = axum::Json(view(&state, domain));
    Ok((StatusCode::CREATED, headers, body).into_response())
}

/// List domains
#[utoipa::path(
    get,
    path = "/v1/domains",
    operation_id = "listDomains",
    tag = "domains",
    params(PageParameters),
    responses(
        (status = 200, description = "Oldest first", body = Page<DomainView>),
        CommonProblems,
        ParameterProblem,
    ),
    security(("api_key" = ["domains:*"])),
)]
pub(crate) async fn list(
    State(state): State<AppState>,
    Allowed { principal, .. }: Allowed<ManageDomains>,
    Parameters(page): Parameters<PageParameters>,
) -> Result<axum::Json<Page<DomainView>>, Problem> {
    let PageRequest { limit, after } = page.parse::<DomainId>()?;
    let found = state
        .store
        .registered_domains(principal.account, principal.domains(), after, limit + 1)
        .await?;
    let views = found.into_iter().map(|domain| view(&state, domain));
    Ok(axum::Json(Page::new(
        views.collect(),
        limit,
        |view: &DomainView| view.id,
    )))
}

/// Get a domain
#[utoipa::path(
    get,
    path = "/v1/domains/{id}",
    operation_id = "getDomain",
    tag = "domains",
    params(("id" = String, Path, description = "Id of the domain")),
    responses(
        (status = 200, description = "The domain, as it was looked at last", body = DomainView),
        CommonProblems,
        NotFoundProblem,
    ),
    security(("api_key" = ["domains:*"])),
)]
pub(crate) async fn get(
    State(state): State<AppState>,
    Allowed { principal, .. }: Allowed<ManageDomains>,
    PathId(id): PathId<DomainId>,
) -> Result<axum::Json<DomainView>, Problem> {
    let domain = find(&state, &principal, id).await?;
    Ok(axum::Json(view(&state, domain)))
}

/// The account's domain of that id, if it exists for this key.
async fn find(
    state: &AppState,
    principal: &Principal,
    id: DomainId,
) -> Result<RegisteredDomain, Problem> {
    let domain = domains::find(state, principal.account, id).await?;
    match principal.has_domain(&domain.name) {
        true => Ok(domain),
        false => Err(Problem::not_found()),
    }
}

/// Verify a domain
///
/// Looks at its records now. Only ever improves its status: records that are missing are no harm to
/// a verified domain until they are missed by the daily look three times in a row.
#[utoipa::path(
    post,
    path = "/v1/domains/{id}/verify",
    operation_id = "verifyDomain",
    tag = "domains",
    params(("id" = String, Path, description = "Id of the domain")),
    responses(
        (status = 200, description = "The domain, as it was found", body = DomainView),
        CommonProblems,
        BusyProblem,
        NotFoundProblem,
        ConflictProblem,
    ),
    security(("api_key" = ["domains:*"])),
)]
pub(crate) async fn verify(
    State(state): State<AppState>,
    Allowed { principal, .. }: Allowed<ManageDomains>,
    Extension(turns): Extension<AccountTurns>,
    PathId(id): PathId<DomainId>,
) -> Result<axum::Json<DomainView>, Problem> {
    find(&state, &principal, id).await?;
    let domain = domains::check(&state, &turns, principal.account, id).await?;
    Ok(axum::Json(view(&state, domain)))
}

/// Rotate the DKIM key
///
/// Makes a second key with a selector of its own. It signs as soon as its record was found; until
/// then the old key does.
#[utoipa::path(
    post,
    path = "/v1/domains/{id}/dkim/rotate",
    operation_id = "rotateDomainKey",
    tag = "domains",
    params(("id" = String, Path, description = "Id of the domain")),
    responses(
        (status = 200, description = "The domain, with the record of the new key", body = DomainView),
        CommonProblems,
        BusyProblem,
        NotFoundProblem,
        ConflictProblem,
    ),
    security(("api_key" = ["domains:*"])),
)]
pub(crate) async fn rotate_dkim(
    State(state): State<AppState>,
    Allowed { principal, .. }: Allowed<ManageDomains>,
    Extension(turns): Extension<AccountTurns>,
    PathId(id): PathId<DomainId>,
) -> Result<axum::Json<DomainView>, Problem> {
    find(&state, &principal, id).await?;
    let domain = domains::rotate(&state, &turns, principal.account, id).await?;
    Ok(axum::Json(view(&state, domain)))
}

/// Delete a domain
///
/// Nothing more is accepted from it. Mail that was accepted before is still sent, signed as it was.
#[utoipa::path(
    delete,
    path = "/v1/domains/{id}",
    operation_id = "deleteDomain",
    tag = "domains",
    params(("id" = String, Path, description = "Id of the domain")),
    responses((status = 204, description = "Deleted"), CommonProblems, NotFoundProblem),
    security(("api_key" = ["domains:*"])),
)]
pub(crate) async fn delete(
    State(state): State<AppState>,
    Allowed { principal, .. }: Allowed<ManageDomains>,
    PathId(id): PathId<DomainId>,
) -> Result<StatusCode, Problem> {
    find(&state, &principal, id).await?;
    let (account, now) = (principal.account, state.clock.now());
    match state.store.remove_domain(account, id, now).await? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(Problem::not_found()),
    }
}
