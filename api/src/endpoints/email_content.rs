//! What was sent: the content of an email as it is stored, in parts or as its octets.

use axum::Extension;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use mail::content_parts::{AttachmentInfo, ContentParts};
use mail::ids::MessageId;
use serde::{Deserialize, Serialize};
use store::{ContentKind, StoredMessage, WholeMessage};
use utoipa::{IntoParams, ToSchema};

use crate::auth::{Allowed, ReadEmails};
use crate::body_budget::{AnswerBudget, RoomedOctets, work_on};
use crate::extract::{Parameters, PathId};
use crate::openapi::{CommonProblems, GoneProblem, NotFoundProblem, ParameterProblem};
use crate::problem::{Code, Problem, chain};
use crate::send::to_json;
use crate::state::AppState;

/// Copies of the content in memory at once: as it is stored, unpacked, and as the answer.
const COPIES: usize = 3;

/// In which form content is wanted.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ContentParameters {
    /// `json` (parts) or `raw` (the octets, as message/rfc822).
    #[param(example = "json", default = "json")]
    format: Option<String>,
}

/// The content of an email.
#[derive(Serialize, ToSchema)]
#[schema(as = EmailContent)]
pub(crate) struct ContentView {
    #[schema(value_type = String, example = "msg_01kasxq2bke9qa1bz2t0zc6800")]
    id: MessageId,
    /// In their order. What each delivery gets besides (DKIM-Signature and the like) is not among
    /// them.
    headers: Vec<HeaderView>,
    html: Option<String>,
    text: Option<String>,
    attachments: Vec<AttachmentView>,
    /// Octets of header and body.
    size: usize,
}

/// A header field.
#[derive(Serialize, ToSchema)]
#[schema(as = EmailHeader)]
struct HeaderView {
    #[schema(example = "Subject")]
    name: String,
    /// In one line.
    value: String,
}

/// An attachment, without its octets: those are in the raw form.
#[derive(Serialize, ToSchema)]
#[schema(as = EmailAttachment)]
struct AttachmentView {
    filename: Option<String>,
    #[schema(example = "application/pdf")]
    content_type: String,
    content_id: Option<String>,
    /// Octets.
    size: usize,
}

impl From<AttachmentInfo> for AttachmentView {
    fn from(attachment: AttachmentInfo) -> Self {
        Self {
            filename: attachment.filename,
            content_type: attachment.content_type,
            content_id: attachment.content_id,
            size: attachment.octets,
        }
    }
}

impl ContentView {
    fn new(id: MessageId, raw: &[u8]) -> Self {
        let parts = ContentParts::parse(raw);
        let headers = parts.headers.into_iter();
        let attachments = parts.attachments.into_iter();
        Self {
            id,
            headers: headers
                .map(|(name, value)| HeaderView { name, value })
                .collect(),
            html: parts.html,
            text: parts.text,
            attachments: attachments.map(AttachmentView::from).collect(),
            size: raw.len(),
        }
    }
}

/// Get the content of an email
///
/// As it was composed, the same for all recipients. It is kept as long as the account's retention
/// says; after that the answer is 410.
#[utoipa::path(
    get,
    path = "/v1/emails/{id}/content",
    operation_id = "getEmailContent",
    tag = "emails",
    params(
        ("id" = String, Path, description = "Id of the email", example = "msg_01kasxq2bke9qa1bz2t0zc6800"),
        ContentParameters,
    ),
    responses(
        (status = 200, description = "The content; with `format=raw` all octets as message/rfc822", content(
            (ContentView = "application/json"),
            (String = "message/rfc822"),
        )),
        CommonProblems,
        NotFoundProblem,
        GoneProblem,
        ParameterProblem,
    ),
    security(("api_key" = ["emails:read"])),
)]
pub(crate) async fn get(
    State(state): State<AppState>,
    Allowed { principal, .. }: Allowed<ReadEmails>,
    PathId(id): PathId<MessageId>,
    Extension(budget): Extension<AnswerBudget>,
    Parameters(parameters): Parameters<ContentParameters>,
) -> Result<Response, Problem> {
    let is_raw = match parameters.format.as_deref() {
        None | Some("json") => false,
        Some("raw") => true,
        Some(_) => {
            let detail = "format must be json or raw";
            return Err(Problem::new(Code::InvalidParameter, detail));
        }
    };
    state
        .store
        .message(principal.account, id)
        .await?
        .filter(|message| principal.may_see(message.test, message.sender_domain.as_ref()))
        .ok_or_else(Problem::not_found)?;
    let octets = state.store.content_octets(id).await?;
    let octets = octets.ok_or_else(content_gone)?;
    let room = budget.room_for(octets.saturating_mul(COPIES)).await?;
    let stored = state.store.content_to_show(id).await?;
    let raw = whole(stored.ok_or_else(content_gone)?).await?.bytes;
    if !is_raw {
        let view = move || to_json(&ContentView::new(id, &raw));
        let json = Bytes::from(work_on(octets, view).await??);
        let headers = [(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        )];
        return Ok((headers, RoomedOctets::answer(json, room)).into_response());
    }
    // Anybody's HTML: a browser must neither guess its type nor show it as a page.
    let headers: [(HeaderName, HeaderValue); 3] = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("message/rfc822"),
        ),
        (
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        ),
        (
            header::CONTENT_DISPOSITION,
            HeaderValue::from_static("attachment"),
        ),
    ];
    Ok((headers, RoomedOctets::answer(raw, room)).into_response())
}

fn content_gone() -> Problem {
    let detail = "the content of this email is not kept any more";
    Problem::new(Code::ContentGone, detail)
}

/// The message in one piece, made off the reactor when that takes long.
///
/// # Errors
/// What is stored is damaged.
pub(super) async fn whole(stored: StoredMessage) -> Result<WholeMessage, Problem> {
    let octets = match stored.kind {
        // A template may take its time, however short it is.
        ContentKind::Template => usize::MAX,
        ContentKind::Entity | ContentKind::Message => stored.bytes.len(),
    };
    let id = stored.id;
    let made = work_on(octets, move || stored.into_whole()).await?;
    made.map_err(|error| {
        tracing::error!(message = %id, error = chain(&error), "stored content cannot be filled in");
        let detail = "the cause was logged under the id of this request";
        Problem::new(Code::Internal, detail)
    })
}
