//! Accepting one send, as a list of steps: from a parsed message to its commit.
//! Each step takes a value and gives a value; nothing is kept before the last one.

use std::sync::Arc;

use mail::address::EmailAddress;
use mail::compose::{ComposeContext, ComposeError, Composed};
use mail::dkim::body_hash;
use mail::domain_name::DomainName;
use mail::event::DeliveryStatus;
use mail::ids::{DeliveryId, MessageId};
use mail::message::MessageSummary;
use serde::Serialize;
use store::{
    AcceptRequest, Accepted, ContentKind, IdempotencyKey, MessageFlags, NewContent, NewMessage,
    NewRecipient, RetentionClass, SenderDomain,
};
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::auth::Principal;
use crate::body_budget::work_on;
use crate::outgoing::Outgoing;
use crate::problem::{Code, Problem, chain};
use crate::random;
use crate::route::{Route, Way, choose_way};
use crate::screened::{replayed, screened};
use crate::state::AppState;
use crate::timestamp::Timestamp;

/// The answer to an accepted send.
#[derive(Serialize, ToSchema)]
pub(crate) struct AcceptedEmail {
    #[schema(value_type = String, example = "msg_01kasxq2bke9qa1bz2t0zc6800")]
    id: MessageId,
    /// queued, or scheduled when it goes later; suppressed when all deliveries are.
    #[schema(value_type = String, example = "queued")]
    status: DeliveryStatus,
    /// When it goes, if that is later.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime, nullable = false)]
    send_at: Option<Timestamp>,
    /// One for each address in to, cc and bcc.
    deliveries: Vec<AcceptedDelivery>,
}

/// One recipient's copy of an accepted send.
#[derive(Serialize, ToSchema)]
struct AcceptedDelivery {
    #[schema(value_type = String, example = "dlv_01kasxq2bke9qa1bz2t0zc6801")]
    id: DeliveryId,
    #[schema(example = "ana@example.com")]
    to: String,
    /// queued or scheduled, or suppressed: the recipient is on the suppression list and is sent
    /// nothing.
    #[schema(value_type = String, example = "queued")]
    status: DeliveryStatus,
}

/// What a send came to.
pub(crate) enum Outcome {
    /// Committed now; the body of the answer.
    Accepted(String),
    /// Committed by an earlier request with the same key; the body of its answer.
    Replayed(String),
}

/// What makes this request the same as another one.
pub(crate) struct Sameness {
    pub(crate) key_hash: [u8; 32],
    pub(crate) body_hash: [u8; 32],
}

/// A message ready to be stored.
pub(crate) struct Prepared {
    pub(crate) id: MessageId,
    pub(crate) message: MessageSummary,
    pub(crate) rfc_message_id: String,
    pub(crate) needs_smtputf8: bool,
    /// The fields that are its own, where its content is shared.
    pub(crate) header: Option<String>,
    /// JSON of its variables, where its content is a template.
    pub(crate) variables: Option<String>,
    pub(crate) content: Arc<NewContent>,
}

impl Prepared {
    /// One that shares nothing.
    pub(crate) fn whole(
        id: MessageId,
        message: MessageSummary,
        composed: Composed,
        class: RetentionClass,
    ) -> Self {
        Self {
            id,
            message,
            header: None,
            variables: None,
            content: Arc::new(NewContent {
                kind: ContentKind::Message,
                class,
                body_hash: body_hash(composed.body()),
                header_len: composed.header_len,
                bytes: composed.bytes.into(),
            }),
            rfc_message_id: composed.rfc_message_id,
            needs_smtputf8: composed.needs_smtputf8,
        }
    }
}

/// Accepts a message for delivery: returns after the commit, or with nothing kept.
///
/// # Errors
/// The sender's domain is not verified, the stream or pool is unknown, the message is too large, the key
/// was used for something else, or the store does not answer.
pub(crate) async fn send(
    state: &AppState,
    principal: &Principal,
    message: Outgoing,
    sameness: Option<Sameness>,
) -> Result<Outcome, Problem> {
    let now = state.clock.now();
    let domain = authorise_senders(state, principal, &message).await?;
    let way = choose_way(state, principal, message.handling(), now).await?;
    let prepared = prepare(state, &domain.name, message, now).await?;
    let recipients = intern_recipients(state, &[&prepared.message]).await?;
    let recipients = recipients.into_iter().next().unwrap_or_default();
    let answer = to_json(&AcceptedEmail::of(&prepared, way.later_than(now)))?;
    let idempotency = sameness.map(|same| IdempotencyKey {
        key_hash: same.key_hash,
        body_hash: same.body_hash,
        response: answer.clone(),
    });
    let row = MessageRow {
        principal,
        domain: &domain,
        way,
        prepared,
        recipients,
    };
    let messages = vec![row.fill()?];
    accept(
        state,
        AcceptRequest {
            account: principal.account,
            idempotency,
            messages,
        },
        answer,
    )
    .await
}

