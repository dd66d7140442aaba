//! Sending a message that the client has composed itself.

use axum::extract::{RawQuery, State};
use axum::http::HeaderMap;
use axum::response::Response;
use mail::raw::RawMessage;

use super::emails::answered;
use super::raw_parameters::RawParameters;
use crate::auth::{Allowed, SendEmails};
use crate::body_budget::work_on;
use crate::extract::MailBody;
use crate::idempotency::{IdempotencyHeader, key_hash, request_hash};
use crate::openapi::{BodyProblems, CommonProblems, ConflictProblem};
use crate::outgoing::Outgoing;
use crate::problem::Problem;
use crate::send::{AcceptedEmail, Sameness, send as accept};
use crate::state::AppState;

const PATH: &str = "/v1/emails/raw";

/// Send a finished message
///
/// The body is a message as RFC 5322 writes it, with one author of a verified domain. Its own body
/// is never altered: lines end with CRLF and have at most 998 octets, and octets over 127 reach
/// only hosts that take them (8BITMIME); others refuse it for good. Bcc, Return-Path and
/// `X-Postrider-*` fields are taken out, a missing Date or Message-ID is added, signatures that are
/// there stay. The header is ASCII, unless an address in it needs UTF-8.
#[utoipa::path(
    post,
    path = PATH,
    operation_id = "sendRawEmail",
    tag = "emails",
    params(
        RawParameters,
        ("X-Postrider-From" = Option<String>, Header, description = "Like the parameter `from`"),
        ("X-Postrider-To" = Option<String>, Header, description = "Like the parameter `to`"),
        ("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 256,
            description = "Visible ASCII. Within 24 hours the same key, parameters and body give \
                the first answer again, with `Idempotent-Replayed: true`, and send nothing."),
    ),
    request_body(content = String, content_type = "message/rfc822",
        description = "The message, as octets"),
    responses(
        (status = 202, description = "Committed; on its way", body = AcceptedEmail,
            headers(("Idempotent-Replayed" = Option<bool>, description = "true on an answer given before"))),
        CommonProblems,
        BodyProblems,
        ConflictProblem,
    ),
    security(("api_key" = ["emails:send"])),
)]
pub(crate) async fn send_raw(
    State(state): State<AppState>,
    Allowed { principal, .. }: Allowed<SendEmails>,
    idempotency: IdempotencyHeader,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    MailBody { raw, room }: MailBody,
) -> Result<Response, Problem> {
    let idempotency_key = idempotency.key()?;
    let query = query.unwrap_or_default();
    let parameters = RawParameters::parse(&query, &headers).map_err(Problem::fields)?;
    let (config, octets) = (state.config.clone(), raw.len());
    let work = move || {
        let body_hash = idempotency_key.is_some().then(|| {
            let from = headers.get_all("x-postrider-from").iter();
            let given = from.chain(headers.get_all("x-postrider-to"));
            let beside: Vec<&[u8]> = given.map(|value| value.as_bytes()).collect();
            request_hash(&[&[query.as_bytes(), &raw], beside.as_slice()].concat())
        });
        let message = RawMessage::parse(&raw, parameters.fields(), &config.message_limits);
        (idempotency_key.zip(body_hash), message)
    };
    let (same, message) = work_on(octets, work).await?;
    let message = message.map_err(Problem::fields)?;
    let sameness = same.map(|(key, body_hash)| Sameness {
        key_hash: key_hash(&principal, PATH, &key),
        body_hash,
    });
    let outcome = accept(&state, &principal, Outgoing::from(message), sameness).await?;
    drop(room);
    Ok(answered(outcome))
}
