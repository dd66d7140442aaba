//! Sending an email, and asking what became of it.

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use mail::content_source::parse_request;
use mail::ids::MessageId;
use mail::message_fields::{FieldError, SendRequest};

use super::email_request::EmailRequestSchema;
use super::email_view::EmailView;
use crate::auth::{Allowed, ReadEmails, SendEmails};
use crate::body_budget::work_on;
use crate::extract::{JsonBody, PathId};
use crate::idempotency::{IdempotencyHeader, REPLAYED, body_hash, key_hash};
use crate::openapi::{BodyProblems, CommonProblems, ConflictProblem, NotFoundProblem};
use crate::outgoing::Outgoing;
use crate::problem::{Code, Problem};
use crate::send::{AcceptedEmail, Outcome, Sameness, send as accept};
use crate::state::AppState;

const PATH: &str = "/v1/emails";

/// Send an email
///
/// Answers after the message is committed to disk. Each recipient is a delivery of its own, with
/// its own status and events.
#[utoipa::path(
    post,
    path = PATH,
    operation_id = "sendEmail",
    tag = "emails",
    params(("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 256,
        description = "Visible ASCII. Within 24 hours the same key and body give the first answer \
            again, with `Idempotent-Replayed: true`, and send nothing.")),
    request_body = EmailRequestSchema,
    responses(
        (status = 202, description = "Committed; on its way", body = AcceptedEmail,
            headers(("Idempotent-Replayed" = Option<bool>, description = "true on an answer given before"))),
        CommonProblems,
        BodyProblems,
        ConflictProblem,
    ),
    security(("api_key" = ["emails:send"])),
)]
pub(crate) async fn send(
    State(state): State<AppState>,
    Allowed { principal, .. }: Allowed<SendEmails>,
    idempotency: IdempotencyHeader,
    JsonBody { value, raw, room }: JsonBody<SendRequest>,
) -> Result<Response, Problem> {
    let idempotency_key = idempotency.key()?;
    let config = state.config.clone();
    // A template may take its time, however short it is.
    let octets = match value.variables {
        Some(_) => usize::MAX,
        None => raw.len(),
    };
    let work = move || {
        let body_hash = idempotency_key.is_some().then(|| body_hash(&raw));
        let message = parse_request(value, &config.message_limits);
        (idempotency_key.zip(body_hash), message)
    };
    let (same, message) = work_on(octets, work).await?;
    let message = message.map_err(refusal)?;
    let sameness = same.map(|(key, body_hash)| Sameness {
        key_hash: key_hash(&principal, PATH, &key),
        body_hash,
    });
    let outcome = accept(&state, &principal, Outgoing::from(message), sameness).await?;
    drop(room);
    Ok(answered(outcome))
}

/// The answer to what a send came to.
pub(super) fn answered(outcome: Outcome) -> Response {
    let json = [(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    )];
    match outcome {
        Outcome::Accepted(body) => (StatusCode::ACCEPTED, json, body).into_response(),
        Outcome::Replayed(body) => {
            let replayed = [(REPLAYED, HeaderValue::from_static("true"))];
            (StatusCode::ACCEPTED, json, replayed, body).into_response()
        }
    }
}

/// What is wrong with the fields. Content beyond the limit is a message too large, whatever else
/// is wrong with it.
pub(crate) fn refusal(errors: Vec<FieldError>) -> Problem {
    let is_content =
        |error: &FieldError| matches!(error.pointer.as_str(), "/html" | "/text" | "/attachments");
    let too_large = errors
        .iter()
        .any(|error| is_content(error) && error.code == "too_long");
    let problem = Problem::fields(errors);
    if too_large {
        problem.with_code(Code::MessageTooLarge)
    } else {
        problem
    }
}

/// Get an email
///
/// With its deliveries, their attempts and their events.
#[utoipa::path(
    get,
    path = "/v1/emails/{id}",
    operation_id = "getEmail",
    tag = "emails",
    params(("id" = String, Path, description = "Id of the email", example = "msg_01kasxq2bke9qa1bz2t0zc6800")),
    responses(
        (status = 200, description = "The email as it stands", body = EmailView),
        CommonProblems,
        NotFoundProblem,
    ),
    security(("api_key" = ["emails:read"])),
)]
pub(crate) async fn get(
    State(state): State<AppState>,
    Allowed { principal, .. }: Allowed<ReadEmails>,
    PathId(id): PathId<MessageId>,
) -> Result<axum::Json<EmailView>, Problem> {
    let message = state.store.message(principal.account, id).await?;
    let message = message
        .filter(|message| principal.may_see(message.test, message.sender_domain.as_ref()))
        .ok_or_else(Problem::not_found)?;
    let events = state.store.message_events(id).await?;
    Ok(axum::Json(EmailView::new(message, events)))
}
