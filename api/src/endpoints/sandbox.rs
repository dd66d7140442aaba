//! What the sandbox MX received, for the account that sent it: its own mail and no other's.
//! The page that shows all of it is `inbox`.

use std::collections::HashMap;

use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use mail::ids::{InboxId, MessageId};
use mail::readable::Heading;
use mail::verp;
use serde::Serialize;
use store::{SandboxMessage, SandboxSummary, SentMessage, Store};
use utoipa::ToSchema;

use crate::auth::{Allowed, Principal, ReadEmails};
use crate::extract::{Parameters, PathId};
use crate::openapi::{CommonProblems, NotFoundProblem, ParameterProblem};
use crate::page::{Page, PageParameters, PageRequest};
use crate::problem::Problem;
use crate::state::AppState;
use crate::timestamp::Timestamp;

/// How many rows of other accounts one page may skip before it ends early.
const SCANNED_MAX: usize = 1000;
/// Rows of one step, however few are wanted: they may be spread thinly among those of others.
const STEP_ROWS: usize = 100;
/// Digits of a message id, as they stand in the Message-ID.
const ID_DIGITS: usize = 26;
/// How much of a message is looked at to list it, in octets; as much as lists read.
const HEAD_OCTETS: usize = 8 * 1024;

/// A message that the sandbox received.
#[derive(Serialize, ToSchema)]
#[schema(as = SandboxMessage)]
pub(crate) struct SandboxView {
    #[schema(value_type = String, example = "inb_01kasxq2bke9qa1bz2t0zc6m4d")]
    pub(crate) id: InboxId,
    /// The email it is a copy of, or reports about.
    #[schema(value_type = Option<String>, example = "msg_01kasxq2bke9qa1bz2t0zc6800")]
    message_id: Option<MessageId>,
    #[schema(value_type = String, format = DateTime)]
    received_at: Timestamp,
    /// The return path.
    mail_from: String,
    recipients: Vec<String>,
    /// The authors, decoded, as a mail program shows them.
    from: String,
    /// The subject, decoded.
    subject: String,
    /// What a receiver would find about SPF, DKIM and DMARC.
    authentication_results: String,
    /// The header block as it came, at most 8 KB of it.
    headers: String,
    /// Octets of the whole message.
    size: i32,
}

impl SandboxView {
    /// Whether `wanted`, in lower case, is in its addresses or subject.
    pub(crate) fn mentions(&self, wanted: &str) -> bool {
        let fields = [&self.from, &self.subject, &self.mail_from];
        fields
            .into_iter()
            .chain(&self.recipients)
            .any(|field| field.to_lowercase().contains(wanted))
    }
}

impl From<SandboxSummary> for SandboxView {
    fn from(message: SandboxSummary) -> Self {
        let heading = Heading::parse(&message.head);
        Self {
            from: heading.from,
            subject: heading.subject,
            id: message.id,
            message_id: sent_as(&message.mail_from, &message.recipients, &message.head),
            received_at: message.received_at.into(),
            headers: String::from_utf8_lossy(header_block(&message.head)).into_owned(),
            mail_from: message.mail_from,
            recipients: message.recipients,
            authentication_results: message.authentication_results,
            size: message.octets,
        }
    }
}

impl From<SandboxMessage> for SandboxView {
    fn from(message: SandboxMessage) -> Self {
        let octets = i32::try_from(message.raw.len()).unwrap_or(i32::MAX);
        let mut head = message.raw;
        head.truncate(HEAD_OCTETS);
        Self::from(SandboxSummary {
            id: message.id,
            received_at: message.received_at,
            mail_from: message.mail_from,
            recipients: message.recipients,
            authentication_results: message.authentication_results,
            head,
            octets,
        })
    }
}

/// List what the sandbox received
///
/// Of the mail this account sent, newest first; a test key sees the mail of test keys only.
#[utoipa::path(
    get,
    path = "/v1/sandbox/messages",
    operation_id = "listSandboxMessages",
    tag = "sandbox",
    params(PageParameters),
    responses(
        (status = 200, description = "Newest first", body = Page<SandboxView>),
        CommonProblems,
        ParameterProblem,
    ),
    security(("api_key" = ["emails:read"])),
)]
pub(crate) async fn list(
    State(state): State<AppState>,
    Allowed { principal, .. }: Allowed<ReadEmails>,
    Parameters(page): Parameters<PageParameters>,
) -> Result<axum::Json<Page<SandboxView>>, Problem> {
    let PageRequest { limit, mut after } = page.parse::<InboxId>()?;
    let mut found = Vec::new();
    let mut scanned = 0;
    while found.len() <= limit && scanned < SCANNED_MAX {
        let batch = read(&state.store, limit.max(STEP_ROWS), after).await?;
        let Some(last) = batch.last() else { break };
        after = Some(last.id);
        scanned += batch.len();
        found.extend(visible(&state, &principal, batch).await?);
    }
    let page = Page::new(found, limit, |view: &SandboxView| view.id);
    Ok(axum::Json(page))
}

