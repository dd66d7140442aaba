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
mod retry;
mod schedule;
mod sign;
mod window;

use std::sync::Arc;

use bytes::Bytes;
use mail::ids::EventId;
use service::clock::Clock;
use store::{AccountNo, EndpointNo, Sealer, Store, StoreError};
use time::OffsetDateTime;
use tokio::sync::{Notify, watch};

use crate::metrics::WebhookMetrics;
use call::{Answer, Caller};
pub(crate) use dispatch::{Dispatcher, Identity};
pub use guard::{Guard, Refused};
use health::Health;
pub(crate) use retry::Retrier;
pub use sign::{Signature, secret_text};
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
    /// Nobody wants it any more: 410, or the endpoint was deleted or switched off.
    Unwanted,
    /// The endpoint's fault: counts as a call made.
    Failed,
    /// Our fault: the endpoint could not be looked up.
    NotMade,
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
    ) -> Result<Self, reqwest::Error> {
        Ok(Self {
            store,
            sealer,
            clock,
            metrics,
            caller: Caller::new(config.webhook_allowed_networks.clone())?,
            health: Arc::default(),
            calls_max: config.max_webhook_calls.get() as usize,
            held: watch::Sender::default(),
            set_aside: Arc::default(),
        })
    }

    /// Makes one call to `endpoint` about `event`.
    async fn call(&self, endpoint: EndpointNo, event: EventId, body: Bytes) -> Ended {
        let found = match self.store.endpoint(endpoint, &self.sealer).await {
            Ok(Some(found)) if found.enabled => found,
            Ok(_) => {
                self.give_up("no_endpoint");
                return Ended::Unwanted;
            }
            Err(error) if error.is_unavailable() => {
                warn(&error, "could not look up a webhook endpoint");
                return Ended::NotMade;
            }
            Err(error) => {
                // A secret that does not open, say: it takes its turns like an endpoint that is
                // down, until the operator has helped.
                warn(&error, "a webhook endpoint cannot be called");
                self.health.failed(endpoint);
                return Ended::Failed;
            }
        };
        let signature = Signature::new(&found.secret, event, self.clock.now(), &body);
        let answer = self.caller.post(&found.url, &signature, body).await;
        self.metrics
            .calls
            .with_label_values(&[answer.label()])
            .inc();
        match answer {
            Answer::Taken => {
                self.health.succeeded(endpoint);
                self.metrics
                    .age_seconds
                    .observe(age_secs(event, self.clock.now()));
                Ended::Taken
            }
            Answer::Gone => Ended::Unwanted,
            Answer::Failed(failure) => {
                tracing::debug!(%failure, %event, endpoint = endpoint.0, "webhook call failed");
                self.health.failed(endpoint);
                Ended::Failed
            }
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

/// Seconds since the event happened; 0 for one from a clock ahead of ours.
fn age_secs(event: EventId, now: OffsetDateTime) -> f64 {
    let now_ms = now.unix_timestamp_nanos() / 1_000_000;
    let age_ms = now_ms.saturating_sub(i128::from(event.unix_ms())).max(0);
    age_ms as f64 / 1_000.0
}

fn warn(error: &StoreError, message: &'static str) {
    tracing::warn!(error = error as &dyn std::error::Error, "{message}");
}
