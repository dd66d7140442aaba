//! Webhook calls: the event log is read once and every endpoint that wants an event is called,
//! at least once, in no promised order. `dispatch` makes first calls, `retry` the repeated ones;
//! what they share is here.

mod call;
mod dispatch;
mod guard;
mod health;
mod lanes;
mod lookup;
mod payload;
mod recorder;
mod replay;
mod retry;
mod schedule;
mod sign;
mod standing;
mod window;

use std::sync::Arc;

use bytes::Bytes;
use mail::event::EventType;
use mail::ids::{EventId, WebhookCallId, uuid_v7};
use service::clock::Clock;
use store::{
    AccountNo, CallRecord, CallResult, DisabledReason, EndpointNo, Sealer, Store, StoreError,
};
use time::OffsetDateTime;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;
use uuid::Uuid;

use crate::metrics::WebhookMetrics;
use call::{Answer, Caller};
pub(crate) use dispatch::{Dispatcher, Identity};
pub use guard::{Guard, Reach, Refused};
use health::Health;
pub(crate) use recorder::Recorder;
pub(crate) use replay::Replayer;
pub(crate) use retry::Retrier;
pub use sign::{Signature, secret_text};
use standing::Standing;
use window::Number;

/// Dispatchers of the whole platform: accounts are spread over them. The database has a lease
/// for each, so the number is part of the schema.
const DISPATCHERS: i32 = 16;

/// What first calls and repeated calls have in common. Clones share it.
#[derive(Clone)]
pub(crate) struct Webhooks {
    store: Store,
    sealer: Sealer,
    clock: Clock,
    metrics: WebhookMetrics,
    caller: Caller,
    health: Arc<Health>,
    standing: Arc<Standing>,
    /// Calls made, to be written down.
    made: mpsc::Sender<CallRecord>,
    /// Most calls under way at once, of each of the two kinds.
    calls_max: usize,
    /// The dispatchers held by this process. Repeated calls follow them, so that two workers
    /// never call about one event.
    held: watch::Sender<Vec<Number>>,
    /// Rung when calls were set aside that are due at once.
    set_aside: Arc<Notify>,
}

/// What came of a call, for whoever has to do the next thing about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// The endpoint has it.
    Taken,
    /// Nobody wants it any more: 410, or the endpoint was deleted.
    Unwanted,
    /// The endpoint's fault: counts as a call made.
    Failed,
    /// The endpoint is switched off, or could not be looked up: its call waits.
    NotMade,
}

/// What is told to an endpoint.
#[derive(Clone, Debug)]
struct Told {
    event: EventId,
    subject: Uuid,
    kind: EventType,
    body: Bytes,
}

/// A call that is over.
#[derive(Debug)]
struct Made {
    ended: Ended,
    /// None when the endpoint was not called.
    report: Option<Report>,
}

/// What is known of a call before it is decided when to make it again.
#[derive(Debug)]
struct Report {
    id: WebhookCallId,
    answer: Answer,
    duration_ms: i32,
}

impl Made {
    fn without_call(ended: Ended) -> Self {
        Self {
            ended,
            report: None,
        }
    }
}

impl Webhooks {
    /// # Errors
    /// The HTTP client cannot be made; see [`Caller::new`].
    pub(crate) fn new(
        config: &crate::WorkerConfig,
        store: Store,
        sealer: Sealer,
        clock: Clock,
        metrics: WebhookMetrics,
    ) -> Result<(Self, Recorder), reqwest::Error> {
        let standing = Arc::<Standing>::default();
        let (made, log) = mpsc::channel(recorder::WAITING_MAX);
        let recorder = Recorder {
            store: store.clone(),
            clock: clock.clone(),
            standing: Arc::clone(&standing),
            log,
        };
        let guard = Guard::new(
            config.webhook_allowed_networks.clone(),
            config.webhook_ports.clone(),
        );
        let webhooks = Self {
            store,
            sealer,
            clock,
            metrics,
            caller: Caller::new(guard)?,
            health: Arc::default(),
            standing,
            made,
            calls_max: config.max_webhook_calls.get() as usize,
            held: watch::Sender::default(),
            set_aside: Arc::default(),
        };
        Ok((webhooks, recorder))
    }

