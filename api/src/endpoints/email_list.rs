//! Listing and searching emails, from an index that is seconds behind what happened.

use axum::extract::State;
use mail::address::EmailAddress;
use mail::domain_name::DomainName;
use mail::event::DeliveryStatus;
use mail::ids::MessageId;
use serde::{Deserialize, Serialize};
use store::{EmailFilter, EmailSummary, SenderFilter};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use utoipa::{IntoParams, ToSchema};

use crate::auth::{Allowed, Principal, ReadEmails};
use crate::extract::Parameters;
use crate::openapi::{CommonProblems, ParameterProblem};
use crate::page::{Page, PageParameters, PageRequest};
use crate::problem::{Code, FieldProblem, Problem};
use crate::query_address::with_plus;
use crate::state::AppState;
use crate::timestamp::Timestamp;

/// Longer than any tag or stream may be named.
const NAME_MAX_OCTETS: usize = 256;

/// What to list. All that is given has to hold; what is said about recipient, its domain and status
/// has to hold for one and the same delivery.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct EmailParameters {
    /// How many to list.
    #[param(minimum = 1, maximum = 100, default = 20)]
    limit: Option<usize>,
    /// The `next` of the page before.
    after: Option<String>,
    /// Address of a recipient (to, cc or bcc); upper and lower case make no difference, and a `+` in
    /// it may stand as it is.
    #[param(example = "ana@example.com")]
    recipient: Option<String>,
    /// Domain of a recipient; domains below it do not count.
    #[param(example = "example.com")]
    recipient_domain: Option<String>,
    /// Address of the sender, or its domain.
    #[param(example = "hello@acme.test")]
    from: Option<String>,
    /// One of the tags, exactly.
    tag: Option<String>,
    /// Name of the stream.
    #[param(example = "transactional")]
    stream: Option<String>,
    /// Where a delivery stands: scheduled, queued, deferred, delivered, bounced, expired, suppressed
    /// or cancelled.
    #[param(example = "bounced")]
    status: Option<String>,
    /// Accepted at this time or later (RFC 3339).
    #[param(example = "2026-11-22T09:00:00Z")]
    created_after: Option<String>,
    /// Accepted before this time (RFC 3339).
    #[param(example = "2026-11-23T09:00:00Z")]
    created_before: Option<String>,
}

/// An email in a list.
#[derive(Serialize, ToSchema)]
#[schema(as = ListedEmail)]
pub(crate) struct ListedEmailView {
    #[schema(value_type = String, example = "msg_01kasxq2bke9qa1bz2t0zc6800")]
    id: MessageId,
    #[schema(value_type = String, format = DateTime, example = "2026-11-22T09:00:00.000Z")]
    created_at: Timestamp,
    #[schema(example = "Acme <hello@acme.test>")]
    from: String,
    /// Addresses of all recipients: to, cc and bcc.
    #[schema(example = json!(["ana@example.com"]))]
    to: Vec<String>,
    subject: String,
    #[schema(example = "transactional")]
    stream: String,
    tags: Vec<String>,
    /// That of the least finished delivery, as of a few seconds ago.
    #[schema(value_type = String, example = "delivered")]
    status: DeliveryStatus,
    /// Sent with a test key, so it went to the sandbox.
    test: bool,
}

impl From<EmailSummary> for ListedEmailView {
    fn from(email: EmailSummary) -> Self {
        Self {
            id: email.id,
            created_at: Timestamp::of_id(email.id.unix_ms()),
            from: email.sender,
            to: email.recipients,
            subject: email.subject,
            stream: email.stream,
            tags: email.tags,
            status: DeliveryStatus::of_message(email.statuses).unwrap_or(DeliveryStatus::Queued),
            test: email.test,
        }
    }
}

