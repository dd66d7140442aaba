//! Repeated calls: what failed, hung or was set aside is called again when it is due, until it
//! is taken or given up. Each endpoint has a lane of its own here too, so a slow one delays only
//! itself; a failing one is probed with one call at a time.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use mail::ids::EventId;
use service::shutdown::Shutdown;
use store::{AccountNo, EndpointNo, PendingCall, StoreError};
use time::OffsetDateTime;
use tokio::task::{self, JoinError, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::lanes::Lanes;
use super::schedule::{is_too_old, next_call_at};
use super::{Ended, Told, Webhooks, payload, warn};

/// How often due calls are looked for.
const POLL_PERIOD: Duration = Duration::from_millis(250);
/// Most calls under way to one endpoint.
const LANE_WIDTH: usize = 4;
/// Due calls read for one endpoint; those that wait here are among them.
const DUE_PER_ENDPOINT_MAX: i64 = 64;
/// Due calls read in all. When they are more, fewer are read of each endpoint, down to one, so
/// that the backlogs of dead endpoints do not hide the calls of the others.
const DUE_MAX: i64 = 8_192;
/// Calls of replays that wait in the lane of an endpoint. What is due by itself comes before those
/// in the table, but not before those in the lane.
const REPLAYED_AHEAD_MAX: usize = 32;
const MEASURE_PERIOD: Duration = Duration::from_secs(15);
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// A row of the table of pending calls, and what to send.
struct Job {
    row: PendingCall,
    told: Told,
}

/// What names a row: the time is part of it, as a call that failed again becomes another row.
type RowKey = (EndpointNo, OffsetDateTime, EventId);

fn key(row: &PendingCall) -> RowKey {
    (row.endpoint, row.next_at, row.event_id)
}

/// Makes the repeated calls of the accounts whose dispatchers this process holds.
pub(crate) struct Retrier {
    webhooks: Webhooks,
    lanes: Lanes<Job>,
    calls: JoinSet<()>,
    flights: HashMap<task::Id, RowKey>,
    /// Rows that wait or are under way here; still due in the database.
    busy: HashSet<RowKey>,
    /// Due calls to read of each endpoint next time.
    due_per_endpoint: i64,
}

impl Retrier {
    pub(crate) fn new(webhooks: Webhooks) -> Self {
        let lanes = Lanes::new(LANE_WIDTH, webhooks.calls_max);
        let (calls, flights, busy) = (JoinSet::new(), HashMap::new(), HashSet::new());
        Self {
            webhooks,
            lanes,
            calls,
            flights,
            busy,
            due_per_endpoint: DUE_PER_ENDPOINT_MAX,
        }
    }

    /// Works until shutdown, then lets calls under way end. Rows outlive everything.
    pub(crate) async fn run(mut self, shutdown: Shutdown) {
        let set_aside = Arc::clone(&self.webhooks.set_aside);
        let mut poll = interval(POLL_PERIOD);
        let mut measure = interval(MEASURE_PERIOD);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        measure.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !shutdown.is_requested() {
            let worked = tokio::select! {
                Some(ended) = self.calls.join_next_with_id() => {
                    self.ended(ended);
                    Ok(())
                }
                _ = poll.tick() => self.read_due().await,
                () = set_aside.notified() => self.read_due().await,
                _ = measure.tick() => self.measure().await,
                () = shutdown.requested() => Ok(()),
            };
            if let Err(error) = worked {
                warn(&error, "could not look for due webhook calls");
            }
            self.start_calls();
        }
        let patience = Instant::now() + STOP_PATIENCE;
        while let Ok(Some(_)) = tokio::time::timeout_at(patience, self.calls.join_next()).await {}
    }

    /// Puts the calls that are due, and ours, into their lanes.
    async fn read_due(&mut self) -> Result<(), StoreError> {
        let now = self.webhooks.clock.now();
        let held = self.webhooks.held.borrow().clone();
        if held.is_empty() {
            return Ok(());
        }
        let store = &self.webhooks.store;
        let due = store
            .due_calls_of(&held, now, self.due_per_endpoint, DUE_MAX)
            .await?;
        self.due_per_endpoint = next_depth(self.due_per_endpoint, due.len());
        let replayed = store
            .due_replay_calls(&held, now, self.due_per_endpoint)
            .await?;
        let mut planned: HashMap<EndpointNo, usize> = HashMap::new();
        let mut wanted = Vec::new();
        for row in due.into_iter().chain(replayed) {
            let planned = planned.entry(row.endpoint).or_default();
            if self.busy.contains(&key(&row)) || !self.has_room(&row, *planned) {
                continue;
            }
            // Who asks for old events wants them.
            if row.replay.is_none() && is_too_old(row.event_id, now) {
                self.drop_row(&row, "too_old").await?;
                continue;
            }
            *planned += 1;
            wanted.push(row);
        }
        if wanted.is_empty() {
            return Ok(());
        }
        let told = self.told(&wanted).await?;
        for row in wanted {
            match told.get(&row.event_id) {
                Some((account, told)) => self.push(*account, row, told.clone()),
                None => self.drop_row(&row, "no_payload").await?,
            }
        }
        Ok(())
    }

    /// A failing endpoint is probed with one call at a time: its other rows stay due, and
    /// untried, until the probe is answered.
    fn has_room(&self, row: &PendingCall, planned: usize) -> bool {
        let ahead = self.lanes.len(row.endpoint) + planned;
        let is_probe_out = ahead > 0 && self.webhooks.health.is_failing(row.endpoint);
        !is_probe_out && (row.replay.is_none() || ahead < REPLAYED_AHEAD_MAX)
    }

    /// Whose it is and what to send, by event. An event that cannot be told any more is missing.
    async fn told(
        &self,
        rows: &[PendingCall],
    ) -> Result<HashMap<EventId, (AccountNo, Told)>, StoreError> {
        let events: Vec<_> = rows.iter().map(|row| (row.event_id, row.subject)).collect();
        let mut all = HashMap::new();
        for found in self.webhooks.store.log_rows(&events).await? {
            let event = found.event.id;
            match payload::body(&found) {
                Ok(body) => {
                    let told = Told {
                        event,
                        subject: found.subject,
                        kind: found.event.kind,
                        body,
                    };
                    all.insert(event, (found.account, told));
                }
                Err(error) => {
                    tracing::error!(%error, %event, "an event cannot be told to its webhooks");
                }
            }
        }
        Ok(all)
    }

    async fn drop_row(&self, row: &PendingCall, reason: &'static str) -> Result<(), StoreError> {
        self.webhooks.store.reschedule_call(row, None).await?;
        self.webhooks.give_up(reason);
        Ok(())
    }

    fn push(&mut self, account: AccountNo, row: PendingCall, told: Told) {
        self.busy.insert(key(&row));
        self.lanes.push(account, row.endpoint, Job { row, told });
    }

    fn start_calls(&mut self) {
        while let Some((_, Job { row, told })) = self.lanes.start() {
            let (webhooks, key) = (self.webhooks.clone(), key(&row));
            let task = self
                .calls
                .spawn(async move { repeat(&webhooks, row, &told).await });
            self.flights.insert(task.id(), key);
        }
    }

    fn ended(&mut self, result: Result<(task::Id, ()), JoinError>) {
        let id = match result {
            Ok((id, ())) => id,
            Err(error) => {
                tracing::error!(%error, "a webhook call broke down");
                error.id()
            }
        };
        if let Some(key) = self.flights.remove(&id) {
            self.busy.remove(&key);
            self.lanes.ended(key.0);
        }
    }

    async fn measure(&self) -> Result<(), StoreError> {
        let endpoints = self.webhooks.store.endpoints_with_pending().await?.len();
        let endpoints = i64::try_from(endpoints).unwrap_or(i64::MAX);
        self.webhooks.metrics.endpoints_pending.set(endpoints);
        Ok(())
    }
}

/// Calls again, and moves or removes the row by what came of it.
async fn repeat(webhooks: &Webhooks, row: PendingCall, told: &Told) {
    let made = webhooks.call(row.endpoint, told).await;
    let calls_made = row.attempt.saturating_add(1);
    let next_at = match made.ended {
        Ended::Taken | Ended::Unwanted => None,
        Ended::Failed => {
            let next_at = next_call_at(calls_made, webhooks.clock.now(), rand::random());
            if next_at.is_none() {
                webhooks.give_up("exhausted");
            }
            next_at
        }
        // The row stays due.
        Ended::NotMade => return,
    };
    if let Some(report) = made.report {
        let which = (calls_made, row.replay.is_some());
        webhooks.record(row.endpoint, told, report, which, next_at);
    }
    if let Err(error) = webhooks.store.reschedule_call(&row, next_at).await {
        // It will be called again: at least once is what is promised.
        warn(&error, "could not note what came of a webhook call");
    }
}

/// How many calls of each endpoint to read after this many were read in all.
fn next_depth(depth: i64, read: usize) -> i64 {
    let is_full = i64::try_from(read).is_ok_and(|read| read >= DUE_MAX);
    let next = if is_full { depth / 2 } else { depth * 2 };
    next.clamp(1, DUE_PER_ENDPOINT_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn less_is_read_of_each_endpoint_while_there_is_too_much_of_all() {
        assert_eq!(next_depth(64, 100), 64);
        assert_eq!(next_depth(64, 8_192), 32);
        assert_eq!(next_depth(1, 8_192), 1);
        assert_eq!(next_depth(16, 8_191), 32);
    }
}
