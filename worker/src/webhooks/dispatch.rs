//! First calls: reads the event log forward and calls every endpoint that wants an event.
//!
//! One task owns all bookkeeping; calls are tasks of their own. Reading goes on while calls are
//! out, and an event leaves the window after [`WINDOW_PATIENCE`] at the latest: its unfinished
//! calls go to the table of pending ones, so that no endpoint holds the cursor. Memory is
//! bounded by [`OPEN_CALLS_MAX`] and one page.

mod leases;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use mail::ids::EventId;
use service::shutdown::Shutdown;
use store::{EndpointNo, LogCursor, LogPage, LogRow, PendingCall};
use time::OffsetDateTime;
use tokio::sync::Notify;
use tokio::task::{self, JoinError, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use uuid::Uuid;

pub(crate) use leases::Identity;

use super::call::CALL_PATIENCE;
use super::lanes::Lanes;
use super::schedule::next_call_at;
use super::window::{Ticket, Window};
use super::{Ended, Made, Told, Webhooks, age_secs, lowest_id, number_of, payload, warn};

const PAGE_ROWS: i64 = 500;
/// Reading pauses while this many first calls wait or are under way.
const OPEN_CALLS_MAX: usize = 5_000;
/// How long an event may stay in the window.
const WINDOW_PATIENCE: Duration = Duration::from_secs(5);
/// Most calls under way to one endpoint.
const LANE_WIDTH: usize = 16;
/// Most calls of one endpoint in the window; what is beyond is set aside at once.
const LANE_CALLS_MAX: usize = 256;
/// Most calls of one account in the window, or the events of one would keep all others out of it;
/// what is beyond is set aside at once. More than two lanes, for an account to live with two
/// endpoints that hang.
const ACCOUNT_CALLS_MAX: usize = OPEN_CALLS_MAX / 8;

/// Shortest pause between reads, when hinted or while events come in.
const READ_GAP_MIN: Duration = Duration::from_millis(50);
/// Longest pause: what a lost hint can cost.
const READ_GAP_MAX: Duration = Duration::from_millis(250);
const GAP_AFTER_ERROR: Duration = Duration::from_secs(1);
const SWEEP_PERIOD: Duration = Duration::from_millis(100);
/// Events may be written long after the time in their id: by a node that was off for weeks and
/// replays its journal. Day partitions older than this are not looked into.
const LATENESS_MAX: time::Duration = time::Duration::days(35);

/// A first call, waiting or under way.
#[derive(Debug)]
struct Call {
    ticket: Ticket,
    told: Told,
    read_at: Instant,
}

/// A call under way.
struct Flight {
    endpoint: EndpointNo,
    call: Call,
    /// Its row, once it took too long for the window. The call goes on nevertheless: a receiver
    /// that needs seven seconds should not be called twice each time.
    pending: Option<PendingCall>,
}

/// Reads the log and makes first calls.
pub(crate) struct Dispatcher {
    webhooks: Webhooks,
    identity: Identity,
    window: Window,
    lanes: Lanes<Call>,
    calls: JoinSet<Made>,
    flights: HashMap<task::Id, Flight>,
    /// Rows to be written; the window keeps their events until they are.
    to_pend: Vec<(PendingCall, Ticket)>,
    /// Rows of calls that ended well after all.
    to_delete: Vec<PendingCall>,
    /// Lowest event id worth looking at.
    lowest: Uuid,
    read_gap: Duration,
    last_read: Instant,
    next_read: Instant,
    next_write: Instant,
    next_save: Instant,
}

impl Dispatcher {
    pub(crate) fn new(webhooks: Webhooks, identity: Identity) -> Self {
        let now = Instant::now();
        let lanes = Lanes::new(LANE_WIDTH, webhooks.calls_max);
        Self {
            webhooks,
            identity,
            window: Window::default(),
            lanes,
            calls: JoinSet::new(),
            flights: HashMap::new(),
            to_pend: Vec::new(),
            to_delete: Vec::new(),
            lowest: Uuid::nil(),
            read_gap: READ_GAP_MIN,
            last_read: now,
            next_read: now,
            next_write: now,
            next_save: now,
        }
    }

    /// Works until shutdown; then finishes or sets aside what is open and gives the leases back.
    /// Dropped instead, it loses nothing: the next holder starts at the saved cursors.
    pub(crate) async fn run(mut self, hint: Arc<Notify>, shutdown: Shutdown) {
        let mut renew = interval(leases::RENEW_PERIOD);
        let mut sweep = interval(SWEEP_PERIOD);
        renew.set_missed_tick_behavior(MissedTickBehavior::Delay);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !shutdown.is_requested() {
            let may_read = self.window.open_calls() < OPEN_CALLS_MAX;
            tokio::select! {
                Some(ended) = self.calls.join_next_with_id() => self.ended(ended),
                () = sleep_until(self.next_read), if may_read => self.read().await,
                () = hint.notified() => {
                    self.next_read = self.next_read.min(self.last_read + READ_GAP_MIN);
                }
                _ = sweep.tick() => self.sweep().await,
                _ = renew.tick() => self.renew().await,
                () = shutdown.requested() => {}
            }
            self.start_calls();
        }
        self.stop().await;
    }

    /// Reads one page and lets its calls in.
    async fn read(&mut self) {
        let Some(from) = self.window.read_from() else {
            self.next_read = Instant::now() + GAP_AFTER_ERROR;
            return;
        };
        let numbers = self.window.numbers();
        let page = self
            .webhooks
            .store
            .read_log(&numbers, from, self.lowest, PAGE_ROWS)
            .await;
        self.last_read = Instant::now();
        match page {
            Ok(page) => self.admit_page(page),
            Err(error) => {
                warn(&error, "could not read the event log");
                self.next_read = self.last_read + GAP_AFTER_ERROR;
            }
        }
    }

    fn admit_page(&mut self, page: LogPage) {
        let now = self.webhooks.clock.now();
        if page.rows.is_empty() {
            self.read_gap = (self.read_gap * 2).min(READ_GAP_MAX);
        } else {
            self.read_gap = READ_GAP_MIN;
            self.next_save = self.next_save.min(self.last_read + leases::SAVE_PERIOD);
        }
        for row in &page.rows {
            self.admit(row, now);
        }
        let lag = &self.webhooks.metrics.lag_seconds;
        if page.complete {
            self.window.advance(LogCursor::at_horizon(page.horizon));
            self.lowest = lowest_id(now - LATENESS_MAX);
            self.next_read = self.last_read + self.read_gap;
            lag.set(0.0);
        } else if let Some(last) = page.last {
            self.window.advance(last);
            self.next_read = self.last_read;
            lag.set(age_secs(EventId::from_uuid(last.id), now));
        }
    }

    fn admit(&mut self, row: &LogRow, now: OffsetDateTime) {
        let number = number_of(row.account);
        let Some(ticket) = self.window.admit(number, row.cursor, row.endpoints.len()) else {
            return;
        };
        let event = row.event.id;
        let body = match payload::body(row) {
            Ok(body) => body,
            Err(error) => {
                tracing::error!(%error, %event, "an event cannot be told to its webhooks");
                for _ in &row.endpoints {
                    self.webhooks.give_up("no_payload");
                    self.window.finish(ticket);
                }
                return;
            }
        };
        let told = Told {
            event,
            subject: row.subject,
            kind: row.event.kind,
            body,
        };
        for endpoint in row.endpoints.iter().copied() {
            let call = Call {
                ticket,
                told: told.clone(),
                read_at: self.last_read,
            };
            let is_full = self.lanes.len(endpoint) >= LANE_CALLS_MAX
                || self.lanes.len_of_account(row.account) >= ACCOUNT_CALLS_MAX;
            if is_full || self.webhooks.health.is_failing(endpoint) {
                self.set_aside(endpoint, &call, 0, now);
            } else {
                self.lanes.push(row.account, endpoint, call);
            }
        }
    }

    fn start_calls(&mut self) {
        while let Some((endpoint, call)) = self.lanes.start() {
            let (webhooks, told) = (self.webhooks.clone(), call.told.clone());
            let task = self
                .calls
                .spawn(async move { webhooks.call(endpoint, &told).await });
            self.flights.insert(
                task.id(),
                Flight {
                    endpoint,
                    call,
                    pending: None,
                },
            );
        }
        self.webhooks
            .metrics
            .open_calls
            .set(count(self.window.open_calls()));
    }

    fn ended(&mut self, result: Result<(task::Id, Made), JoinError>) {
        let (id, made) = match result {
            Ok((id, made)) => (id, made),
            Err(error) => {
                tracing::error!(%error, "a webhook call broke down");
                (error.id(), Made::without_call(Ended::NotMade))
            }
        };
        let Some(Flight {
            endpoint,
            call,
            pending,
        }) = self.flights.remove(&id)
        else {
            return;
        };
        self.lanes.ended(endpoint);
        let now = self.webhooks.clock.now();
        let next_at = match (made.ended, pending) {
            (Ended::Taken | Ended::Unwanted, None) => {
                self.window.finish(call.ticket);
                None
            }
            (Ended::Taken | Ended::Unwanted, Some(row)) => {
                self.to_delete.push(row);
                None
            }
            (Ended::Failed, None) => {
                let at = next_call_at(1, now, rand::random()).unwrap_or(now);
                self.set_aside(endpoint, &call, 1, at);
                Some(at)
            }
            (Ended::NotMade, None) => {
                self.set_aside(endpoint, &call, 0, now);
                Some(now)
            }
            // The row is there already, with a later time.
            (Ended::Failed | Ended::NotMade, Some(row)) => Some(row.next_at),
        };
        if let Some(report) = made.report {
            self.webhooks
                .record(endpoint, &call.told, report, (1, false), next_at);
        }
    }

    /// Plans the row of a call; the event is finished once the row is written.
    fn set_aside(&mut self, endpoint: EndpointNo, call: &Call, attempt: u16, at: OffsetDateTime) {
        if self.window.holds(call.ticket) {
            self.to_pend
                .push((pending_call(endpoint, call, attempt, at), call.ticket));
        }
    }

    /// Takes out of the window what is too long in it, and writes what is to be written.
    async fn sweep(&mut self) {
        self.set_aside_overdue();
        if self.next_write <= Instant::now() {
            self.write_pending().await;
        }
        if self.next_save <= Instant::now() {
            self.save().await;
        }
    }

    fn set_aside_overdue(&mut self) {
        let now = self.webhooks.clock.now();
        let overdue = |call: &Call| call.read_at.elapsed() >= WINDOW_PATIENCE;
        for (endpoint, call) in self.lanes.take_leading(overdue) {
            self.set_aside(endpoint, &call, 0, now);
        }
        // Not before the call has come to its end, or it would be made twice at the same time.
        let at = now + CALL_PATIENCE + WINDOW_PATIENCE;
        for Flight {
            endpoint,
            call,
            pending,
        } in self.flights.values_mut()
        {
            if pending.is_none() && overdue(call) && self.window.holds(call.ticket) {
                let row = pending_call(*endpoint, call, 1, at);
                self.to_pend.push((row, call.ticket));
                *pending = Some(row);
                // An endpoint that hangs must count as failing before its calls run out of time.
                self.webhooks.health.failed(*endpoint);
            }
        }
    }

    async fn write_pending(&mut self) {
        if !self.to_pend.is_empty() {
            let rows: Vec<PendingCall> = self.to_pend.iter().map(|(row, _)| *row).collect();
            if let Err(error) = self.webhooks.store.pend_calls(&rows).await {
                warn(&error, "could not set webhook calls aside");
                self.next_write = Instant::now() + GAP_AFTER_ERROR;
                return;
            }
            self.webhooks.metrics.set_aside.inc_by(rows.len() as u64);
            for (_, ticket) in std::mem::take(&mut self.to_pend) {
                self.window.finish(ticket);
            }
            self.webhooks.set_aside.notify_one();
        }
        // After the rows: one that is to be deleted may have been among them.
        while let Some(row) = self.to_delete.last() {
            if let Err(error) = self.webhooks.store.reschedule_call(row, None).await {
                warn(&error, "could not forget a webhook call that was taken");
                self.next_write = Instant::now() + GAP_AFTER_ERROR;
                return;
            }
            self.to_delete.pop();
        }
    }

    /// Lets calls under way end, sets the rest aside, and lets another worker go on at once.
    async fn stop(mut self) {
        let now = self.webhooks.clock.now();
        for (endpoint, call) in self.lanes.take_leading(|_| true) {
            self.set_aside(endpoint, &call, 0, now);
        }
        let patience = Instant::now() + WINDOW_PATIENCE;
        while let Ok(Some(ended)) =
            tokio::time::timeout_at(patience, self.calls.join_next_with_id()).await
        {
            self.ended(ended);
        }
        // Who still has not answered is not asked again by the next worker at once.
        self.set_aside_overdue();
        self.write_pending().await;
        self.save().await;
        self.webhooks.held.send_replace(Vec::new());
        if let Err(error) = self.release().await {
            warn(&error, "could not give the webhook dispatchers back");
        }
    }
}

fn pending_call(
    endpoint: EndpointNo,
    call: &Call,
    attempt: u16,
    next_at: OffsetDateTime,
) -> PendingCall {
    PendingCall {
        endpoint,
        next_at,
        event_id: call.told.event,
        subject: call.told.subject,
        attempt,
        replay: None,
    }
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