/// The author's domain; an envelope of its own must be from a proved domain too.
async fn authorise_senders(
    state: &AppState,
    principal: &Principal,
    message: &Outgoing,
) -> Result<SenderDomain, Problem> {
    let mut author = None;
    for name in message.sender_domains() {
        let domain = authorise_sender(state, principal, name).await?;
        author.get_or_insert(domain);
    }
    author.ok_or_else(|| Problem::new(Code::SenderNotVerified, "the message has no sender"))
}

/// The sender may use only a domain that its account has proved.
pub(crate) async fn authorise_sender(
    state: &AppState,
    principal: &Principal,
    name: &DomainName,
) -> Result<SenderDomain, Problem> {
    principal.may_use_domain(name)?;
    let refuse = |detail| Err(Problem::new(Code::SenderNotVerified, detail));
    match state.store.sender_domain(principal.account, name).await? {
        Some(domain) if domain.verified => Ok(domain),
        Some(domain) => refuse(format!(
            "{name} is not verified: publish the records that GET /v1/domains/{id} shows, then have \
             them looked at with POST /v1/domains/{id}/verify",
            id = domain.id
        )),
        None => refuse(format!(
            "{name} is not a domain of this account: add it with POST /v1/domains, or send from one \
             that is (a verified domain does not speak for its subdomains)"
        )),
    }
}

/// Gives the message its id and composes it, off the reactor when that takes long.
async fn prepare(
    state: &AppState,
    domain: &DomainName,
    message: Outgoing,
    now: OffsetDateTime,
) -> Result<Prepared, Problem> {
    let unix_ms = u64::try_from(state.clock.unix_ms()).unwrap_or_default();
    let id = MessageId::from_time_and_random(unix_ms, random::octets());
    let octets = message.octets();
    let message_id_domain = domain.clone();
    let class = state.config.retention;
    let work = move || -> Result<Prepared, ComposeError> {
        let context = ComposeContext {
            message_id: id,
            date: now,
            message_id_domain: &message_id_domain,
        };
        let (message, composed) = message.compose(&context)?;
        Ok(Prepared::whole(id, message, composed, class))
    };
    let prepared = work_on(octets, work).await?.map_err(|error| {
        tracing::error!(error = chain(&error), "composing failed");
        Problem::new(Code::Internal, "the message could not be composed")
    })?;
    let max = state.config.message_max_octets;
    if prepared.content.bytes.len() > max {
        let detail = format!("a message may have {max} octets after encoding");
        return Err(Problem::new(Code::MessageTooLarge, detail));
    }
    Ok(prepared)
}

/// The recipients of each message in their order, each with the number of its domain: asked for
/// once, however many messages there are.
pub(crate) async fn intern_recipients(
    state: &AppState,
    messages: &[&MessageSummary],
) -> Result<Vec<Vec<NewRecipient>>, Problem> {
    let addresses = messages.iter().flat_map(|message| &message.recipients);
    let names: Vec<_> = addresses.map(EmailAddress::domain).collect();
    let numbers = state.store.recipient_domain_nos(&names).await?;
    let mut numbers = numbers.into_iter();
    let of_message = |message: &&MessageSummary| {
        let recipients = message.recipients.iter().zip(numbers.by_ref());
        let recipient = |(address, domain): (&EmailAddress, _)| NewRecipient {
            address: address.clone(),
            domain,
        };
        recipients.map(recipient).collect()
    };
    Ok(messages.iter().map(of_message).collect())
}

