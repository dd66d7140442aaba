//! Sending an email once more: a new email with the content of an earlier one.

use std::sync::Arc;

use axum::body::HttpBody;
use axum::extract::{Extension, FromRequest, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use mail::address::EmailAddress;
use mail::ids::{DeliveryId, MessageId};
use mail::mailbox::Mailbox;
use mail::message_fields::bounded;
use mail::restamp::restamp;
use serde::{Deserialize, Deserializer, Serialize};
use store::{
    AcceptRequest, ContentKind, IdempotencyKey, MessageFlags, MessageView, NewContent, NewMessage,
    NewRecipient, SenderDomain, StoredMessage, Stream,
};
use utoipa::ToSchema;

use super::email_content::whole;
use crate::auth::{Allowed, Principal, SendEmails};
use crate::body_budget::{BodyBudget, work_on};
use crate::extract::{JsonBody, PathId};
use crate::idempotency::{IdempotencyHeader, REPLAYED, body_hash, key_hash};
use crate::openapi::{BodyProblems, CommonProblems, ConflictProblem, GoneProblem, NotFoundProblem};
use crate::problem::{Code, FieldProblem, Problem, chain};
use crate::random;
use crate::route::sandbox_pool;
use crate::send::{Outcome, accept, to_json};
use crate::state::AppState;

/// Addresses that one request may name.
const RECIPIENTS_MAX: usize = 100;

/// To whom an email goes once more.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ResendRequest {
    /// Some of the email's recipients; absent: all of them.
    #[serde(default, deserialize_with = "read_to")]
    #[schema(nullable = false, example = json!(["ana@example.com"]))]
    to: Option<Vec<String>>,
}

fn read_to<'de, D: Deserializer<'de>>(given: D) -> Result<Option<Vec<String>>, D::Error> {
    bounded::list::<_, RECIPIENTS_MAX>(given).map(Some)
}

/// The answer to an accepted resend.
#[derive(Serialize, ToSchema)]
pub(crate) struct ResentEmail {
    /// The new email's.
    #[schema(value_type = String, example = "msg_01kasxq2bke9qa1bz2t0zc6800")]
    id: MessageId,
    #[schema(example = "queued")]
    status: &'static str,
    deliveries: Vec<ResentDelivery>,
}

/// One recipient's copy of a resent email.
#[derive(Serialize, ToSchema)]
struct ResentDelivery {
    #[schema(value_type = String, example = "dlv_01kasxq2bke9qa1bz2t0zc6801")]
    id: DeliveryId,
    #[schema(example = "ana@example.com")]
    to: String,
    #[schema(example = "queued")]
    status: &'static str,
}

/// A body that may be left out.
pub(crate) struct ResendBody {
    request: ResendRequest,
    raw: Bytes,
}

impl FromRequest<AppState> for ResendBody {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, Problem> {
        let is_absent =
            request.body().size_hint().exact() == Some(0) || (request.body().is_end_stream());
        if is_absent && !request.headers().contains_key(header::CONTENT_TYPE) {
            let (request, raw) = (ResendRequest::default(), Bytes::new());
            return Ok(Self { request, raw });
        }
        let JsonBody { value, raw, .. } = JsonBody::from_request(request, state).await?;
        Ok(Self {
            request: value,
            raw,
        })
    }
}

/// Send an email once more
///
/// A new email with the same content under an id, a Message-ID and a date of its own, to the same
/// recipients or some of them. Needs the content: 410 `content_gone` once it is no longer kept. Mail
/// of a test key is resent to the sandbox, whichever key asks.
#[utoipa::path(
    post,
    path = "/v1/emails/{id}/resend",
    operation_id = "resendEmail",
    tag = "emails",
    params(
        ("id" = String, Path, description = "Id of the email", example = "msg_01kasxq2bke9qa1bz2t0zc6800"),
        ("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 256,
            description = "As for sending an email"),
    ),
    request_body = inline(Option<ResendRequest>),
    responses(
        (status = 202, description = "Committed; on its way", body = ResentEmail),
        CommonProblems,
        BodyProblems,
        NotFoundProblem,
        GoneProblem,
        ConflictProblem,
    ),
    security(("api_key" = ["emails:send"])),
)]
pub(crate) async fn resend(
    State(state): State<AppState>,
    Allowed { principal, .. }: Allowed<SendEmails>,
    PathId(id): PathId<MessageId>,
    Extension(budget): Extension<BodyBudget>,
    idempotency: IdempotencyHeader,
    ResendBody { request, raw }: ResendBody,
) -> Result<Response, Problem> {
    let idempotency_key = idempotency.key()?;
    let message = state.store.message(principal.account, id).await?;
    let message = message
        .filter(|message| principal.may_see(message.test, message.sender_domain.as_ref()))
        .ok_or_else(Problem::not_found)?;
    let chosen = choose(&message, request.to)?;
    let domain = authorise_sender(&state, &principal, &message).await?;
    let stream = stream_of(&state, &principal, &message).await?;
    // The content may be as large as any body.
    let _room = budget.room_for(state.config.message_max_octets).await?;
    let content = state
        .store
        .content_to_show(id)
        .await?
        .ok_or_else(content_gone)?;
    let again = Again {
        principal: &principal,
        message,
        chosen,
        domain,
        stream,
    };
    let (message, answer) = again.prepare(&state, content).await?;
    let idempotency = idempotency_key.map(|key| IdempotencyKey {
        key_hash: key_hash(&principal, &format!("/v1/emails/{id}/resend"), &key),
        body_hash: body_hash(&raw),
        response: answer.clone(),
    });
    let accepting = AcceptRequest {
        account: principal.account,
        idempotency,
        messages: vec![message],
    };
    let json = [(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    )];
    Ok(match accept(&state, accepting, answer).await? {
        Outcome::Accepted(body) => (StatusCode::ACCEPTED, json, body).into_response(),
        Outcome::Replayed(body) => {
            let replayed = [(REPLAYED, HeaderValue::from_static("true"))];
            (StatusCode::ACCEPTED, json, replayed, body).into_response()
        }
    })
}