/// List and search emails
///
/// Newest first. An email appears here, and changes its status here, a few seconds after it happened;
/// `GET /v1/emails/{id}` is never behind. A search that has to pass over many emails ends its page
/// early: go on with `next` while `has_more` is true, also after a page that is short or empty. A
/// test key finds the mail of test keys only.
#[utoipa::path(
    get,
    path = "/v1/emails",
    operation_id = "listEmails",
    tag = "emails",
    params(EmailParameters),
    responses(
        (status = 200, description = "Newest first", body = Page<ListedEmailView>),
        CommonProblems,
        ParameterProblem,
    ),
    security(("api_key" = ["emails:read"])),
)]
pub(crate) async fn list(
    State(state): State<AppState>,
    Allowed { principal, .. }: Allowed<ReadEmails>,
    Parameters(mut given): Parameters<EmailParameters>,
) -> Result<axum::Json<Page<ListedEmailView>>, Problem> {
    let page = PageParameters::new(given.limit, given.after.take());
    let PageRequest { limit, after } = page.parse::<MessageId>()?;
    let filter = filter(&state, &principal, given).await?;
    let found = state
        .store
        .search_emails(principal.account, &filter, after, limit)
        .await?;
    let emails = found.emails.into_iter().map(ListedEmailView::from);
    let next = found.next.map(|next| next.to_string());
    Ok(axum::Json(Page::until(emails.collect(), next)))
}

async fn filter(
    state: &AppState,
    principal: &Principal,
    given: EmailParameters,
) -> Result<EmailFilter, Problem> {
    let mut wrong = Wrong::default();
    let stream = wrong.named("stream", given.stream);
    let mut filter = EmailFilter {
        test_only: principal.test,
        sender_domains: principal.domains().map(<[_]>::to_vec),
        recipient: wrong.parsed("recipient", given.recipient, |text| {
            EmailAddress::parse(&with_plus(text)).map_err(|error| error.to_string())
        }),
        recipient_domain: wrong.parsed("recipient_domain", given.recipient_domain, domain),
        from: wrong.parsed("from", given.from, sender),
        tag: wrong.named("tag", given.tag),
        stream: None,
        status: wrong.parsed("status", given.status, |text| {
            let words = DeliveryStatus::ALL.iter().map(|status| status.as_str());
            text.parse()
                .map_err(|_| format!("is none of {}", words.collect::<Vec<_>>().join(", ")))
        }),
        created_after: wrong.parsed("created_after", given.created_after, instant),
        created_before: wrong.parsed("created_before", given.created_before, instant),
    };
    if let Some(name) = stream {
        match state.store.stream(principal.account, &name).await? {
            Some(stream) => filter.stream = Some(stream.no),
            None => wrong.is("stream", "unknown_stream", "is no stream of this account"),
        }
    }
    wrong.none()?;
    Ok(filter)
}

fn domain(text: &str) -> Result<DomainName, String> {
    DomainName::parse(text).map_err(|error| error.to_string())
}

fn sender(text: &str) -> Result<SenderFilter, String> {
    if text.contains('@') {
        let address = EmailAddress::parse(&with_plus(text)).map_err(|error| error.to_string())?;
        return Ok(SenderFilter::Address(address));
    }
    domain(text).map(SenderFilter::Domain)
}

fn instant(text: &str) -> Result<OffsetDateTime, String> {
    OffsetDateTime::parse(text, &Rfc3339)
        .map_err(|_| "is no time like 2026-11-22T09:00:00Z (a + has to be written %2B)".to_owned())
}

/// What is wrong with the parameters, collected.
#[derive(Default)]
struct Wrong(Vec<FieldProblem>);

impl Wrong {
    fn is(&mut self, name: &str, code: &str, detail: impl Into<String>) {
        self.0
            .push(FieldProblem::new(format!("/{name}"), code, detail));
    }

    fn parsed<T>(
        &mut self,
        name: &str,
        given: Option<String>,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        match parse(&given?) {
            Ok(value) => Some(value),
            Err(detail) => {
                self.is(name, "invalid", detail);
                None
            }
        }
    }

    /// A name that somebody chose: text that PostgreSQL takes.
    fn named(&mut self, name: &str, given: Option<String>) -> Option<String> {
        self.parsed(name, given, |text| {
            if text.is_empty() || text.len() > NAME_MAX_OCTETS {
                return Err(format!("must have 1 to {NAME_MAX_OCTETS} octets"));
            }
            if text.chars().any(char::is_control) {
                return Err("has a control character".to_owned());
            }
            Ok(text.to_owned())
        })
    }

    fn none(self) -> Result<(), Problem> {
        if self.0.is_empty() {
            return Ok(());
        }
        Err(Problem::fields(self.0).with_code(Code::InvalidParameter))
    }
}
