//! The load: messages posted over HTTP, one or many in a request, at a given rate or with a given
//! number of requests under way. Measures from the moment a request should have been sent, so that
//! a slow answer is not hidden by the generator waiting for it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use hyper::{StatusCode, Uri};
use service::clock::Clock;
use service::shutdown::Shutdown;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::connection::{Answer, Authorization, Connection, Target};
use super::content::Content;

/// Requests of an open loop that may be under way; more are counted as not sent.
const IN_FLIGHT_MAX: usize = 10_000;
/// After an error a closed loop waits, or it would measure how fast errors are made.
const ERROR_PAUSE: Duration = Duration::from_millis(50);

/// How fast to send.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Pace {
    /// So many messages a second, come what may.
    Open { per_second: f64 },
    /// So many requests under way.
    Closed { concurrency: usize },
}

impl fmt::Display for Pace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open { per_second } => write!(f, "open loop, {per_second}/s"),
            Self::Closed { concurrency } => write!(f, "closed loop, {concurrency} under way"),
        }
    }
}

/// When to stop: what comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Budget {
    pub(super) messages: Option<u64>,
    pub(super) time: Option<Duration>,
}

/// How many messages a request carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Parcel {
    /// One: POST /v1/emails.
    Single,
    /// So many: POST /v1/emails/batch.
    Batch(u64),
}

impl Parcel {
    fn messages(self) -> u64 {
        match self {
            Self::Single => 1,
            Self::Batch(count) => count.max(1),
        }
    }
}

/// Counters for the progress line, in messages; `in_flight` counts requests.
#[derive(Debug, Default)]
pub(super) struct Live {
    pub(super) accepted: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) in_flight: AtomicU64,
}

/// A request that was answered 202.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent {
    /// The number of its first message; the others follow.
    pub(super) first: u64,
    pub(super) count: u64,
    /// All, or all but those that were refused within a batch.
    pub(super) accepted: u64,
    /// When it was due; wall clock, to be compared with the sink's.
    pub(super) at_ms_unix: i64,
    /// From when it was due until its answer was read.
    pub(super) took: Duration,
}

/// What a load came to.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    pub(super) sent: Vec<Sent>,
    /// Messages that were not accepted, by kind of error.
    pub(super) errors: BTreeMap<String, u64>,
    pub(super) elapsed: Duration,
}

impl Loaded {
    /// Messages that were accepted.
    pub(super) fn accepted(&self) -> u64 {
        self.sent.iter().map(|sent| sent.accepted).sum()
    }
}

/// Posts messages to one platform.
pub(super) struct Generator {
    /// In turn, one for each request under way.
    targets: Vec<Target>,
    /// In turn, one for each request; in step with the senders of the content.
    keys: Vec<Authorization>,
    path: Uri,
    parcel: Parcel,
    content: Content,
    clock: Clock,
    live: Arc<Live>,
    /// Connections of the open loop that nobody uses now.
    idle: Mutex<Vec<Connection>>,
    collected: Mutex<Loaded>,
}

impl Generator {
    /// # Errors
    /// There is no target or no key, or its URL cannot have this path.
    pub(super) fn new(
        targets: Vec<Target>,
        keys: Vec<Authorization>,
        parcel: Parcel,
        content: Content,
    ) -> anyhow::Result<Self> {
        let first = targets.first().context("a load needs a target")?;
        ensure!(!keys.is_empty(), "a load needs a key");
        let path = first.path(match parcel {
            Parcel::Single => "/v1/emails",
            Parcel::Batch(_) => "/v1/emails/batch",
        })?;
        Ok(Self {
            targets,
            keys,
            path,
            parcel,
            content,
            clock: Clock::system(),
            live: Arc::default(),
            idle: Mutex::default(),
            collected: Mutex::default(),
        })
    }

    /// What is happening now.
    pub(super) fn live(&self) -> Arc<Live> {
        self.live.clone()
    }

    /// The messages it sends.
    pub(super) fn content(&self) -> &Content {
        &self.content
    }

    /// Sends until the budget is used up or the stop is requested, then waits for the answers.
    pub(super) async fn run(
        self: &Arc<Self>,
        pace: Pace,
        budget: Budget,
        stop: &Shutdown,
    ) -> Loaded {
        let started = Instant::now();
        let run = Run {
            messages: budget.messages.unwrap_or(u64::MAX),
            deadline: budget.time.map(|time| started + time),
            stop: stop.clone(),
        };
        match pace {
            Pace::Open { per_second } => self.open_loop(per_second, &run).await,
            Pace::Closed { concurrency } => self.closed_loop(concurrency, run).await,
        }
        Loaded {
            elapsed: started.elapsed(),
            ..std::mem::take(&mut *self.collected())
        }
    }

