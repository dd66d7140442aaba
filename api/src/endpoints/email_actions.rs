//! Actions on all mail of an account that waits and fits a filter. The queue is walked page by page,
//! and each page notes its commands; a request that has walked long enough says where to go on.

use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use mail::domain_name::DomainName;
use serde::{Deserialize, Serialize};
use store::{CommandFilter, CommandKind, Cursor, ShardNo, WaitingStatus, WalkPlace};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::Instant;
use utoipa::ToSchema;

use crate::account_turns::{AccountTurns, SlowWork};
use crate::auth::{Allowed, Principal, SendEmails};
use crate::extract::JsonBody;
use crate::openapi::{BodyProblems, BusyProblem, CommonProblems};
use crate::problem::{Code, FieldProblem, Problem};
use crate::state::AppState;

/// Rows looked at in one statement.
const PAGE_ROWS: i64 = 800;
/// What a client is told to wait while its earlier actions are carried out.
const RETRY_SECS: u64 = 10;
/// How long one request walks.
const WALK_MAX: Duration = Duration::from_secs(10);
const TAG_MAX: usize = 256;

/// An action and what it is about.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"action": "cancel", "filter": {"stream": "news", "status": "queued"}}))]
pub(crate) struct ActionRequest {
    /// `cancel`, or `retry_now` for what was deferred. Mail that is held because it may have arrived
    /// stays held, and scheduled mail stays scheduled unless the filter asks for that status.
    #[schema(required = true, nullable = false)]
    action: Option<String>,
    /// Empty: everything of the account that waits.
    #[schema(required = true, nullable = false)]
    filter: Option<ActionFilter>,
    /// The `next` of the answer before, to go on from there.
    #[schema(nullable = false)]
    from: Option<String>,
}

/// Deliveries for which all of this is true.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ActionFilter {
    /// Name of the stream.
    stream: Option<String>,
    /// Domain of the recipient.
    domain: Option<String>,
    /// One of the tags.
    tag: Option<String>,
    /// `queued`, `deferred` or `scheduled`.
    status: Option<String>,
    /// Accepted before this time.
    #[schema(format = DateTime)]
    before: Option<String>,
    /// Accepted at this time or later.
    #[schema(format = DateTime)]
    after: Option<String>,
}

/// What was noted.
#[derive(Serialize, ToSchema)]
pub(crate) struct ActionAccepted {
    /// Deliveries that fitted, and of which the same was not wanted already; those that are being
    /// sent, or were set to another time, by the time it is their turn stay as they are.
    matched: u64,
    /// Whether all mail that waits was looked at.
    complete: bool,
    /// What to give as `from` for the rest; null when it is complete.
    next: Option<String>,
}

/// Act on all mail that waits and fits a filter
///
/// Carried out in the background, in seconds; the events tell. One request takes 10 seconds at most,
/// and an account may have 50,000 deliveries waiting for their turn: go on with `from` until
/// `complete` is true, after a while if the answer is 429. Test keys reach mail of test keys only.
#[utoipa::path(
    post,
    path = "/v1/emails/actions",
    operation_id = "actOnEmails",
    tag = "emails",
    request_body = ActionRequest,
    responses(
        (status = 202, description = "Noted", body = ActionAccepted),
        CommonProblems,
        BodyProblems,
        BusyProblem,
    ),
    security(("api_key" = ["emails:send"])),
)]
pub(crate) async fn act(
    State(state): State<AppState>,
    Allowed { principal, .. }: Allowed<SendEmails>,
    Extension(turns): Extension<AccountTurns>,
    JsonBody { value, .. }: JsonBody<ActionRequest>,
) -> Result<(StatusCode, axum::Json<ActionAccepted>), Problem> {
    let Action { kind, from, filter } = Action::parse(value)?;
    let _turn = turns.begin(principal.account, SlowWork::Walk)?;
    let room = room(&state, &principal).await?;
    let accepted = match resolve(&state, &principal, filter).await? {
        Some(filter) => walk(&state, kind, &filter, from, room).await?,
        // No mail was ever sent there.
        None => ActionAccepted {
            matched: 0,
            complete: true,
            next: None,
        },
    };
    Ok((StatusCode::ACCEPTED, axum::Json(accepted)))
}

/// How many more commands may wait: the owners of the shards need time for them, and those of all
/// accounts wait in one table.
async fn room(state: &AppState, principal: &Principal) -> Result<u64, Problem> {
    let max = state.config.open_actions_max;
    let account = principal.account;
    let open = state.store.open_bulk_commands(account, max).await?;
    if open < max {
        return Ok(max - open);
    }
    let detail = format!(
        "{max} deliveries wait for earlier actions to be carried out, which is all that may; nothing \
         was done, send this again in a few seconds"
    );
    Err(Problem::new(Code::TooManyCommands, detail)
        .with_header(header::RETRY_AFTER, HeaderValue::from(RETRY_SECS)))
}

