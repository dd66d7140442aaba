//! The inbox: all that the sandbox received, of all accounts, for whoever brings the operator's
//! token. JSON for programs, a page for browsers. What mail contains is hostile: it is shown only
//! inside a frame that may run nothing and load nothing, or downloaded under a type that no
//! browser opens.

use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use mail::ids::InboxId;
use mail::readable::{Attachment, Readable};
use serde::{Deserialize, Serialize};
use store::SandboxMessage;
use utoipa::{IntoParams, ToSchema};

use crate::body_budget::work_on;
use crate::endpoints::sandbox::{SandboxView, as_file, read};
use crate::extract::{Parameters, PathId};
use crate::inbox_access::{InboxAccess, cookie};
use crate::openapi::{NotFoundProblem, ParameterProblem};
use crate::page::{Page, PageParameters, PageRequest};
use crate::problem::{Code, Problem};
use crate::state::AppState;
use crate::web_page::{HTML, WebPage, guarded};

/// How many messages one search looks at.
const SEARCHED_MAX: usize = 1000;
/// Messages read at a time while searching.
const SEARCH_BATCH: usize = 100;
/// Longest search text, in characters.
const SEARCH_MAX_CHARS: usize = 200;
/// Where a mail's HTML is shown: of an origin of its own, without scripts, forms, plug-ins, and
/// without any request to anywhere.
const FRAME_POLICY: HeaderValue = HeaderValue::from_static(
    "sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'self'",
);

const PAGE: WebPage = WebPage {
    document: include_str!("../pages/inbox.html"),
    styles: [
        include_str!("../pages/common.css"),
        include_str!("../pages/inbox.css"),
    ],
    script: include_str!("../pages/inbox.js"),
};

/// The key to the whole inbox, and which part of it is wanted.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct InboxParameters {
    /// The token of the configuration; browsers keep it in a cookie.
    #[serde(rename = "token")]
    _token: Option<String>,
    /// How many to list.
    #[param(minimum = 1, maximum = 100, default = 20)]
    limit: Option<usize>,
    /// The `next` of the page before.
    after: Option<String>,
    /// Only messages with this in their addresses or subject; a page may hold fewer than `limit`.
    #[param(max_length = 200)]
    q: Option<String>,
}

/// A message of the inbox, taken apart for reading.
#[derive(Serialize, ToSchema)]
pub(crate) struct InboxMessage {
    #[serde(flatten)]
    message: SandboxView,
    /// How the sending server called itself.
    helo: String,
    /// The addressees as the header names them.
    to: String,
    text: Option<String>,
    /// Whether there is HTML, to be shown as the answer of `html` alone.
    has_html: bool,
    attachments: Vec<AttachmentView>,
}

/// A part to download.
#[derive(Serialize, ToSchema)]
pub(crate) struct AttachmentView {
    name: String,
    media_type: String,
    /// Octets after decoding.
    size: usize,
}

impl From<Attachment> for AttachmentView {
    fn from(attachment: Attachment) -> Self {
        Self {
            name: attachment.name,
            media_type: attachment.media_type,
            size: attachment.octets,
        }
    }
}

/// List the whole sandbox
///
/// Of all accounts, for development; there only when the operator set a token. Browsers, which
/// ask for HTML, get a page.
#[utoipa::path(
    get,
    path = "/inbox",
    operation_id = "listInbox",
    tag = "inbox",
    params(InboxParameters),
    responses(
        (status = 200, description = "Newest first", body = Page<SandboxView>),
        NotFoundProblem,
        ParameterProblem,
    ),
    security(()),
)]
pub(crate) async fn list(
    State(state): State<AppState>,
    access: InboxAccess,
    headers: HeaderMap,
    Parameters(parameters): Parameters<InboxParameters>,
) -> Result<Response, Problem> {
    if wants_html(&headers) {
        return Ok(page(&state, &access));
    }
    let wanted = parameters.q.unwrap_or_default().to_lowercase();
    if wanted.chars().count() > SEARCH_MAX_CHARS {
        let detail = format!("q may have {SEARCH_MAX_CHARS} characters");
        return Err(Problem::new(Code::InvalidParameter, detail));
    }
    let page = PageParameters::new(parameters.limit, parameters.after);
    let request = page.parse::<InboxId>()?;
    let answer = match wanted.trim() {
        "" => {
            let messages = read(&state.store, request.limit, request.after).await?;
            let views = messages.into_iter().map(SandboxView::from).collect();
            Page::new(views, request.limit, |view: &SandboxView| view.id)
        }
        wanted => search(&state, request, wanted).await?,
    };
    Ok((guarded(), axum::Json(answer)).into_response())
}