    async fn open_loop(self: &Arc<Self>, per_second: f64, run: &Run) {
        let started = Instant::now();
        let places = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
        let mut requests = JoinSet::new();
        let mut first = 0;
        while let Some(count) = run.share(first, self.parcel) {
            let due = started + Duration::from_secs_f64(first as f64 / per_second);
            tokio::select! {
                () = tokio::time::sleep_until(due.into()) => {}
                () = run.stop.requested() => break,
            }
            if run.is_over() {
                break;
            }
            match places.clone().try_acquire_owned() {
                Ok(place) => {
                    let this = self.clone();
                    requests.spawn(async move {
                        let idle = this.idle().pop();
                        let mut connection = idle.unwrap_or_else(|| this.connection(0));
                        this.send(&mut connection, first, count, due).await;
                        this.idle().push(connection);
                        drop(place);
                    });
                }
                Err(_) => self.failed("not sent: too many under way".into(), count),
            }
            first += count;
            while requests.try_join_next().is_some() {}
        }
        while requests.join_next().await.is_some() {}
        self.idle().clear();
    }

    async fn closed_loop(self: &Arc<Self>, concurrency: usize, run: Run) {
        let (next, run) = (Arc::new(AtomicU64::new(0)), Arc::new(run));
        let mut loops = JoinSet::new();
        for number in 0..concurrency {
            let (this, next, run) = (self.clone(), next.clone(), run.clone());
            loops.spawn(async move {
                let mut connection = this.connection(number);
                while !run.is_over() {
                    let first = next.fetch_add(this.parcel.messages(), Ordering::Relaxed);
                    let Some(count) = run.share(first, this.parcel) else {
                        break;
                    };
                    let sent = this.send(&mut connection, first, count, Instant::now());
                    if !sent.await {
                        tokio::time::sleep(ERROR_PAUSE).await;
                    }
                }
            });
        }
        while loops.join_next().await.is_some() {}
    }

    fn connection(&self, number: usize) -> Connection {
        Connection::new(self.targets[number % self.targets.len()].clone())
    }

    /// One request. `due` is when it should have gone out. Whether it was accepted.
    async fn send(
        &self,
        connection: &mut Connection,
        first: u64,
        count: u64,
        due: Instant,
    ) -> bool {
        let body = match self.parcel {
            Parcel::Single => self.content.single(first),
            Parcel::Batch(_) => self.content.batch(first, count),
        };
        let key = &self.keys[(first / self.parcel.messages()) as usize % self.keys.len()];
        let late_ms = i64::try_from(due.elapsed().as_millis()).unwrap_or(i64::MAX);
        let at_ms_unix = self.clock.unix_ms().saturating_sub(late_ms);
        self.live.in_flight.fetch_add(1, Ordering::Relaxed);
        let answer = connection.post(&self.path, key, body).await;
        self.live.in_flight.fetch_sub(1, Ordering::Relaxed);
        let (refused, error) = match answer {
            Ok(answer) => refused(&answer, count),
            Err(error) => (count, error.to_string()),
        };
        if refused > 0 {
            self.failed(error, refused);
        }
        if refused == count {
            return false;
        }
        self.live
            .accepted
            .fetch_add(count - refused, Ordering::Relaxed);
        self.collected().sent.push(Sent {
            first,
            count,
            accepted: count - refused,
            at_ms_unix,
            took: due.elapsed(),
        });
        true
    }

    fn failed(&self, kind: String, messages: u64) {
        self.live.failed.fetch_add(messages, Ordering::Relaxed);
        *self.collected().errors.entry(kind).or_insert(0) += messages;
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn collected(&self) -> std::sync::MutexGuard<'_, Loaded> {
        self.collected
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The limits of one run.
struct Run {
    messages: u64,
    deadline: Option<Instant>,
    stop: Shutdown,
}

impl Run {
    fn is_over(&self) -> bool {
        self.stop.is_requested() || self.deadline.is_some_and(|end| Instant::now() >= end)
    }

    /// How many messages go into the request that begins with this one; none at the end.
    fn share(&self, first: u64, parcel: Parcel) -> Option<u64> {
        let left = self.messages.saturating_sub(first);
        (left > 0).then(|| left.min(parcel.messages()))
    }
}

/// How many messages of a request were not accepted, and why: status and the problem's code, such
/// as `HTTP 401 invalid_api_key`.
fn refused((status, body): &Answer, count: u64) -> (u64, String) {
    let code = |value: &serde_json::Value| value["code"].as_str().unwrap_or_default().to_owned();
    let read = || serde_json::from_slice::<serde_json::Value>(body).unwrap_or_default();
    if *status != StatusCode::ACCEPTED {
        let text = format!("HTTP {} {}", status.as_u16(), code(&read()));
        return (count, text.trim_end().to_owned());
    }
    // Refused messages of a batch are rare: the answer is read only where it tells of any.
    const MARK: &[u8] = b"{\"error\":";
    if !body.windows(MARK.len()).any(|window| window == MARK) {
        return (0, String::new());
    }
    let answer = read();
    let items = answer["data"].as_array().into_iter().flatten();
    let errors: Vec<_> = items.filter_map(|item| item.get("error")).collect();
    let first = errors.first().map(|error| code(error)).unwrap_or_default();
    (errors.len() as u64, format!("in a batch: {first}"))
}

#[cfg(test)]
mod tests;