    /// Makes one call to `endpoint`.
    async fn call(&self, endpoint: EndpointNo, told: &Told) -> Made {
        let found = match self.store.endpoint(endpoint, &self.sealer).await {
            Ok(Some(found)) if found.enabled => found,
            // It may be enabled again, or is already and we do not know it yet.
            Ok(Some(_)) => return Made::without_call(Ended::NotMade),
            Ok(None) => {
                self.give_up("no_endpoint");
                return Made::without_call(Ended::Unwanted);
            }
            Err(error) if error.is_unavailable() => {
                warn(&error, "could not look up a webhook endpoint");
                return Made::without_call(Ended::NotMade);
            }
            Err(error) => {
                // A secret that does not open, say: it takes its turns like an endpoint that is
                // down, until the operator has helped.
                warn(&error, "a webhook endpoint cannot be called");
                self.health.failed(endpoint);
                return Made::without_call(Ended::Failed);
            }
        };
        let (at, started) = (self.clock.now(), Instant::now());
        let signature = Signature::new(found.secrets(at), told.event, at, &told.body);
        let body = told.body.clone();
        let answer = self.caller.post(&found.url, &signature, body).await;
        let duration_ms = i32::try_from(started.elapsed().as_millis()).unwrap_or(i32::MAX);
        let result = answer.result;
        self.metrics
            .calls
            .with_label_values(&[result.as_str()])
            .inc();
        let ended = self.judge(&found, told.event, result).await;
        if ended == Ended::Failed {
            let (event, said) = (told.event, &answer.said);
            tracing::debug!(%event, endpoint = endpoint.0, %said, "webhook call failed");
        }
        Made {
            ended,
            report: Some(Report {
                id: WebhookCallId::from_uuid(new_id(at)),
                answer,
                duration_ms,
            }),
        }
    }

    /// Remembers what a call says about its endpoint.
    async fn judge(&self, endpoint: &store::Endpoint, event: EventId, result: CallResult) -> Ended {
        let now = self.clock.now();
        match result {
            CallResult::Taken => {
                self.health.succeeded(endpoint.no);
                self.standing.succeeded(endpoint);
                self.metrics.age_seconds.observe(age_secs(event, now));
                Ended::Taken
            }
            CallResult::Gone => match self.gone(endpoint).await {
                Ok(ended) => ended,
                Err(error) => {
                    warn(&error, "could not disable a webhook endpoint that is gone");
                    Ended::Failed
                }
            },
            _ => {
                self.health.failed(endpoint.no);
                self.standing.failed(endpoint, now);
                Ended::Failed
            }
        }
    }

    /// Switches off what answered 410, at once: whether its calls are still wanted depends on whether
    /// it was its URL that answered. The customer may have given it another one meanwhile, which
    /// has asked for nothing; the call is repeated there.
    async fn gone(&self, called: &store::Endpoint) -> Result<Ended, StoreError> {
        let (now, reason) = (self.clock.now(), DisabledReason::Gone);
        let event = EventId::from_uuid(new_id(now));
        let (no, url) = (called.no, Some(called.url.as_str()));
        let is_off = self
            .store
            .disable_endpoint(no, reason, None, url, event, now)
            .await?;
        if is_off {
            let reason = reason.as_str();
            tracing::info!(
                endpoint = no.0,
                reason,
                "a webhook endpoint is called no more"
            );
            return Ok(Ended::Unwanted);
        }
        // Another call was first, or the URL is another one.
        let is_wanted = match self.store.endpoint(no, &self.sealer).await? {
            Some(found) => found.enabled || found.url != called.url,
            None => false,
        };
        Ok(match is_wanted {
            true => Ended::Failed,
            false => Ended::Unwanted,
        })
    }

    /// Hands the call over to be written down, with what was decided about it. The log is for
    /// people: when it cannot keep up, it loses rows and holds no call back.
    fn record(
        &self,
        endpoint: EndpointNo,
        told: &Told,
        report: Report,
        (attempt, is_replay): (u16, bool),
        next_at: Option<OffsetDateTime>,
    ) {
        let record = CallRecord {
            id: report.id,
            endpoint,
            event: told.event,
            subject: told.subject,
            kind: told.kind,
            attempt,
            result: report.answer.result,
            status: report.answer.status,
            response: report.answer.said,
            duration_ms: report.duration_ms,
            next_at,
            is_replay,
        };
        if self.made.try_send(record).is_err() {
            self.metrics.unlogged.inc();
        }
    }

    fn give_up(&self, reason: &'static str) {
        self.metrics.given_up.with_label_values(&[reason]).inc();
    }
}

/// The dispatcher that an account belongs to.
fn number_of(account: AccountNo) -> Number {
    // Below 16, so it fits; the same arithmetic as in the statement that reads the log.
    (account.0 % DISPATCHERS) as Number
}

/// A new id of this time.
fn new_id(at: OffsetDateTime) -> Uuid {
    let unix_ms = u64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap_or(0);
    uuid_v7(unix_ms, rand::random())
}

/// The lowest id of this time.
pub(crate) fn lowest_id(at: OffsetDateTime) -> Uuid {
    let unix_ms = u64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap_or(0);
    Uuid::from_u128(u128::from(unix_ms) << 80)
}

/// Seconds since the event happened; 0 for one from a clock ahead of ours.
fn age_secs(event: EventId, now: OffsetDateTime) -> f64 {
    let now_ms = now.unix_timestamp_nanos() / 1_000_000;
    let age_ms = now_ms.saturating_sub(i128::from(event.unix_ms())).max(0);
    age_ms as f64 / 1_000.0
}

fn warn(error: &StoreError, message: &'static str) {
    tracing::warn!(error = error as &dyn std::error::Error, "{message}");
}
