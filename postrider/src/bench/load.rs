//! The load: messages posted one by one over HTTP, at a given rate or with a given number of
//! requests under way. Measures from the moment a message should have been sent, so that a slow
//! answer is not hidden by the generator waiting for it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Client, StatusCode, Url};
use service::clock::Clock;
use service::shutdown::Shutdown;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use super::content::Content;

/// Requests of an open loop that may be under way; more are counted as not sent.
const IN_FLIGHT_MAX: usize = 10_000;
/// A request that takes longer is an error.
const REQUEST_PATIENCE: Duration = Duration::from_secs(30);
/// After an error a closed loop waits, or it would measure how fast errors are made.
const ERROR_PAUSE: Duration = Duration::from_millis(50);

/// How fast to send.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Pace {
    /// So many a second, come what may.
    Open { per_second: f64 },
    /// So many under way.
    Closed { concurrency: usize },
}

/// When to stop: what comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Budget {
    pub(super) messages: Option<u64>,
    pub(super) time: Option<Duration>,
}

/// Counters for the progress line.
#[derive(Debug, Default)]
pub(super) struct Live {
    pub(super) accepted: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) in_flight: AtomicU64,
}

/// A message that was answered 202.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent {
    pub(super) number: u64,
    /// Wall clock, to be compared with the sink's.
    pub(super) at_ms_unix: i64,
    /// From when it was due until its answer was read.
    pub(super) took: Duration,
}

/// What a load came to.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) accepted: Vec<Sent>,
    /// By kind.
    pub(super) errors: BTreeMap<String, u64>,
    pub(super) elapsed: Duration,
}

/// Posts messages to one platform.
pub(super) struct Generator {
    client: Client,
    url: Url,
    authorization: HeaderValue,
    content: Content,
    clock: Clock,
    live: Arc<Live>,
}

type Answered = Result<Sent, String>;

impl Generator {
    /// # Errors
    /// The URL or the key cannot be used in a request.
    pub(super) fn new(target: &Url, key: &str, content: Content) -> anyhow::Result<Self> {
        let client = Client::builder()
            .no_proxy()
            .tcp_nodelay(true)
            .pool_max_idle_per_host(usize::MAX)
            .timeout(REQUEST_PATIENCE)
            .build()
            .context("could not set up the HTTP client")?;
        let mut authorization = HeaderValue::try_from(format!("Bearer {key}"))
            .context("the key has characters that no key has")?;
        authorization.set_sensitive(true);
        let url = target
            .join("/v1/emails")
            .context("--target is not a base URL")?;
        let (clock, live) = (Clock::system(), Arc::default());
        Ok(Self {
            client,
            url,
            authorization,
            content,
            clock,
            live,
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
        self: Arc<Self>,
        pace: Pace,
        budget: Budget,
        stop: &Shutdown,
    ) -> Loaded {
        let started = Instant::now();
        let deadline = budget.time.map(|time| started + time);
        let run = Run {
            messages: budget.messages.unwrap_or(u64::MAX),
            deadline,
            stop,
        };
        let (answers, mut collected) = mpsc::unbounded_channel();
        let collecting = tokio::spawn(async move {
            let (mut accepted, mut errors) = (Vec::new(), BTreeMap::new());
            while let Some(answer) = collected.recv().await {
                match answer {
                    Ok(sent) => accepted.push(sent),
                    Err(kind) => *errors.entry(kind).or_insert(0) += 1,
                }
            }
            (accepted, errors)
        });
        match pace {
            Pace::Open { per_second } => self.open_loop(per_second, &run, answers).await,
            Pace::Closed { concurrency } => self.closed_loop(concurrency, &run, answers).await,
        }
        let elapsed = started.elapsed();
        let (accepted, errors) = collecting.await.unwrap_or_default();
        Loaded {
            accepted,
            errors,
            elapsed,
        }
    }

    async fn open_loop(
        self: &Arc<Self>,
        per_second: f64,
        run: &Run<'_>,
        answers: mpsc::UnboundedSender<Answered>,
    ) {
        let started = Instant::now();
        let places = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
        let mut requests = JoinSet::new();
        for number in 0..run.messages {
            let due = started + Duration::from_secs_f64(number as f64 / per_second);
            tokio::select! {
                () = tokio::time::sleep_until(due.into()) => {}
                () = run.stop.requested() => break,
            }
            if run.is_over() {
                break;
            }
            let Ok(place) = places.clone().try_acquire_owned() else {
                self.live.failed.fetch_add(1, Ordering::Relaxed);
                let _collector_lives = answers.send(Err("not sent: too many under way".into()));
                continue;
            };
            let (this, answers) = (self.clone(), answers.clone());
            requests.spawn(async move {
                let _collector_lives = answers.send(this.send(number, due).await);
                drop(place);
            });
            while requests.try_join_next().is_some() {}
        }
        while requests.join_next().await.is_some() {}
    }

    async fn closed_loop(
        self: &Arc<Self>,
        concurrency: usize,
        run: &Run<'_>,
        answers: mpsc::UnboundedSender<Answered>,
    ) {
        let next = Arc::new(AtomicU64::new(0));
        let mut loops = JoinSet::new();
        for _ in 0..concurrency {
            let (this, answers, next) = (self.clone(), answers.clone(), next.clone());
            let (messages, deadline, stop) = (run.messages, run.deadline, run.stop.clone());
            loops.spawn(async move {
                let run = Run {
                    messages,
                    deadline,
                    stop: &stop,
                };
                while !run.is_over() {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= run.messages {
                        break;
                    }
                    let answer = this.send(number, Instant::now()).await;
                    let failed = answer.is_err();
                    let _collector_lives = answers.send(answer);
                    if failed {
                        tokio::time::sleep(ERROR_PAUSE).await;
                    }
                }
            });
        }
        while loops.join_next().await.is_some() {}
    }

    /// One message. `due` is when it should have gone out.
    async fn send(&self, number: u64, due: Instant) -> Answered {
        let body = self.content.request(number);
        let counted = InFlight::new(&self.live);
        let at_ms_unix = self.clock.unix_ms();
        let request = self
            .client
            .post(self.url.clone())
            .header(AUTHORIZATION, self.authorization.clone())
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .body(body);
        let answered = async {
            let response = request.send().await?;
            let status = response.status();
            response.bytes().await.map(|body| (status, body))
        };
        let answer = match answered.await {
            Ok((StatusCode::ACCEPTED, _)) => Ok(Sent {
                number,
                at_ms_unix,
                took: due.elapsed(),
            }),
            Ok((status, body)) => Err(refusal(status, &body)),
            Err(error) => Err(kind_of(&error).to_owned()),
        };
        drop(counted);
        let counter = if answer.is_ok() {
            &self.live.accepted
        } else {
            &self.live.failed
        };
        counter.fetch_add(1, Ordering::Relaxed);
        answer
    }
}

/// The limits of one run.
struct Run<'a> {
    messages: u64,
    deadline: Option<Instant>,
    stop: &'a Shutdown,
}

impl Run<'_> {
    fn is_over(&self) -> bool {
        self.stop.is_requested() || self.deadline.is_some_and(|end| Instant::now() >= end)
    }
}

