//! Sending many emails with one request.

use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::email_request::EmailRequestSchema;
use super::emails::answered;
use crate::auth::{Allowed, SendEmails};
use crate::batch::{AcceptedBatch, Batch, Mode, send as accept};
use crate::body_budget::work_on;
use crate::extract::{Parameters, RawJson};
use crate::idempotency::{IdempotencyHeader, body_hash, key_hash};
use crate::openapi::{BodyProblems, CommonProblems, ConflictProblem};
use crate::problem::Problem;
use crate::send::Sameness;
use crate::state::AppState;

const PATH: &str = "/v1/emails/batch";

/// How a batch is taken.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct BatchParameters {
    /// `strict`: nothing is sent when one message is bad. Else the good ones are sent.
    #[param(inline)]
    mode: Option<ModeParameter>,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum ModeParameter {
    Strict,
}

/// The emails of a batch: an array, or with defaults.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = BatchRequest)]
#[expect(dead_code, reason = "a shape for the document: no value is ever made")]
pub(crate) enum BatchRequestSchema {
    /// Emails that have nothing in common but the request.
    Messages(Vec<EmailRequestSchema>),
    /// Emails with defaults.
    WithDefaults(BatchWithDefaultsSchema),
}

/// Emails that have fields in common.
#[derive(Serialize, ToSchema)]
#[schema(as = BatchWithDefaults, example = json!({
    "defaults": {
        "from": "Acme <hello@acme.test>",
        "subject": "Hi {{ name }}",
        "html": "<p>Hi {{ name }}, there is news.</p>"
    },
    "messages": [
        {"to": "ana@example.com", "variables": {"name": "Ana"}},
        {"to": "bo@example.com", "variables": {"name": "Bo"}}
    ]
}))]
pub(crate) struct BatchWithDefaultsSchema {
    /// Fields of an email. A field that a message leaves out comes from here, as a whole; only
    /// `variables` are filled in name by name. Content that messages take from here is composed,
    /// sent and stored once. `variables` here make every message a template.
    defaults: Option<serde_json::Map<String, serde_json::Value>>,
    /// 1 to 1,000 emails; with their defaults, each is one that could be sent alone.
    #[schema(min_items = 1, max_items = 1000)]
    messages: Vec<serde_json::Map<String, serde_json::Value>>,
}

/// Send a batch of emails
///
/// Answers after all good messages are committed to disk, together. The answer tells of each
/// message, in the order of the request: what sending it alone would have answered, or `error`.
/// When no message is good, or one is bad and `mode` is `strict`, nothing is sent and the answer is
/// 422 with everything that is wrong; pointers lead into the body of the request, such as
/// `/messages/3/to/0`, `/3/to/0` (an array), or `/defaults/from`.
///
/// As soon as the defaults or one message give `variables`, even `{}`, every message of the request
/// is a template, and one that gives none has those of the defaults only: a variable it lacks is an
/// error of that message, `undefined_variable` at `/messages/3/variables`, and never mail with
/// `{{ name }}` in it. `{% raw %}` keeps braces as they are. Without any `variables` in the request
/// braces are plain text.
#[utoipa::path(
    post,
    path = PATH,
    operation_id = "sendBatch",
    tag = "emails",
    params(
        BatchParameters,
        ("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 256,
            description = "Visible ASCII, for the batch as a whole. Within 24 hours the same key, \
                mode and body give the first answer again, with `Idempotent-Replayed: true`, and \
                send nothing. An answer of 422 is not remembered: nothing was sent."),
    ),
    request_body = BatchRequestSchema,
    responses(
        (status = 202, description = "The good messages are committed and on their way", body = AcceptedBatch,
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
    Parameters(parameters): Parameters<BatchParameters>,
    idempotency: IdempotencyHeader,
    RawJson { raw, room }: RawJson,
) -> Result<Response, Problem> {
    let mode = match parameters.mode {
        Some(ModeParameter::Strict) => Mode::Strict,
        None => Mode::Lenient,
    };
    let sameness = match idempotency.key()? {
        Some(key) => {
            let body = raw.clone();
            let of_body = work_on(raw.len(), move || body_hash(&body)).await?;
            Some(Sameness {
                key_hash: key_hash(&principal, PATH, &key),
                // Another mode makes it another request.
                body_hash: body_hash(&[&of_body[..], &[mode as u8]].concat()),
            })
        }
        None => None,
    };
    let turn = room.turn().await;
    let batch = Batch {
        body: raw,
        turn,
        mode,
    };
    let outcome = accept(&state, &principal, batch, sameness).await?;
    drop(room);
    Ok(answered(outcome))
}