/// Notes commands page by page until the end, or until it is enough: a page begins while there is
/// room.
async fn walk(
    state: &AppState,
    kind: CommandKind,
    filter: &CommandFilter,
    from: Option<WalkPlace>,
    room: u64,
) -> Result<ActionAccepted, Problem> {
    let (begun, now) = (Instant::now(), state.clock.now());
    let shards = state.store.all_shards().await?;
    let mut matched = 0;
    for shard in shards {
        let mut place = match from {
            Some(from) if shard < from.shard => continue,
            Some(from) if shard == from.shard => from,
            _ => WalkPlace {
                shard,
                cursor: Cursor::START,
            },
        };
        let before = matched;
        loop {
            if matched >= room || begun.elapsed() >= WALK_MAX {
                tell(state, shard, matched > before);
                let next = Some(place.to_string());
                return Ok(ActionAccepted {
                    matched,
                    complete: false,
                    next,
                });
            }
            let page = state
                .store
                .note_matching(kind, filter, place, PAGE_ROWS, now)
                .await?;
            matched += page.matched;
            match page.last {
                Some(cursor) => place.cursor = cursor,
                None => break,
            }
        }
        tell(state, shard, matched > before);
    }
    Ok(ActionAccepted {
        matched,
        complete: true,
        next: None,
    })
}

fn tell(state: &AppState, shard: ShardNo, has_news: bool) {
    if has_news {
        state.acceptor.tell_commanded(&[shard]);
    }
}

/// A request whose words are understood.
struct Action {
    kind: CommandKind,
    from: Option<WalkPlace>,
    filter: ParsedFilter,
}

struct ParsedFilter {
    stream: Option<String>,
    domain: Option<DomainName>,
    tag: Option<String>,
    status: Option<WaitingStatus>,
    before: Option<OffsetDateTime>,
    after: Option<OffsetDateTime>,
}

impl Action {
    fn parse(request: ActionRequest) -> Result<Self, Problem> {
        let mut errors = Vec::new();
        let kind = match request.action.as_deref() {
            Some("cancel") => Some(CommandKind::Cancel),
            Some("retry_now") => Some(CommandKind::RetryNow),
            Some(_) => wrong(
                &mut errors,
                "/action",
                "unknown_action",
                "is cancel or retry_now",
            ),
            None => wrong(&mut errors, "/action", "required", "is required"),
        };
        let from = request.from.as_deref().and_then(|text| {
            let detail = "must be the next of the answer before";
            text.parse()
                .ok()
                .or_else(|| wrong(&mut errors, "/from", "invalid", detail))
        });
        let filter = match request.filter {
            Some(filter) => Some(ParsedFilter::parse(filter, &mut errors)),
            None => wrong(
                &mut errors,
                "/filter",
                "required",
                "is required; {} is everything",
            ),
        };
        match (kind, filter) {
            (Some(kind), Some(filter)) if errors.is_empty() => Ok(Self { kind, from, filter }),
            _ => Err(Problem::fields(errors)),
        }
    }
}

impl ParsedFilter {
    fn parse(filter: ActionFilter, errors: &mut Vec<FieldProblem>) -> Self {
        let domain = filter.domain.as_deref().and_then(|text| {
            let detail = "is no domain that mail can be sent to";
            let parsed = DomainName::parse_host(text).ok();
            parsed.or_else(|| wrong(errors, "/filter/domain", "invalid_domain", detail))
        });
        let status = filter.status.as_deref().and_then(|word| match word {
            "scheduled" => Some(WaitingStatus::Scheduled),
            "queued" => Some(WaitingStatus::Queued),
            "deferred" => Some(WaitingStatus::Deferred),
            _ => {
                let detail = "is queued, deferred or scheduled";
                wrong(errors, "/filter/status", "unknown_status", detail)
            }
        });
        let tag = filter.tag.and_then(|tag| {
            let is_text = tag.len() <= TAG_MAX && !tag.chars().any(char::is_control);
            let detail = "is no tag that an email can have";
            is_text
                .then_some(tag)
                .or_else(|| wrong(errors, "/filter/tag", "invalid", detail))
        });
        let mut time = |pointer, text: Option<String>| {
            text.and_then(|text| {
                let detail = "must be a time such as 2026-11-23T09:00:00Z (RFC 3339)";
                let parsed = OffsetDateTime::parse(&text, &Rfc3339).ok();
                parsed.or_else(|| wrong(errors, pointer, "invalid_time", detail))
            })
        };
        Self {
            before: time("/filter/before", filter.before),
            after: time("/filter/after", filter.after),
            stream: filter.stream,
            domain,
            tag,
            status,
        }
    }
}

fn wrong<T>(errors: &mut Vec<FieldProblem>, pointer: &str, code: &str, detail: &str) -> Option<T> {
    errors.push(FieldProblem::new(pointer, code, detail));
    None
}

/// The filter in the database's numbers; none when nothing can fit it.
async fn resolve(
    state: &AppState,
    principal: &Principal,
    filter: ParsedFilter,
) -> Result<Option<CommandFilter>, Problem> {
    let stream = match &filter.stream {
        None => None,
        Some(name) if name.contains('\0') => return Err(unknown_stream()),
        Some(name) => {
            let stream = state.store.stream(principal.account, name).await?;
            Some(stream.ok_or_else(unknown_stream)?.no)
        }
    };
    let domain = match &filter.domain {
        None => None,
        Some(name) => match state.store.known_recipient_domain(name).await? {
            Some(number) => Some(number),
            None => return Ok(None),
        },
    };
    Ok(Some(CommandFilter {
        account: principal.account,
        test_only: principal.test,
        sender_domains: principal.domains().map(<[_]>::to_vec),
        stream,
        domain,
        tag: filter.tag,
        status: filter.status,
        after: filter.after,
        before: filter.before,
    }))
}

fn unknown_stream() -> Problem {
    let detail = "the account has no stream of that name";
    Problem::fields([FieldProblem::new(
        "/filter/stream",
        "unknown_stream",
        detail,
    )])
}
