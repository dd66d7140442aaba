//! What handlers take in: a JSON body, an id from the path, query parameters. Each refusal is a
//! problem that names the mistake; no extractor knows an account.

use std::error::Error;
use std::str::FromStr;

use axum::body::Body;
use axum::extract::rejection::{BytesRejection, FailedToBufferBody};
use axum::extract::{FromRequest, FromRequestParts, OptionalFromRequest, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError};
use serde::de::DeserializeOwned;

use crate::body_budget::{BodyBudget, BodyRoom, work_on};
use crate::json;
use crate::problem::{Code, Problem};
use crate::state::AppState;

/// A JSON body and the octets it was read from.
pub(crate) struct JsonBody<T> {
    pub(crate) value: T,
    /// After decompression.
    pub(crate) raw: Bytes,
    /// Kept as long as the body.
    pub(crate) room: BodyRoom,
}

impl<T: DeserializeOwned + Send + 'static> FromRequest<AppState> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, Problem> {
        let RawJson { raw, room } = RawJson::from_request(request, state).await?;
        let body = raw.clone();
        let value = work_on(raw.len(), move || json::parse(&body)).await??;
        Ok(Self { value, raw, room })
    }
}

/// A body that says it is JSON, not looked at yet.
pub(crate) struct RawJson {
    /// After decompression.
    pub(crate) raw: Bytes,
    /// Kept as long as the body.
    pub(crate) room: BodyRoom,
}

impl FromRequest<AppState> for RawJson {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, Problem> {
        check_media_type(request.headers())?;
        let (raw, room) = read_within_budget(request, state).await?;
        Ok(Self { raw, room })
    }
}

/// For requests whose body may be left out.
impl<T: DeserializeOwned + Send + 'static> OptionalFromRequest<AppState> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &AppState) -> Result<Option<Self>, Problem> {
        if !request.headers().contains_key(header::CONTENT_TYPE) {
            let emptiness = is_empty(request.into_body());
            return match tokio::time::timeout(state.config.body_timeout, emptiness).await {
                Ok(true) => Ok(None),
                _ => Err(not_json()),
            };
        }
        <Self as FromRequest<AppState>>::from_request(request, state)
            .await
            .map(Some)
    }
}

/// Whether a body ends before its first octet; no more of it is read.
async fn is_empty(mut body: Body) -> bool {
    while let Some(frame) = body.frame().await {
        let data = frame.map(|frame| frame.into_data().unwrap_or_default());
        if !data.is_ok_and(|data| data.is_empty()) {
            return false;
        }
    }
    true
}

/// A message as RFC 5322 writes it.
pub(crate) struct MailBody {
    /// After decompression.
    pub(crate) raw: Bytes,
    /// Kept as long as the body.
    pub(crate) room: BodyRoom,
}

impl FromRequest<AppState> for MailBody {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, Problem> {
        if !["message/rfc822", "message/global"].contains(&essence(request.headers()).as_str()) {
            let detail = "send the message and the header `Content-Type: message/rfc822`";
            return Err(Problem::new(Code::UnsupportedMediaType, detail));
        }
        let (raw, room) = read_within_budget(request, state).await?;
        Ok(Self { raw, room })
    }
}

/// Reads the body once there is room for it.
async fn read_within_budget(
    request: Request,
    state: &AppState,
) -> Result<(Bytes, BodyRoom), Problem> {
    let budget = request.extensions().get::<BodyBudget>().cloned();
    let budget = budget.ok_or_else(|| {
        tracing::error!("the router has no budget for bodies");
        Problem::new(Code::Internal, "the request cannot be read")
    })?;
    let wanted = wanted_room(request.headers(), state);
    let mut room = budget.room_for(wanted).await?;
    let raw = read_body(request, state).await?;
    room.shrink_to(raw.len());
    Ok((raw, room))
}