/// Looks through messages, newest first, until enough are found or enough were looked at.
async fn search(
    state: &AppState,
    request: PageRequest<InboxId>,
    wanted: &str,
) -> Result<Page<SandboxView>, Problem> {
    let PageRequest { limit, mut after } = request;
    let mut found = Vec::new();
    let mut searched = 0;
    while found.len() <= limit && searched < SEARCHED_MAX {
        let batch = read(&state.store, SEARCH_BATCH, after).await?;
        let Some(last) = batch.last() else { break };
        after = Some(last.id);
        searched += batch.len();
        let views = batch.into_iter().map(SandboxView::from);
        found.extend(views.filter(|view| view.mentions(wanted)));
    }
    Ok(Page::new(found, limit, |view: &SandboxView| view.id))
}

fn wants_html(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).into_iter();
    accepted
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.to_ascii_lowercase().contains("text/html"))
}

/// The page; first without the token in the address.
fn page(state: &AppState, access: &InboxAccess) -> Response {
    match cookie(&state.config) {
        Some(cookie) if access.in_address => {
            let to = HeaderValue::from_static("inbox");
            let headers = [(header::LOCATION, to), (header::SET_COOKIE, cookie)];
            (StatusCode::SEE_OTHER, headers, guarded()).into_response()
        }
        _ => PAGE.answer(),
    }
}

/// Get a message of the inbox
#[utoipa::path(
    get,
    path = "/inbox/messages/{id}",
    operation_id = "getInboxMessage",
    tag = "inbox",
    params(("id" = String, Path, description = "Id of the received message")),
    responses(
        (status = 200, description = "The message", body = InboxMessage),
        NotFoundProblem,
    ),
    security(()),
)]
pub(crate) async fn get(
    State(state): State<AppState>,
    _: InboxAccess,
    PathId(id): PathId<InboxId>,
) -> Result<Response, Problem> {
    let message = found(&state, id).await?;
    let view = work_on(message.raw.len(), move || InboxMessage::from(message)).await?;
    Ok((guarded(), axum::Json(view)).into_response())
}

impl From<SandboxMessage> for InboxMessage {
    fn from(message: SandboxMessage) -> Self {
        let mail = Readable::parse(&message.raw);
        Self {
            helo: message.helo.clone(),
            message: SandboxView::from(message),
            to: mail.heading.to,
            text: mail.text,
            has_html: mail.html.is_some(),
            attachments: mail.attachments.into_iter().map(Into::into).collect(),
        }
    }
}

/// Get the HTML of a message of the inbox
///
/// As it came, with its own images in place. The answer's policy lets it run and load nothing.
#[utoipa::path(
    get,
    path = "/inbox/messages/{id}/html",
    operation_id = "getInboxMessageHtml",
    tag = "inbox",
    params(("id" = String, Path, description = "Id of the received message")),
    responses(
        (status = 200, description = "HTML from the mail", content_type = "text/html", body = String),
        NotFoundProblem,
    ),
    security(()),
)]
pub(crate) async fn get_html(
    State(state): State<AppState>,
    _: InboxAccess,
    PathId(id): PathId<InboxId>,
) -> Result<Response, Problem> {
    let raw = found(&state, id).await?.raw;
    let html = work_on(raw.len(), move || Readable::html_with_images(&raw)).await?;
    let html = html.ok_or_else(Problem::not_found)?;
    let headers = [
        (header::CONTENT_TYPE, HTML),
        (header::CONTENT_SECURITY_POLICY, FRAME_POLICY),
    ];
    Ok((headers, guarded(), html).into_response())
}