fn content_gone() -> Problem {
    let detail = "its content is no longer kept, so it cannot be sent again; send a new email";
    Problem::new(Code::ContentGone, detail)
}

/// The recipients that are wanted, in the email's order, each once.
fn choose(message: &MessageView, to: Option<Vec<String>>) -> Result<Vec<EmailAddress>, Problem> {
    let stored = message
        .recipients
        .iter()
        .filter_map(|text| text.parse().ok());
    let all: Vec<EmailAddress> = stored.collect();
    let Some(words) = to else {
        return Ok(all);
    };
    let mut errors = Vec::new();
    if words.is_empty() {
        let detail = "name at least one, or leave it out for all";
        errors.push(FieldProblem::new("/to", "required", detail));
    }
    let mut wanted = Vec::new();
    for (index, word) in words.iter().enumerate() {
        let address = Mailbox::parse(word)
            .ok()
            .map(|mailbox| mailbox.address().clone());
        match address.filter(|address| all.contains(address)) {
            Some(address) => wanted.push(address),
            None => {
                let (pointer, detail) = (format!("/to/{index}"), "is no recipient of the email");
                errors.push(FieldProblem::new(pointer, "not_a_recipient", detail));
            }
        }
    }
    if !errors.is_empty() {
        return Err(Problem::fields(errors));
    }
    Ok(all
        .into_iter()
        .filter(|address| wanted.contains(address))
        .collect())
}

/// The domain may have been taken away since.
async fn authorise_sender(
    state: &AppState,
    principal: &Principal,
    message: &MessageView,
) -> Result<SenderDomain, Problem> {
    let sender = Mailbox::parse(&message.sender).map_err(|error| {
        tracing::error!(%error, message = %message.id, "a stored sender cannot be read");
        Problem::new(
            Code::Internal,
            "the cause was logged under the id of this request",
        )
    })?;
    let name = sender.address().domain();
    principal.may_use_domain(name)?;
    let domain = state.store.sender_domain(principal.account, name).await?;
    domain.filter(|domain| domain.verified).ok_or_else(|| {
        let detail = format!("{name} is not a verified domain of this account any more");
        Problem::new(Code::SenderNotVerified, detail)
    })
}

async fn stream_of(
    state: &AppState,
    principal: &Principal,
    message: &MessageView,
) -> Result<Stream, Problem> {
    let stream = state
        .store
        .stream(principal.account, &message.stream)
        .await?;
    stream.ok_or_else(|| Problem::new(Code::Conflict, "its stream does not exist any more"))
}

/// An email about to be sent once more.
struct Again<'a> {
    principal: &'a Principal,
    message: MessageView,
    chosen: Vec<EmailAddress>,
    domain: SenderDomain,
    stream: Stream,
}

impl Again<'_> {
    async fn prepare(
        self,
        state: &AppState,
        content: StoredMessage,
    ) -> Result<(NewMessage, String), Problem> {
        let now = state.clock.now();
        let unix_ms = u64::try_from(state.clock.unix_ms()).unwrap_or_default();
        let id = MessageId::from_time_and_random(unix_ms, random::octets());
        let rfc_message_id = format!("<{}@{}>", id.digits(), self.domain.name);
        let flags = content.flags;
        let whole = whole(content).await?;
        let (old, new_id) = (whole.bytes, rfc_message_id.clone());
        let (octets, header_len) = (old.len(), whole.header_len);
        let work = move || restamp(&old, header_len, &new_id, now);
        let stamped = work_on(octets, work).await?.map_err(|error| {
            tracing::error!(error = chain(&error), "restamping failed");
            Problem::new(Code::Internal, "the message could not be composed")
        })?;
        let answer = to_json(&self.answer(id))?;
        let pool = match flags.contains(MessageFlags::TEST) {
            true => Some(sandbox_pool(state).await?),
            false => None,
        };
        let names: Vec<_> = self.chosen.iter().map(EmailAddress::domain).collect();
        let numbers = state.store.recipient_domain_nos(&names).await?;
        let recipients = self.chosen.into_iter().zip(numbers);
        let message = NewMessage {
            id,
            account: self.principal.account,
            stream: self.stream.no,
            class: self.stream.class,
            domain: self.domain.no,
            flags,
            sender: self.message.sender,
            rfc_message_id,
            header: None,
            variables: None,
            subject: self.message.subject,
            tags: self.message.tags,
            metadata: self.message.metadata,
            pool,
            due_at: now,
            expires_at: now + self.stream.expires_after,
            recipients: recipients
                .map(|(address, domain)| NewRecipient { address, domain })
                .collect(),
            content: Arc::new(NewContent {
                kind: ContentKind::Message,
                class: state.config.retention,
                header_len: stamped.header_len,
                bytes: stamped.bytes.into(),
                body_hash: whole.body_hash,
            }),
        };
        Ok((message, answer))
    }

    fn answer(&self, id: MessageId) -> ResentEmail {
        let delivery = |(number, address): (u16, &EmailAddress)| ResentDelivery {
            id: id.delivery(number),
            to: address.to_string(),
            status: "queued",
        };
        ResentEmail {
            id,
            status: "queued",
            deliveries: (0u16..).zip(&self.chosen).map(delivery).collect(),
        }
    }
}
