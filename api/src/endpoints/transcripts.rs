//! What was said in an attempt that failed.

use axum::extract::{FromRequestParts, Path, State};
use axum::http::request::Parts;
use mail::ids::{DeliveryId, MessageId};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::auth::{Allowed, ReadEmails};
use crate::extract::Parameters;
use crate::openapi::{CommonProblems, NotFoundProblem, ParameterProblem};
use crate::problem::{Code, Problem};
use crate::state::AppState;
use crate::timestamp::Timestamp;

/// Which delivery is meant.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct TranscriptParameters {
    /// Id of the delivery; needed when the email has several.
    #[param(example = "dlv_01kasxq2bke9qa1bz2t0zc6801")]
    delivery: Option<String>,
}

/// Email and number of the attempt in the path. Text that is none is answered like what does not
/// exist.
pub(crate) struct AttemptPath {
    message: MessageId,
    number: u16,
}

impl<S: Send + Sync> FromRequestParts<S> for AttemptPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::<(String, String)>::from_request_parts(parts, state).await;
        let Path((message, number)) = path.map_err(|_| Problem::not_found())?;
        match (message.parse(), number.parse()) {
            (Ok(message), Ok(number)) => Ok(Self { message, number }),
            _ => Err(Problem::not_found()),
        }
    }
}

/// The dialogue of an attempt.
#[derive(Serialize, ToSchema)]
#[schema(as = Transcript)]
pub(crate) struct TranscriptView {
    #[schema(value_type = String, example = "dlv_01kasxq2bke9qa1bz2t0zc6801")]
    delivery_id: DeliveryId,
    /// Of the attempt.
    number: u16,
    /// When its outcome was known.
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    /// Line by line: `C: ` what we said, `S: ` what the host answered, `-- ` remarks. At most 8 KB;
    /// the message itself and passwords are never in it.
    #[schema(
        example = "S: 220 mx.example.com ready\nC: EHLO mail.acme.test\nS: 250 mx.example.com\n"
    )]
    transcript: String,
}

/// Get the transcript of an attempt
///
/// The SMTP dialogue of an attempt that failed. None is kept of attempts that delivered, or that
/// never reached a host.
#[utoipa::path(
    get,
    path = "/v1/emails/{id}/attempts/{number}/transcript",
    operation_id = "getTranscript",
    tag = "emails",
    params(
        ("id" = String, Path, description = "Id of the email", example = "msg_01kasxq2bke9qa1bz2t0zc6800"),
        ("number" = u16, Path, description = "Number of the attempt, 1 for the first"),
        TranscriptParameters,
    ),
    responses(
        (status = 200, description = "The dialogue", body = TranscriptView),
        CommonProblems,
        NotFoundProblem,
        ParameterProblem,
    ),
    security(("api_key" = ["emails:read"])),
)]
pub(crate) async fn get(
    State(state): State<AppState>,
    Allowed { principal, .. }: Allowed<ReadEmails>,
    AttemptPath {
        message: id,
        number,
    }: AttemptPath,
    Parameters(parameters): Parameters<TranscriptParameters>,
) -> Result<axum::Json<TranscriptView>, Problem> {
    let message = state.store.message(principal.account, id).await?;
    let message = message
        .filter(|message| principal.may_see(message.test, message.sender_domain.as_ref()))
        .ok_or_else(Problem::not_found)?;
    let delivery = match parameters.delivery {
        Some(text) => delivery_of(id, &text, message.recipients.len())?,
        None if message.recipients.len() == 1 => id.delivery(0),
        None => {
            let detail = "the email has several deliveries: say which with delivery=dlv_…";
            return Err(Problem::new(Code::InvalidParameter, detail));
        }
    };
    let attempt = state
        .store
        .attempt_transcript(id, delivery.recipient_index(), number)
        .await?
        .ok_or_else(Problem::not_found)?;
    let Some(transcript) = attempt.transcript else {
        let detail = "no transcript was kept: the attempt delivered, or never reached a host";
        return Err(Problem::new(Code::NoTranscript, detail));
    };
    Ok(axum::Json(TranscriptView {
        delivery_id: delivery,
        number,
        at: Timestamp::of_id(attempt.event.unix_ms()),
        transcript,
    }))
}

/// The delivery, if it is one of this email.
fn delivery_of(id: MessageId, text: &str, recipients: usize) -> Result<DeliveryId, Problem> {
    let delivery: Option<DeliveryId> = text.parse().ok();
    delivery
        .filter(|delivery| delivery.message() == id)
        .filter(|delivery| usize::from(delivery.recipient_index()) < recipients)
        .ok_or_else(Problem::not_found)
}
