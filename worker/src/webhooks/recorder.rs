//! Writes down what the calls gave: the log that customers see, and how endpoints stand. Beside
//! the calls, many at once. Decides nothing about a call.

use std::sync::Arc;
use std::time::Duration;

use mail::ids::EventId;
use service::clock::Clock;
use store::{CallRecord, EndpointNo, Store, StoreError};
use time::OffsetDateTime;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::standing::{Change, FAILING_MAX, Standing};
use super::{new_id, warn};

/// Calls that may wait to be written down.
pub(super) const WAITING_MAX: usize = 10_000;
/// Calls written with one statement.
const BATCH_MAX: usize = 1_000;
/// How long a call waits for others to be written with.
const PERIOD: Duration = Duration::from_millis(250);
const GAP_AFTER_ERROR: Duration = Duration::from_secs(1);

/// Takes what calls gave and writes it.
pub(crate) struct Recorder {
    pub(super) store: Store,
    pub(super) clock: Clock,
    pub(super) standing: Arc<Standing>,
    pub(super) log: mpsc::Receiver<CallRecord>,
}

impl Recorder {
    /// Works until nobody makes calls any more, then writes the rest.
    pub(crate) async fn run(mut self) {
        let mut round = interval(PERIOD);
        round.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut batch = Vec::with_capacity(BATCH_MAX);
        let mut not_before = Instant::now();
        loop {
            let room = BATCH_MAX - batch.len();
            tokio::select! {
                taken = self.log.recv_many(&mut batch, room), if room > 0 => {
                    if taken == 0 {
                        break;
                    }
                    if batch.len() < BATCH_MAX {
                        continue;
                    }
                }
                _ = round.tick() => {}
            }
            sleep_until(not_before).await;
            if let Err(error) = self.write(&mut batch).await {
                warn(&error, "could not write down what webhook calls gave");
                not_before = Instant::now() + GAP_AFTER_ERROR;
            }
        }
        if let Err(error) = self.write(&mut batch).await {
            warn(&error, "could not write down the last webhook calls");
        }
    }

    async fn write(&self, batch: &mut Vec<CallRecord>) -> Result<(), StoreError> {
        let changes = self.standing.changes();
        let noted: Vec<(EndpointNo, Option<OffsetDateTime>)> = changes
            .iter()
            .filter_map(|(no, change)| match change {
                Change::Note(since) => Some((*no, *since)),
                Change::Disable(_) => None,
            })
            .collect();
        if !noted.is_empty() {
            self.store.note_failing(&noted).await?;
        }
        for (no, change) in changes {
            if let Change::Disable(reason) = change {
                let now = self.clock.now();
                let before = (reason == store::DisabledReason::Failing).then(|| now - FAILING_MAX);
                let event = EventId::from_uuid(new_id(now));
                let store = &self.store;
                if store
                    .disable_endpoint(no, reason, before, None, event, now)
                    .await?
                {
                    let reason = reason.as_str();
                    tracing::info!(
                        endpoint = no.0,
                        reason,
                        "a webhook endpoint is called no more"
                    );
                }
            }
            self.standing.written(no, change);
        }
        if !batch.is_empty() {
            self.store.log_calls(batch).await?;
            batch.clear();
        }
        Ok(())
    }
}
