//! Accepting a batch, as a list of steps: from the JSON of many messages to one commit. Everything
//! is asked for once, however many messages there are; the rules of one message are those of `send`.

mod body;
mod compose;
mod draft;

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use mail::domain_name::DomainName;
use mail::handling::PoolRef;
use mail::ids::MessageId;
use mail::message_fields::StreamName;
use serde::Serialize;
use store::{AcceptRequest, IdempotencyKey, NewMessage, SenderDomain};
use time::OffsetDateTime;
use tokio::sync::OwnedSemaphorePermit;
use utoipa::ToSchema;

use crate::auth::Principal;
use crate::body_budget::work_on;
use crate::problem::{Code, FieldProblem, Problem};
use crate::route::{Way, choose_route, way};
use crate::send::{
    AcceptedEmail, MessageRow, Outcome, Prepared, Sameness, accept, authorise_sender,
    intern_recipients, to_json,
};
use crate::state::AppState;
use compose::{Item, Place};

/// What becomes of the good messages of a batch that has bad ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// They are sent.
    Lenient,
    /// Nothing is sent.
    Strict,
}

/// A batch as it came in.
pub(crate) struct Batch {
    pub(crate) body: Bytes,
    /// Its turn at composing, given back after that.
    pub(crate) turn: Option<OwnedSemaphorePermit>,
    pub(crate) mode: Mode,
}

/// The answer to a batch.
#[derive(Serialize, ToSchema)]
pub(crate) struct AcceptedBatch {
    /// What became of each message, in the order of the request.
    data: Vec<BatchItem>,
}

/// One message of a batch: accepted, or refused.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
enum BatchItem {
    Accepted(AcceptedEmail),
    Refused(RefusedEmail),
}

/// A message that was not sent.
#[derive(Serialize, ToSchema)]
struct RefusedEmail {
    error: BatchItemError,
}

/// Why a message of a batch was not sent.
#[derive(Serialize, ToSchema)]
struct BatchItemError {
    /// Stable word for programs, the same as in a problem.
    #[schema(example = "validation_failed")]
    code: &'static str,
    /// What happened and what to do about it.
    detail: String,
    /// What is wrong with single fields; pointers lead into the body of the request.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    errors: Vec<FieldProblem>,
}

/// Accepts the good messages of a batch: returns after the commit, or with nothing kept.
///
/// # Errors
/// The body is no batch; no message is good, or one is bad and the mode strict; the key was used for
/// something else; the store does not answer.
pub(crate) async fn send(
    state: &AppState,
    principal: &Principal,
    batch: Batch,
    sameness: Option<Sameness>,
) -> Result<Outcome, Problem> {
    let now = state.clock.now();
    let mode = batch.mode;
    let mut items = compose(state, batch, now).await?;
    let senders = authorise_senders(state, principal, &mut items).await?;
    let mut ways = choose_ways(state, principal, &mut items, now).await?;
    refuse_if_bad(&items, mode)?;
    let answer = to_json(&answer(&items, &ways, now))?;
    let prepared: Vec<Prepared> = items
        .into_iter()
        .filter_map(|item| item.made.ok())
        .collect();
    let messages: Vec<_> = prepared.iter().map(|prepared| &prepared.message).collect();
    let recipients = intern_recipients(state, &messages).await?;
    let rows = prepared.into_iter().zip(recipients);
    let messages = rows.map(|(prepared, recipients)| {
        let domain = senders.get(prepared.message.from.address().domain());
        let (Some(domain), Some(way)) = (domain, ways.remove(&prepared.id)) else {
            return Err(Problem::new(Code::Internal, "a message was lost sight of"));
        };
        MessageRow {
            principal,
            domain,
            way,
            prepared,
            recipients,
        }
        .fill()
    });
    let messages: Vec<NewMessage> = messages.collect::<Result<_, _>>()?;
    let request = AcceptRequest {
        account: principal.account,
        idempotency: sameness.map(|same| IdempotencyKey {
            key_hash: same.key_hash,
            body_hash: same.body_hash,
            response: answer.clone(),
        }),
        messages,
    };
    accept(state, request, answer).await
}

/// Reads and composes, in one piece of work away from the reactor: many small messages take as long
/// as a large one, and templates what they like within their bounds.
async fn compose(
    state: &AppState,
    batch: Batch,
    now: OffsetDateTime,
) -> Result<Vec<Item>, Problem> {
    let config = state.config.clone();
    let work = move || {
        let body = body::read(&batch.body, config.batch_messages_max)?;
        let items = compose::compose_all(body, &config, now);
        // Kept until here even if the client has gone meanwhile.
        drop(batch.turn);
        items
    };
    work_on(usize::MAX, work).await?
}

