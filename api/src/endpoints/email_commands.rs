//! Commands to one email that is on its way: cancel it, send it at another time.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use mail::event::DeliveryStatus;
use mail::ids::MessageId;
use serde::{Deserialize, Serialize};
use store::CommandKind;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use utoipa::ToSchema;

use crate::auth::{Allowed, SendEmails};
use crate::commands::{CommandedDelivery, DeliveryStanding, Standing};
use crate::extract::{JsonBody, PathId};
use crate::openapi::{BodyProblems, CommonProblems, ConflictProblem, NotFoundProblem};
use crate::problem::{Code, FieldProblem, Problem};
use crate::state::AppState;
use crate::timestamp::Timestamp;

/// How far ahead mail may be scheduled.
const AHEAD_MAX: time::Duration = time::Duration::days(30);

/// What a cancellation came to.
#[derive(Serialize, ToSchema)]
pub(crate) struct CancelledEmail {
    #[schema(value_type = String, example = "msg_01kasxq2bke9qa1bz2t0zc6800")]
    id: MessageId,
    /// `cancelled`: at least one delivery was; `cancelling`: it is decided within seconds.
    #[schema(example = "cancelled")]
    status: &'static str,
    /// Those that were already being sent, or had ended, have another status than `cancelled`.
    deliveries: Vec<CommandedDelivery>,
}

/// Cancel an email
///
/// Deliveries that wait end as `cancelled`, each with its event; what is being sent at this moment,
/// or has ended, stays as it is. Cancelling what is cancelled already is answered alike.
#[utoipa::path(
    post,
    path = "/v1/emails/{id}/cancel",
    operation_id = "cancelEmail",
    tag = "emails",
    params(("id" = String, Path, description = "Id of the email", example = "msg_01kasxq2bke9qa1bz2t0zc6800")),
    responses(
        (status = 200, description = "Cancelled, all of it or the deliveries that say so", body = CancelledEmail),
        (status = 202, description = "Noted; the events will tell", body = CancelledEmail),
        CommonProblems,
        NotFoundProblem,
        ConflictProblem,
    ),
    security(("api_key" = ["emails:send"])),
)]
pub(crate) async fn cancel(
    State(state): State<AppState>,
    Allowed { principal, .. }: Allowed<SendEmails>,
    PathId(id): PathId<MessageId>,
) -> Result<Response, Problem> {
    let mut standing = Standing::of(&state, &principal, id).await?;
    let mut waiting = standing.unfinished();
    let mut open = 0;
    if !waiting.is_empty() {
        let found = standing.find(&state, &waiting).await?;
        let gone = standing.cancel_direct(&state, &found).await?;
        waiting.retain(|one| !gone.contains(&one.key));
        let answers = standing
            .command(&state, CommandKind::Cancel, &waiting, &found)
            .await?;
        open = answers.open;
        standing.look_again(&state).await?;
    }
    let (code, status) = match open {
        0 if !standing.has(DeliveryStatus::Cancelled) => return Err(already_sending()),
        0 => (StatusCode::OK, "cancelled"),
        _ => (StatusCode::ACCEPTED, "cancelling"),
    };
    let deliveries = standing.views();
    let body = CancelledEmail {
        id,
        status,
        deliveries,
    };
    Ok((code, axum::Json(body)).into_response())
}

fn already_sending() -> Problem {
    let detail = "every delivery of it is being sent or has ended; see GET /v1/emails/{id}";
    Problem::new(Code::AlreadySending, detail)
}

/// Changes to an email that waits.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EmailChange {
    /// When to send it, at most 30 days after it was accepted; a time that has passed means now.
    #[schema(required = true, nullable = false, format = DateTime, example = "2026-11-23T09:00:00Z")]
    send_at: Option<String>,
}

/// An email with its new time.
#[derive(Serialize, ToSchema)]
pub(crate) struct ChangedEmail {
    #[schema(value_type = String, example = "msg_01kasxq2bke9qa1bz2t0zc6800")]
    id: MessageId,
    /// That of the least finished delivery.
    #[schema(value_type = String, example = "scheduled")]
    status: DeliveryStatus,
    #[schema(value_type = String, format = DateTime)]
    send_at: Timestamp,
    /// Those that were attempted already keep their times.
    deliveries: Vec<CommandedDelivery>,
}