/// Get what the sandbox received
#[utoipa::path(
    get,
    path = "/v1/sandbox/messages/{id}",
    operation_id = "getSandboxMessage",
    tag = "sandbox",
    params(("id" = String, Path, description = "Id of the received message")),
    responses(
        (status = 200, description = "The message", body = SandboxView),
        CommonProblems,
        NotFoundProblem,
    ),
    security(("api_key" = ["emails:read"])),
)]
pub(crate) async fn get(
    State(state): State<AppState>,
    Allowed { principal, .. }: Allowed<ReadEmails>,
    PathId(id): PathId<InboxId>,
) -> Result<axum::Json<SandboxView>, Problem> {
    let message = own_message(&state, &principal, id).await?;
    Ok(axum::Json(SandboxView::from(message)))
}

/// Get a received message as it came
#[utoipa::path(
    get,
    path = "/v1/sandbox/messages/{id}/raw",
    operation_id = "getSandboxMessageRaw",
    tag = "sandbox",
    params(("id" = String, Path, description = "Id of the received message")),
    responses(
        (status = 200, description = "All octets of the message", content_type = "message/rfc822", body = String),
        CommonProblems,
        NotFoundProblem,
    ),
    security(("api_key" = ["emails:read"])),
)]
pub(crate) async fn get_raw(
    State(state): State<AppState>,
    Allowed { principal, .. }: Allowed<ReadEmails>,
    PathId(id): PathId<InboxId>,
) -> Result<Response, Problem> {
    let message = own_message(&state, &principal, id).await?;
    Ok(as_file(message))
}

/// A message for download: a browser must neither guess its type nor show it as a page.
pub(crate) fn as_file(message: SandboxMessage) -> Response {
    let name = format!("attachment; filename=\"{}.eml\"", message.id);
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
            HeaderValue::from_str(&name).expect("an id is letters and digits"),
        ),
    ];
    (headers, message.raw).into_response()
}

/// One more than `limit`, which tells whether there is more.
pub(crate) async fn read(
    store: &Store,
    limit: usize,
    after: Option<InboxId>,
) -> Result<Vec<SandboxSummary>, Problem> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1);
    Ok(store.sandbox_messages(limit, after).await?)
}

async fn own_message(
    state: &AppState,
    principal: &Principal,
    id: InboxId,
) -> Result<SandboxMessage, Problem> {
    let message = state
        .store
        .sandbox_message(id)
        .await?
        .ok_or_else(Problem::not_found)?;
    match may_see(state, principal, &message).await? {
        true => Ok(message),
        false => Err(Problem::not_found()),
    }
}

/// Whether the account sent it, and in a mode that the key may see. Anyone who reaches the
/// sandbox's port could write a foreign return path or Message-ID, and would only show that account mail of
/// their own making.
async fn may_see(
    state: &AppState,
    principal: &Principal,
    message: &SandboxMessage,
) -> Result<bool, Problem> {
    let id = sent_as(&message.mail_from, &message.recipients, &message.raw);
    let ids: Vec<_> = id.into_iter().collect();
    let sent = state.store.sent_among(principal.account, &ids).await?;
    Ok(sent.iter().any(|sent| exists_for(principal, sent)))
}

fn exists_for(principal: &Principal, sent: &SentMessage) -> bool {
    principal.may_see(sent.test, sent.sender_domain.as_ref())
}

/// Those of a batch that [`may_see`] allows, found with one question.
async fn visible(
    state: &AppState,
    principal: &Principal,
    batch: Vec<SandboxSummary>,
) -> Result<impl Iterator<Item = SandboxView>, Problem> {
    let sent_as = |one: &SandboxSummary| sent_as(&one.mail_from, &one.recipients, &one.head);
    let ids: Vec<_> = batch.iter().filter_map(sent_as).collect();
    let sent = state.store.sent_among(principal.account, &ids).await?;
    let sent: HashMap<_, _> = sent.into_iter().map(|sent| (sent.id, sent)).collect();
    let seen: Vec<_> = batch
        .into_iter()
        .filter(|one| {
            let sent = sent_as(one).and_then(|id| sent.get(&id));
            sent.is_some_and(|sent| exists_for(principal, sent))
        })
        .collect();
    Ok(seen.into_iter().map(SandboxView::from))
}