/// How many octets of room the body needs: what it announces, or as much as the largest.
/// Decompression has removed the length of what it unpacks.
fn wanted_room(headers: &HeaderMap, state: &AppState) -> usize {
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse().ok());
    announced.unwrap_or(state.config.body_max_octets)
}

/// `application/json`, or another type that says it is JSON (RFC 6839 section 3.1).
fn check_media_type(headers: &HeaderMap) -> Result<(), Problem> {
    let essence = essence(headers);
    let is_json = essence == "application/json"
        || (essence.starts_with("application/") && essence.ends_with("+json"));
    if is_json {
        return Ok(());
    }
    Err(not_json())
}

fn not_json() -> Problem {
    let detail = "send JSON and the header `Content-Type: application/json`";
    Problem::new(Code::UnsupportedMediaType, detail)
}

/// The media type without its parameters, in lower case; empty when there is none.
fn essence(headers: &HeaderMap) -> String {
    let given = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let essence = given.unwrap_or_default().split(';').next();
    essence.unwrap_or_default().trim().to_ascii_lowercase()
}

/// Reads the body; the router's limit counts what comes out of decompression.
async fn read_body(request: Request, state: &AppState) -> Result<Bytes, Problem> {
    let reading = Bytes::from_request(request, state);
    let read = tokio::time::timeout(state.config.body_timeout, reading)
        .await
        .map_err(|_| {
            let secs = state.config.body_timeout.as_secs();
            Problem::new(
                Code::BodyTimeout,
                format!("the body must arrive within {secs} s"),
            )
        })?;
    read.map_err(|rejection| {
        if is_too_large(&rejection) {
            return body_too_large(state.config.body_max_octets);
        }
        let detail = "the body ended early or its compression is damaged";
        Problem::new(Code::MalformedBody, detail)
    })
}

/// Whether one of the two limits, before and after decompression, ended the reading.
fn is_too_large(rejection: &BytesRejection) -> bool {
    // The inner limit is told by the variant, the outer one by a cause further down.
    if let BytesRejection::FailedToBufferBody(FailedToBufferBody::LengthLimitError(_)) = rejection {
        return true;
    }
    let mut cause: Option<&(dyn Error + 'static)> = Some(rejection);
    while let Some(error) = cause {
        if error.is::<LengthLimitError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// The refusal of a body that has more octets than allowed, before or after decompression.
pub(crate) fn body_too_large(max_octets: usize) -> Problem {
    let detail = format!("a body may have {max_octets} octets after decompression");
    Problem::new(Code::BodyTooLarge, detail)
}

/// An id in the path. Text that is no such id is answered like an id that does not exist.
pub(crate) struct PathId<T>(pub(crate) T);

impl<T: FromStr + Send, S: Send + Sync> FromRequestParts<S> for PathId<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Path(text) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|_| Problem::not_found())?;
        text.parse().map(Self).map_err(|_| Problem::not_found())
    }
}

/// Two ids in the path, of a thing and of one that belongs to it.
pub(crate) struct PathIds<A, B>(pub(crate) A, pub(crate) B);

impl<A, B, S> FromRequestParts<S> for PathIds<A, B>
where
    A: FromStr + Send,
    B: FromStr + Send,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Path((first, second)) = Path::<(String, String)>::from_request_parts(parts, state)
            .await
            .map_err(|_| Problem::not_found())?;
        match (first.parse(), second.parse()) {
            (Ok(first), Ok(second)) => Ok(Self(first, second)),
            _ => Err(Problem::not_found()),
        }
    }
}

/// Query parameters; `T` refuses the ones it does not know.
pub(crate) struct Parameters<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Parameters<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Query::try_from_uri(&parts.uri)
            .map(|Query(parameters)| Self(parameters))
            .map_err(|rejection| {
                let text = rejection.body_text();
                let detail = text
                    .rsplit_once("query string: ")
                    .map_or(text.as_str(), |(_, d)| d);
                Problem::new(
                    Code::InvalidParameter,
                    detail.chars().take(300).collect::<String>(),
                )
            })
    }
}