/// The domains of the senders, each looked up once. A message from one that is not the account's is
/// refused.
async fn authorise_senders(
    state: &AppState,
    principal: &Principal,
    items: &mut [Item],
) -> Result<HashMap<DomainName, SenderDomain>, Problem> {
    let domain_of = |prepared: &Prepared| prepared.message.from.address().domain().clone();
    let names: HashSet<DomainName> = made(items).map(domain_of).collect();
    let mut senders = HashMap::new();
    let mut refused = HashMap::new();
    for name in names {
        match authorise_sender(state, principal, &name).await {
            Ok(domain) => {
                senders.insert(name, domain);
            }
            Err(problem) if problem.code() == Code::SenderNotVerified => {
                refused.insert(name, problem);
            }
            Err(problem) => return Err(problem),
        }
    }
    refuse(items, "/from", |prepared| {
        refused.get(&domain_of(prepared)).cloned()
    });
    Ok(senders)
}

/// The ways of the good messages. Streams and pools that were named are looked up once.
async fn choose_ways(
    state: &AppState,
    principal: &Principal,
    items: &mut [Item],
    now: OffsetDateTime,
) -> Result<HashMap<MessageId, Way>, Problem> {
    type Names = (Option<StreamName>, Option<PoolRef>);
    let names_of = |prepared: &Prepared| -> Names {
        let handling = &prepared.message.handling;
        (handling.stream().cloned(), handling.pool().cloned())
    };
    let names: HashSet<Names> = made(items).map(names_of).collect();
    let mut routes = HashMap::new();
    for (stream, pool) in names {
        let route = choose_route(state, principal, stream.as_ref(), pool.as_ref()).await?;
        routes.insert((stream, pool), route);
    }
    let mut ways = HashMap::new();
    refuse(items, "", |prepared| {
        let route = routes.get(&names_of(prepared))?;
        match way(state, &prepared.message.handling, now, route) {
            Ok(way) => {
                ways.insert(prepared.id, way);
                None
            }
            Err(wrong) => Some(Problem::fields(wrong)),
        }
    });
    Ok(ways)
}

fn made(items: &[Item]) -> impl Iterator<Item = &Prepared> {
    items.iter().filter_map(|item| item.made.as_ref().ok())
}

/// Refuses the good messages that have a problem; one that names no field is with the pointer's.
fn refuse(
    items: &mut [Item],
    pointer: &str,
    mut problem: impl FnMut(&Prepared) -> Option<Problem>,
) {
    for item in items {
        if let Ok(prepared) = &item.made
            && let Some(problem) = problem(prepared)
        {
            let (code, detail, mut errors) = problem.into_parts();
            if errors.is_empty() {
                errors.push(FieldProblem::new(pointer, code.word(), detail));
            }
            let errors = errors.into_iter().map(|error| {
                let at = item.place.locate(error.pointer());
                error.at(at)
            });
            item.made = Err(Problem::fields(errors).with_code(code));
        }
    }
}

/// A strict batch is refused for one bad message, any batch when there is no good one: a 202 without
/// a single message would be a lie to those who look at the status only.
fn refuse_if_bad(items: &[Item], mode: Mode) -> Result<(), Problem> {
    let bad = items.iter().filter(|item| item.made.is_err()).count();
    if bad == 0 || (mode == Mode::Lenient && bad < items.len()) {
        return Ok(());
    }
    // What is wrong with the defaults is told once.
    let mut told = HashSet::new();
    let mut errors = Vec::new();
    for item in items {
        let Err(problem) = &item.made else { continue };
        let of_item = refused(&item.place, problem).errors;
        errors.extend(
            of_item
                .into_iter()
                .filter(|error| told.insert(error.clone())),
        );
    }
    let whole = format!("nothing was sent: {bad} of {} messages", items.len());
    let detail = format!("{whole} are not right; see errors");
    Err(Problem::fields(errors).with_detail(detail))
}

/// What is wrong with a message; always with at least one place.
fn refused(place: &Place, problem: &Problem) -> BatchItemError {
    let (code, detail, mut errors) = problem.clone().into_parts();
    if errors.is_empty() {
        errors.push(FieldProblem::new(
            place.locate(""),
            code.word(),
            detail.clone(),
        ));
    }
    BatchItemError {
        code: code.word(),
        detail,
        errors,
    }
}

fn answer(items: &[Item], ways: &HashMap<MessageId, Way>, now: OffsetDateTime) -> AcceptedBatch {
    let send_at = |id: &MessageId| ways.get(id).and_then(|way: &Way| way.later_than(now));
    let answer = |item: &Item| match &item.made {
        Ok(prepared) => BatchItem::Accepted(AcceptedEmail::of(prepared, send_at(&prepared.id))),
        Err(problem) => BatchItem::Refused(RefusedEmail {
            error: refused(&item.place, problem),
        }),
    };
    AcceptedBatch {
        data: items.iter().map(answer).collect(),
    }
}
