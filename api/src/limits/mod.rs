//! How often an account and a key may ask: token buckets that all nodes share in Redis, of which this
//! node takes a few tokens ahead; and its own share when Redis is away. Never an error, and never a
//! wait for a Redis that is known to be gone. docs/decisions/0007-rate-limits.md has the reasons.

mod caller;
mod gcra;
mod wrong_keys;

use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;
use mail::ids::ApiKeyId;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use store::{AccountNo, ApiKey, RateLimitStore};

use self::caller::Caller;
use self::gcra::{Bucket, Quota};
pub(crate) use self::wrong_keys::WrongKeys;
use crate::config::RateLimits;
use crate::problem::{Code, Problem};

const LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("ratelimit-reset");

/// Callers remembered at once; the one that was quiet for longest goes.
const REMEMBERED_MAX: u64 = 100_000;
/// A caller that was quiet for this long is forgotten; Redis or a full bucket takes its place.
const REMEMBERED_FOR: Duration = Duration::from_secs(3_600);

/// Whose limit it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LimitOf {
    Account,
    Key,
}

impl LimitOf {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Account => "account",
            Self::Key => "key",
        }
    }
}

/// Both limits of a caller; none where there is no limit.
#[derive(Clone, Copy, Debug)]
struct Quotas {
    account: Option<Quota>,
    key: Option<Quota>,
}

impl Quotas {
    fn each(self) -> impl Iterator<Item = (LimitOf, Quota)> {
        let named = [(LimitOf::Account, self.account), (LimitOf::Key, self.key)];
        named
            .into_iter()
            .filter_map(|(of, quota)| quota.map(|quota| (of, quota)))
    }
}

/// How a caller stands with the scarcer of its limits; shown on every answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Requests at once, after a rest.
    limit: u32,
    /// Requests at once, now.
    remaining: u32,
    /// Seconds until `limit` are there again.
    reset_secs: u64,
}

impl Standing {
    fn new(quota: Quota, remaining: u32, debt: Duration) -> Self {
        Self {
            limit: quota.burst(),
            remaining,
            reset_secs: whole_secs(debt),
        }
    }
}

/// Whether a request goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Admitted,
    Refused { of: LimitOf, wait: Duration },
}

/// What was found about one request; no standing where nothing is limited.
struct Decision {
    verdict: Verdict,
    standing: Option<Standing>,
}

/// A request too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooMany {
    pub(crate) of: LimitOf,
    pub(crate) wait: Duration,
}

impl TooMany {
    /// The answer.
    pub(crate) fn problem(self) -> Problem {
        let whose = match self.of {
            LimitOf::Account => "the account's",
            LimitOf::Key => "the API key's",
        };
        too_many(self.wait, &format!("{whose} limit of requests is reached"))
    }
}

/// The answer to one request too many of anybody.
pub(crate) fn too_many(wait: Duration, why: &str) -> Problem {
    let secs = whole_secs(wait).max(1);
    let detail = format!("{why}; try again in {secs} s, and more slowly");
    Problem::new(Code::RateLimited, detail)
        .with_header(header::RETRY_AFTER, HeaderValue::from(secs))
}

/// The limits of all callers.
pub(crate) struct Limiter {
    quotas: Quotas,
    nodes: u32,
    shared: Option<RateLimitStore>,
    /// By account and mode.
    accounts: Cache<(AccountNo, bool), Arc<Mutex<Bucket>>>,
    callers: Cache<ApiKeyId, Arc<Caller>>,
    started: Instant,
}

impl Limiter {
    pub(crate) fn new(limits: &RateLimits, shared: Option<RateLimitStore>) -> Self {
        let quotas = Quotas {
            account: Quota::new(limits.account_per_second, limits.account_burst),
            key: Quota::new(limits.key_per_second, limits.key_burst),
        };
        Self {
            quotas,
            nodes: limits.nodes_expected.get(),
            shared,
            accounts: remembered(REMEMBERED_FOR),
            callers: remembered(REMEMBERED_FOR),
            started: Instant::now(),
        }
    }

    /// Counts one request, and shows in `cell` how the caller stands.
    ///
    /// # Errors
    /// It is one too many.
    pub(crate) async fn admit(
        &self,
        key: &ApiKey,
        cell: Option<&StandingCell>,
    ) -> Result<Counted, TooMany> {
        if self.quotas.each().next().is_none() {
            return Ok(Counted::Not);
        }
        let (decision, counted) = self.decide(key).await;
        if let (Some(cell), Some(standing)) = (cell, decision.standing) {
            // One request, one key: it is set once.
            let _ = cell.0.set(standing);
        }
        match decision.verdict {
            Verdict::Admitted => Ok(counted),
            Verdict::Refused { of, wait } => Err(TooMany { of, wait }),
        }
    }

    async fn decide(&self, key: &ApiKey) -> (Decision, Counted) {
        let caller = self.caller(key);
        if let Some(decision) = caller.at_hand(self.now()) {
            return (decision, Counted::Shared);
        }
        let Some(shared) = &self.shared else {
            return (caller.alone(1, self.now()), Counted::Shared);
        };
        if shared.is_up() {
            let _turn = caller.asking.lock().await;
            let asked_at = self.now();
            // Whoever had the turn before may have brought enough.
            if let Some(decision) = caller.at_hand(asked_at) {
                return (decision, Counted::Shared);
            }
            let (wanted, buckets) = caller.wish(asked_at);
            if let Ok(taken) = shared.take(key.account, wanted, &buckets).await {
                let now = self.now();
                caller.refill(&taken, asked_at, now);
                if let Some(decision) = caller.at_hand(now) {
                    return (decision, Counted::Shared);
                }
            }
        }
        (caller.alone(self.nodes, self.now()), Counted::Alone)
    }

    fn caller(&self, key: &ApiKey) -> Arc<Caller> {
        self.callers.get_with(key.id, || {
            let bucket = (key.account, key.test);
            let bucket = self.accounts.get_with(bucket, Arc::default);
            Arc::new(Caller::new(self.quotas, key, bucket))
        })
    }

    /// Time for counting: never set back, and no business of any other process.
    fn now(&self) -> Duration {
        self.started.elapsed()
    }
}

/// Where a request was counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counted {
    /// Nowhere: nothing is limited.
    Not,
    /// With all nodes, or there is no Redis to be shared with others.
    Shared,
    /// Here only, because Redis is away.
    Alone,
}

/// Least recently used goes first: what is new is never refused a place, which would make its
/// bucket always full.
fn remembered<K, V>(quiet_for: Duration) -> Cache<K, V>
where
    K: std::hash::Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    Cache::builder()
        .max_capacity(REMEMBERED_MAX)
        .eviction_policy(EvictionPolicy::lru())
        .time_to_idle(quiet_for)
        .build()
}

fn whole_secs(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

/// Where a handler's extractor leaves the standing for the layer that shows it.
#[derive(Clone, Debug, Default)]
pub(crate) struct StandingCell(Arc<OnceLock<Standing>>);

/// Shows on every answer to a known key how it stands with its limits.
pub(crate) async fn show_standing(mut request: Request, next: Next) -> Response {
    let cell = StandingCell::default();
    request.extensions_mut().insert(cell.clone());
    let mut response = next.run(request).await;
    if let Some(standing) = cell.0.get() {
        let headers = response.headers_mut();
        headers.insert(LIMIT, HeaderValue::from(standing.limit));
        headers.insert(REMAINING, HeaderValue::from(standing.remaining));
        headers.insert(RESET, HeaderValue::from(standing.reset_secs));
    }
    response
}
