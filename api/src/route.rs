//! Which way a message goes: its stream and pool, as it names them, and when it is due.
//! Composes nothing and stores nothing.

use mail::handling::{Handling, PoolRef};
use mail::message_fields::StreamName;
use store::{PoolKind, PoolNo, Stream};
use time::OffsetDateTime;

use crate::auth::Principal;
use crate::problem::{Code, FieldProblem, Problem};
use crate::state::AppState;

/// The stream of messages that name none.
const STREAM_DEFAULT: &str = "transactional";

/// Which way a message goes.
#[derive(Clone)]
pub(crate) struct Route {
    pub(crate) stream: Stream,
    pub(crate) pool: Option<PoolNo>,
}

/// Which way the message goes, and when.
pub(crate) struct Way {
    pub(crate) route: Route,
    pub(crate) due_at: OffsetDateTime,
}

impl Way {
    /// When the message goes, if that is later than now.
    pub(crate) fn later_than(&self, now: OffsetDateTime) -> Option<OffsetDateTime> {
        (self.due_at > now).then_some(self.due_at)
    }
}

/// The stream and pool that were named, and when it goes.
pub(crate) async fn choose_way(
    state: &AppState,
    principal: &Principal,
    handling: &Handling,
    now: OffsetDateTime,
) -> Result<Way, Problem> {
    let route = choose_route(state, principal, handling.stream(), handling.pool()).await?;
    way(state, handling, now, &route).map_err(Problem::fields)
}

/// The way with its time.
///
/// # Errors
/// All that is wrong with stream, pool and time, at once.
pub(crate) fn way(
    state: &AppState,
    handling: &Handling,
    now: OffsetDateTime,
    route: &Result<Route, Vec<FieldProblem>>,
) -> Result<Way, Vec<FieldProblem>> {
    let due_at = handling.due_at(now, &state.config.message_limits);
    match (route, due_at) {
        (Ok(route), Ok(due_at)) => Ok(Way {
            route: route.clone(),
            due_at,
        }),
        (route, due_at) => {
            let mut wrong = route.as_ref().err().cloned().unwrap_or_default();
            wrong.extend(due_at.err().map(FieldProblem::from));
            Err(wrong)
        }
    }
}

/// The stream and pool that were named, or what is wrong with the names. Test keys go to the
/// sandbox, whatever pool they name.
///
/// # Errors
/// The store does not answer, or there is no sandbox for a test key.
pub(crate) async fn choose_route(
    state: &AppState,
    principal: &Principal,
    stream: Option<&StreamName>,
    pool: Option<&PoolRef>,
) -> Result<Result<Route, Vec<FieldProblem>>, Problem> {
    let mut wrong: Vec<FieldProblem> = Vec::new();
    let name = stream.map_or(STREAM_DEFAULT, |name| name.as_str());
    let stream = state.store.stream(principal.account, name).await?;
    if stream.is_none() {
        let detail = format!("the account has no stream named {name}");
        wrong.push(FieldProblem::new("/stream", "unknown_stream", detail));
    }
    let named = match pool {
        Some(wanted) => {
            let found = state.store.pool_by_ref(wanted).await?;
            // The sandbox is for test keys: live mail must not end there by a slip of the pen.
            let usable = found.filter(|pool| pool.kind == PoolKind::Direct);
            if usable.is_none() {
                let detail = "the account has no pool of this name or id";
                wrong.push(FieldProblem::new("/pool", "unknown_pool", detail));
            }
            usable.map(|pool| pool.no)
        }
        None => None,
    };
    let (Some(stream), true) = (stream, wrong.is_empty()) else {
        return Ok(Err(wrong));
    };
    let pool = match principal.test {
        true => Some(sandbox_pool(state).await?),
        false => named,
    };
    Ok(Ok(Route { stream, pool }))
}

pub(crate) async fn sandbox_pool(state: &AppState) -> Result<PoolNo, Problem> {
    let pool = if state.config.sandbox_available {
        state.store.sandbox_pool().await?
    } else {
        None
    };
    pool.map(|pool| pool.no).ok_or_else(|| {
        let detail = "test keys send to the sandbox only, and this platform runs none: start one, \
                      or use a live key";
        Problem::new(Code::SandboxUnavailable, detail)
    })
}