struct InFlight<'a>(&'a Live);

impl<'a> InFlight<'a> {
    fn new(live: &'a Live) -> Self {
        live.in_flight.fetch_add(1, Ordering::Relaxed);
        Self(live)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Status and the problem's code, such as `HTTP 401 invalid_api_key`.
fn refusal(status: StatusCode, body: &[u8]) -> String {
    let problem: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let code = problem["code"].as_str().unwrap_or_default();
    format!("HTTP {} {code}", status.as_u16())
        .trim_end()
        .to_owned()
}

fn kind_of(error: &reqwest::Error) -> &'static str {
    if error.is_timeout() {
        "no answer in time"
    } else if error.is_connect() {
        "no connection"
    } else {
        "connection lost"
    }
}

#[cfg(test)]
mod tests {
    use super::super::content::Correspondence;
    use super::*;
    use axum::Router;
    use axum::routing::post;

    async fn platform(answer: fn(u64) -> StatusCode) -> Url {
        let count = Arc::new(AtomicU64::new(0));
        let handler = move || {
            let number = count.fetch_add(1, Ordering::Relaxed);
            async move { (answer(number), r#"{"code":"busy"}"#) }
        };
        let router = Router::new().route("/v1/emails", post(handler));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Url::parse(&url).unwrap()
    }

    async fn load(pace: Pace, messages: u64, answer: fn(u64) -> StatusCode) -> Loaded {
        let who = Correspondence {
            from: "a@b.test".to_owned(),
            to_domain: "b.test".to_owned(),
            subdomains: 0,
        };
        let content = Content::new(who, 1_000, 1, 1);
        let generator = Generator::new(&platform(answer).await, "pr_test_x", content).unwrap();
        let budget = Budget {
            messages: Some(messages),
            time: Some(Duration::from_secs(20)),
        };
        Arc::new(generator)
            .run(pace, budget, &Shutdown::new())
            .await
    }

    #[tokio::test]
    async fn both_loops_send_each_message_once() {
        for pace in [
            Pace::Closed { concurrency: 4 },
            Pace::Open { per_second: 500.0 },
        ] {
            let loaded = load(pace, 50, |_| StatusCode::ACCEPTED).await;
            let mut numbers: Vec<_> = loaded.accepted.iter().map(|sent| sent.number).collect();
            numbers.sort_unstable();
            assert_eq!(
                numbers,
                (0..50).collect::<Vec<_>>(),
                "{pace:?} {:?}",
                loaded.errors
            );
        }
    }

    #[tokio::test]
    async fn refusals_are_counted_by_kind() {
        let answer = |number| match number % 2 {
            0 => StatusCode::ACCEPTED,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        let loaded = load(Pace::Closed { concurrency: 1 }, 10, answer).await;
        assert_eq!(loaded.accepted.len(), 5);
        assert_eq!(
            loaded.errors,
            BTreeMap::from([("HTTP 503 busy".to_owned(), 5)])
        );
    }
}