impl AcceptedEmail {
    /// Made before the commit because it is stored with it. Who turns out to be suppressed is put
    /// in afterwards. `send_at` is when it goes, if that is later.
    pub(crate) fn of(prepared: &Prepared, send_at: Option<OffsetDateTime>) -> Self {
        let status = match send_at {
            Some(_) => DeliveryStatus::Scheduled,
            None => DeliveryStatus::Queued,
        };
        let delivery = |(number, address): (u16, &EmailAddress)| AcceptedDelivery {
            id: prepared.id.delivery(number),
            to: address.to_string(),
            status,
        };
        Self {
            id: prepared.id,
            status,
            send_at: send_at.map(Timestamp::from),
            deliveries: (0u16..)
                .zip(&prepared.message.recipients)
                .map(delivery)
                .collect(),
        }
    }
}

/// Everything the stored message is made of.
pub(crate) struct MessageRow<'a> {
    pub(crate) principal: &'a Principal,
    pub(crate) domain: &'a SenderDomain,
    pub(crate) way: Way,
    pub(crate) prepared: Prepared,
    pub(crate) recipients: Vec<NewRecipient>,
}

impl MessageRow<'_> {
    pub(crate) fn fill(self) -> Result<NewMessage, Problem> {
        let Way {
            route: Route { stream, pool },
            due_at,
        } = self.way;
        let prepared = self.prepared;
        let message = &prepared.message;
        let handling = &message.handling;
        let lives_for = handling.expires_in().unwrap_or(stream.expires_after);
        let metadata = handling.metadata();
        Ok(NewMessage {
            id: prepared.id,
            account: self.principal.account,
            stream: stream.no,
            class: stream.class,
            domain: self.domain.no,
            flags: flags(self.principal, message, prepared.needs_smtputf8),
            sender: message.from.to_string(),
            subject: message.subject.to_string(),
            tags: handling.tags().iter().map(ToString::to_string).collect(),
            metadata: if metadata.is_empty() {
                None
            } else {
                Some(to_json(metadata)?)
            },
            pool,
            due_at,
            // A message for later lives as long as one sent then.
            expires_at: due_at + lives_for,
            recipients: self.recipients,
            rfc_message_id: prepared.rfc_message_id,
            header: prepared.header,
            variables: prepared.variables,
            content: prepared.content,
        })
    }
}

fn flags(principal: &Principal, message: &MessageSummary, needs_smtputf8: bool) -> MessageFlags {
    let wanted = [
        (needs_smtputf8, MessageFlags::SMTPUTF8),
        (message.handling.require_tls(), MessageFlags::REQUIRE_TLS),
        (principal.test, MessageFlags::TEST),
    ];
    let set = wanted
        .into_iter()
        .filter(|(wanted, _)| *wanted)
        .map(|(_, flag)| flag);
    set.fold(MessageFlags::NONE, MessageFlags::with)
}

pub(crate) fn to_json(value: &impl Serialize) -> Result<String, Problem> {
    serde_json::to_string(value).map_err(|error| {
        tracing::error!(%error, "could not write JSON");
        Problem::new(
            Code::Internal,
            "the cause was logged under the id of this request",
        )
    })
}

/// The commit, shared with every request that waits at the same moment.
pub(crate) async fn accept(
    state: &AppState,
    request: AcceptRequest,
    answer: String,
) -> Result<Outcome, Problem> {
    let messages = request.messages.len();
    let deliveries: usize = request
        .messages
        .iter()
        .map(|message| message.recipients.len())
        .sum();
    let timer = state.metrics.accept_seconds.start_timer();
    let accepted = state.acceptor.accept(request).await;
    timer.observe_duration();
    let count = || {
        state.metrics.accepted_messages.inc_by(messages as u64);
        state.metrics.accepted_deliveries.inc_by(deliveries as u64);
    };
    match accepted? {
        Accepted::Stored => {
            count();
            Ok(Outcome::Accepted(answer))
        }
        Accepted::Screened { suppressed } => {
            count();
            let metric = &state.metrics.suppressed_deliveries;
            metric.inc_by(suppressed.len() as u64);
            Ok(Outcome::Accepted(screened(answer, &suppressed)))
        }
        Accepted::Replayed { response } => Ok(Outcome::Replayed(replayed(state, response).await?)),
        Accepted::KeyConflict => {
            let detail = "the Idempotency-Key came with another body within the last 24 hours; \
                          use a new key for a new message";
            Err(Problem::new(Code::IdempotencyMismatch, detail))
        }
    }
}