fn header_block(raw: &[u8]) -> &[u8] {
    let end = raw.windows(4).position(|window| window == b"\r\n\r\n");
    &raw[..end.map_or(raw.len(), |at| at + 2)]
}

/// The message it was sent as, or that it answers as a report does. Our return path tells, which
/// is where reports go; a Message-ID may be the sender's own, and counts only where another
/// program has set the return path.
fn sent_as(mail_from: &str, recipients: &[String], raw: &[u8]) -> Option<MessageId> {
    let claimed = |path: &str| {
        let local_part = path.trim_start_matches('<').split('@').next()?;
        verp::claimed(local_part)
    };
    let answered = || match mail_from {
        "" => recipients.iter().find_map(|path| claimed(path)),
        _ => None,
    };
    match claimed(mail_from).or_else(answered) {
        Some(delivery) => Some(delivery.message()),
        None => id_in(raw, b"message-id:").or_else(|| id_in(raw, b"in-reply-to:")),
    }
}

/// Message-IDs that we write begin with the digits of the message.
fn id_in(raw: &[u8], name: &[u8]) -> Option<MessageId> {
    let line = header_block(raw)
        .split(|octet| *octet == b'\n')
        .scan(false, |found, line| {
            // A long value may stand on the next line (RFC 5322 section 2.2.3).
            let follows = *found && line.first().is_some_and(|c| matches!(c, b' ' | b'\t'));
            let starts = line
                .get(..name.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(name));
            *found = starts;
            Some((starts || follows).then_some(line))
        })
        .flatten()
        .find_map(|line| line.split(|octet| *octet == b'<').nth(1))?;
    let digits = std::str::from_utf8(line.get(..ID_DIGITS)?).ok()?;
    if line.get(ID_DIGITS) != Some(&b'@') {
        return None;
    }
    format!("{}_{digits}", MessageId::PREFIX).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_received_message_tells_which_email_it_is() {
        let id = MessageId::from_time_and_random(1_790_000_000_123, [5; 10]);
        let digits = id.digits();
        let check = |raw: String, expected: Option<MessageId>| {
            assert_eq!(sent_as("", &[], raw.as_bytes()), expected, "{raw}");
        };
        let key = verp::VerpKey::new(1, &[1; 32]);
        let mail_from = format!("{}@bounce.test", verp::encode(id.delivery(3), &key));
        assert_eq!(
            sent_as(&mail_from, &[], b"Message-ID: <own@acme.test>\r\n"),
            Some(id)
        );
        let to = std::slice::from_ref(&mail_from);
        assert_eq!(sent_as("", to, b"Message-ID: <r@mx.test>\r\n"), Some(id));
        assert_eq!(sent_as("a@acme.test", to, b""), None);
        let other = MessageId::from_time_and_random(1_790_000_000_123, [6; 10]).digits();
        let forged = format!("Message-ID: <{other}@acme.test>\r\n");
        assert_eq!(sent_as(&mail_from, &[], forged.as_bytes()), Some(id));
        check(
            format!("A: b\r\nMessage-ID: <{digits}@acme.test>\r\n\r\nx"),
            Some(id),
        );
        check(
            format!("message-id:\r\n <{digits}@acme.test>\r\nB: c\r\n\r\n"),
            Some(id),
        );
        check(
            format!("A: b\r\n\r\nMessage-ID: <{digits}@acme.test>\r\n"),
            None,
        );
        check(format!("X-Message-ID: <{digits}@acme.test>\r\n\r\n"), None);
        check(format!("Message-ID: <{digits}x@acme.test>\r\n\r\n"), None);
        check(format!("Message-ID: <{}>\r\n\r\n", &digits[1..]), None);
        check("Message-ID: <é@acme.test>\r\n\r\n".to_owned(), None);
        check(
            format!("Message-ID: <r@mx.test>\r\nIn-Reply-To: <{digits}@acme.test>\r\n\r\n"),
            Some(id),
        );
        let delivery = id.delivery(0).digits();
        check(format!("Message-ID: <{delivery}@acme.test>\r\n\r\n"), None);
        check(String::new(), None);
    }
}