/// Send an email at another time
///
/// Moves the deliveries that were not attempted yet; how long they are retried counts from the new
/// time. Each gets an event `email.scheduled`, or `email.queued` when the new time is now, with the
/// new `send_at` in its `data`. The event takes the place of the delivery's first one and repeats
/// its `sequence`, 1, however often the email is moved: of the two the later `timestamp` counts.
#[utoipa::path(
    patch,
    path = "/v1/emails/{id}",
    operation_id = "changeEmail",
    tag = "emails",
    params(("id" = String, Path, description = "Id of the email", example = "msg_01kasxq2bke9qa1bz2t0zc6800")),
    request_body = EmailChange,
    responses(
        (status = 200, description = "Changed", body = ChangedEmail),
        (status = 202, description = "Noted; the events will tell", body = ChangedEmail),
        CommonProblems,
        BodyProblems,
        NotFoundProblem,
        ConflictProblem,
    ),
    security(("api_key" = ["emails:send"])),
)]
pub(crate) async fn change(
    State(state): State<AppState>,
    Allowed { principal, .. }: Allowed<SendEmails>,
    PathId(id): PathId<MessageId>,
    JsonBody { value, .. }: JsonBody<EmailChange>,
) -> Result<Response, Problem> {
    let now = state.clock.now();
    let send_at = parse_send_at(value.send_at.as_deref(), now)?;
    let mut standing = Standing::of(&state, &principal, id).await?;
    check_ahead(send_at, id.unix_ms())?;
    let mut waiting = standing.unfinished();
    waiting.retain(|one: &DeliveryStanding| one.attempts == 0);
    let found = match waiting.is_empty() {
        true => return Err(already_attempted()),
        false => standing.find(&state, &waiting).await?,
    };
    let kind = CommandKind::Reschedule(send_at);
    let answers = standing.command(&state, kind, &waiting, &found).await?;
    let code = match (answers.open, answers.done) {
        (0, 0) => return Err(already_attempted()),
        (0, _) => StatusCode::OK,
        _ => StatusCode::ACCEPTED,
    };
    standing.look_again(&state).await?;
    let body = ChangedEmail {
        id,
        status: standing.status(),
        send_at: send_at.into(),
        deliveries: standing.views(),
    };
    Ok((code, axum::Json(body)).into_response())
}

fn already_attempted() -> Problem {
    let detail = "every delivery of it was attempted already, is being sent, or has ended; \
                  see GET /v1/emails/{id}";
    Problem::new(Code::AlreadySending, detail)
}

fn parse_send_at(given: Option<&str>, now: OffsetDateTime) -> Result<OffsetDateTime, Problem> {
    let Some(text) = given else {
        return Err(wrong_time("required", "is required"));
    };
    match OffsetDateTime::parse(text, &Rfc3339) {
        Err(_) => {
            let detail = "must be a time such as 2026-11-23T09:00:00Z (RFC 3339)";
            Err(wrong_time("invalid_time", detail))
        }
        Ok(at) => Ok(at.max(now)),
    }
}

/// Counted from when it was accepted (in milliseconds since 1970): what a message needs, such as its
/// domain's keys, is kept for so long and no longer, however often it is moved.
fn check_ahead(send_at: OffsetDateTime, accepted_ms: u64) -> Result<(), Problem> {
    let latest = i128::from(accepted_ms) * 1_000_000 + AHEAD_MAX.whole_nanoseconds();
    if send_at.unix_timestamp_nanos() > latest {
        let detail = "may be at most 30 days after the email was accepted";
        return Err(wrong_time("too_far", detail));
    }
    Ok(())
}

fn wrong_time(code: &'static str, detail: &str) -> Problem {
    Problem::fields([FieldProblem::new("/send_at", code, detail)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    fn code(problem: &Problem) -> String {
        let (.., fields) = problem.parts();
        let fields = serde_json::to_value(fields).unwrap();
        fields[0]["code"].as_str().unwrap().to_owned()
    }

    #[test]
    fn a_time_is_rfc_3339_and_not_over() {
        let now = datetime!(2026-11-22 09:00 UTC);
        let check = |given: Option<&str>, expected: Result<OffsetDateTime, &str>| {
            let found = parse_send_at(given, now);
            let found = found.as_ref().map_err(code);
            assert_eq!(found.copied(), expected.map_err(str::to_owned), "{given:?}");
        };
        check(
            Some("2026-11-23T10:00:00+01:00"),
            Ok(datetime!(2026-11-23 09:00 UTC)),
        );
        check(Some("0000-01-01T00:00:00Z"), Ok(now));
        check(None, Err("required"));
        for text in [
            "",
            "tomorrow",
            "2026-11-23",
            "2026-11-23T09:00:00",
            "2026-11-23T09:00:00Z\r\n",
            "\0",
        ] {
            check(Some(text), Err("invalid_time"));
        }
    }

    #[test]
    fn thirty_days_count_from_acceptance() {
        let accepted = datetime!(2026-11-22 09:00 UTC);
        let accepted_ms = u64::try_from(accepted.unix_timestamp() * 1_000).unwrap();
        let check = |at| check_ahead(at, accepted_ms).map_err(|problem| code(&problem));
        assert_eq!(check(accepted + AHEAD_MAX), Ok(()));
        let later = accepted + AHEAD_MAX + time::Duration::MILLISECOND;
        assert_eq!(check(later), Err("too_far".to_owned()));
        assert_eq!(
            check(datetime!(9999-12-31 23:59:59 UTC)),
            Err("too_far".to_owned())
        );
    }
}