/// Get a message of the inbox as it came
#[utoipa::path(
    get,
    path = "/inbox/messages/{id}/raw",
    operation_id = "getInboxMessageRaw",
    tag = "inbox",
    params(("id" = String, Path, description = "Id of the received message")),
    responses(
        (status = 200, description = "All octets", content_type = "message/rfc822", body = String),
        NotFoundProblem,
    ),
    security(()),
)]
pub(crate) async fn get_raw(
    State(state): State<AppState>,
    _: InboxAccess,
    PathId(id): PathId<InboxId>,
) -> Result<Response, Problem> {
    let message = found(&state, id).await?;
    Ok((guarded(), as_file(message)).into_response())
}

/// Get an attachment of a message of the inbox
#[utoipa::path(
    get,
    path = "/inbox/messages/{id}/attachments/{index}",
    operation_id = "getInboxAttachment",
    tag = "inbox",
    params(
        ("id" = String, Path, description = "Id of the received message"),
        ("index" = u32, Path, description = "Place among `attachments`, from 0"),
    ),
    responses(
        (status = 200, description = "All octets, decoded", content_type = "application/octet-stream", body = String),
        NotFoundProblem,
    ),
    security(()),
)]
pub(crate) async fn get_attachment(
    State(state): State<AppState>,
    _: InboxAccess,
    Path((id, index)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let id: InboxId = id.parse().map_err(|_| Problem::not_found())?;
    let index: usize = index.parse().map_err(|_| Problem::not_found())?;
    let raw = found(&state, id).await?.raw;
    let part = work_on(raw.len(), move || Readable::attachment(&raw, index)).await?;
    let (attachment, content) = part.ok_or_else(Problem::not_found)?;
    let octets = HeaderValue::from_static("application/octet-stream");
    let policy = HeaderValue::from_static("sandbox; default-src 'none'");
    let headers: [(HeaderName, HeaderValue); 3] = [
        (header::CONTENT_TYPE, octets),
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::CONTENT_DISPOSITION, disposition(&attachment.name)),
    ];
    Ok((headers, guarded(), content).into_response())
}

async fn found(state: &AppState, id: InboxId) -> Result<SandboxMessage, Problem> {
    let message = state.store.sandbox_message(id).await?;
    message.ok_or_else(Problem::not_found)
}

/// `attachment` with a name in ASCII, and the whole name in the form of RFC 8187.
fn disposition(name: &str) -> HeaderValue {
    let plain = |octet: u8| octet.is_ascii_alphanumeric() || b"-_.".contains(&octet);
    let ascii: String = name
        .chars()
        .map(|c| match u8::try_from(c) {
            Ok(octet) if plain(octet) || octet == b' ' => c,
            _ => '_',
        })
        .collect();
    let encoded: String = name
        .bytes()
        .map(|octet| match plain(octet) {
            true => char::from(octet).to_string(),
            false => format!("%{octet:02X}"),
        })
        .collect();
    HeaderValue::from_str(&format!(
        "attachment; filename=\"{ascii}\"; filename*=UTF-8''{encoded}"
    ))
    .expect("letters, digits and signs of ASCII make a header value")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_downloads_cannot_leave_their_place() {
        let check = |name: &str, expected: &str| assert_eq!(disposition(name), expected);
        check(
            "a b.pdf",
            "attachment; filename=\"a b.pdf\"; filename*=UTF-8''a%20b.pdf",
        );
        check(
            "x\"\r\nSet-Cookie: é",
            "attachment; filename=\"x___Set-Cookie_ _\"; \
             filename*=UTF-8''x%22%0D%0ASet-Cookie%3A%20%C3%A9",
        );
    }

    #[test]
    fn programs_get_json_and_browsers_a_page() {
        let asks = |accept: &'static str| {
            wants_html(&HeaderMap::from_iter([(
                header::ACCEPT,
                HeaderValue::from_static(accept),
            )]))
        };
        assert!(asks("text/html,application/xhtml+xml,*/*;q=0.8"));
        assert!(!asks("*/*") && !asks("application/json"));
        assert!(!wants_html(&HeaderMap::new()));
    }
}
