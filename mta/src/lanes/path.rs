//! A path: one egress source towards one site. Owns who waits for it, how many connections it has
//! earned, and its rest after trouble. Knows nothing of sockets; fed with outcomes, asked for work.

use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mail::retry::StreamClass;
use store::{AccountNo, QueueRow};
use time::OffsetDateTime;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::{FairQueue, Surplus};
use crate::config::{EgressSource, MtaLimits};
use crate::routing::{Route, SiteKey};
use crate::sync::lock;

/// Connections a path starts with; it earns more with the first answers. Few, because a list full
/// of dead domains must not take the node's connections from the living.
const WINDOW_START: usize = 2;
/// Connection failures in a row after which a path rests (practice: leave a dead host for minutes
/// instead of probing it once a message, RFC 5321 section 4.5.4.1).
const FAILURES_BEFORE_REST: u32 = 5;
const REST_FIRST: Duration = Duration::from_secs(30);
const REST_DOUBLINGS_MAX: u32 = 5;
/// How long the trouble of an unused path is remembered after its rest.
const TROUBLE_REMEMBERED: Duration = Duration::from_hours(1);

/// Names a path.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct PathKey {
    pub(crate) site: SiteKey,
    pub(crate) source: i32,
}

/// A delivery that waits for its path.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) row: QueueRow,
    pub(crate) class: StreamClass,
}

/// What a session is to do next.
#[derive(Debug)]
pub(crate) enum Next {
    Deliver(Box<Waiting>),
    /// Close the connection and end.
    Retire,
}

/// One egress source towards one site.
#[derive(Debug)]
pub(crate) struct Path {
    pub(crate) key: PathKey,
    pub(crate) source: Arc<EgressSource>,
    window_max: usize,
    lane_max: usize,
    news: Notify,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    route: Arc<Route>,
    queue: FairQueue<Waiting>,
    sessions: usize,
    idle: usize,
    window: usize,
    failures: u32,
    rests_until: Option<OffsetDateTime>,
    rate: Rate,
    surplus: Surplus<(StreamClass, AccountNo)>,
    last_trouble: Option<Instant>,
}

impl Path {
    pub(crate) fn new(
        key: PathKey,
        source: Arc<EgressSource>,
        route: Arc<Route>,
        limits: &MtaLimits,
    ) -> Self {
        let state = State {
            route,
            queue: FairQueue::default(),
            sessions: 0,
            idle: 0,
            window: WINDOW_START.min(limits.connections_per_path),
            failures: 0,
            rests_until: None,
            rate: Rate::default(),
            surplus: Surplus::default(),
            last_trouble: None,
        };
        Self {
            key,
            source,
            window_max: limits.connections_per_path.max(1),
            lane_max: limits.waiting_per_lane,
            news: Notify::new(),
            state: Mutex::new(state),
        }
    }

    pub(crate) fn route(&self) -> Arc<Route> {
        lock(&self.state).route.clone()
    }

    /// Queues a delivery. Says whether a new session is needed.
    ///
    /// # Errors
    /// Until when to park the delivery: the path rests, or the delivery's lane is full.
    pub(crate) fn push(
        &self,
        waiting: Waiting,
        route: Arc<Route>,
        now: OffsetDateTime,
    ) -> Result<bool, (Box<Waiting>, OffsetDateTime)> {
        let mut state = lock(&self.state);
        state.route = route;
        if let Some(until) = state.rests_until.filter(|until| *until > now) {
            return Err((Box::new(waiting), until));
        }
        let lane = (waiting.class, waiting.row.account);
        if state.queue.lane_len(lane.0, lane.1) >= self.lane_max {
            let rate = state.rate.per_second();
            let until = state.surplus.place(&lane, now, rate);
            return Err((Box::new(waiting), until));
        }
        state.queue.push(lane.0, lane.1, waiting);
        Ok(self.staff(&mut state, 0))
    }

    /// Back to the head of the line: taken, not attempted.
    pub(crate) fn put_back(&self, waiting: Waiting) {
        let mut state = lock(&self.state);
        state
            .queue
            .push_front(waiting.class, waiting.row.account, waiting);
    }

    /// Who is next. Waits up to `idle` for work.
    pub(crate) async fn next(&self, idle: Duration) -> Next {
        loop {
            let mut news = pin!(self.news.notified());
            // Listen before looking, so that no hint is lost.
            news.as_mut().enable();
            {
                let mut state = lock(&self.state);
                if state.sessions > state.window || state.rests_until.is_some() {
                    return state.retire();
                }
                if let Some(waiting) = state.queue.pop() {
                    return Next::Deliver(Box::new(waiting));
                }
                state.idle += 1;
            }
            let hinted = timeout(idle, news).await.is_ok();
            let mut state = lock(&self.state);
            state.idle -= 1;
            if !hinted && state.queue.len() == 0 {
                return state.retire();
            }
        }
    }

    /// A session ends although it was not told to.
    pub(crate) fn session_ended(&self) {
        lock(&self.state).sessions -= 1;
    }

    /// The site answered a whole transaction: the window grows while it is used to the full.
    /// Says whether a new session is needed.
    pub(crate) fn answered(&self) -> bool {
        let mut state = lock(&self.state);
        state.failures = 0;
        state.rate.count();
        // An idle window proves nothing about the site.
        if state.sessions >= state.window && state.queue.len() > 0 {
            state.window = (state.window + 1).min(self.window_max);
        }
        // Whoever was answered takes one itself.
        self.staff(&mut state, 1)
    }

    /// No host of the site could be talked to, or it asked us to slow down. Returns what waited
    /// and until when it is to be parked, if the path now rests. `begun` is when the attempt began:
    /// attempts that were under way together fail together, and count once.
    pub(crate) fn troubled(
        &self,
        begun: Instant,
        now: OffsetDateTime,
    ) -> Option<(Vec<Waiting>, OffsetDateTime)> {
        let mut state = lock(&self.state);
        if state.last_trouble.is_some_and(|last| begun < last) {
            return None;
        }
        state.last_trouble = Some(Instant::now());
        state.window = (state.window / 2).max(1);
        state.failures += 1;
        if state.failures < FAILURES_BEFORE_REST {
            return None;
        }
        let doublings = (state.failures - FAILURES_BEFORE_REST).min(REST_DOUBLINGS_MAX);
        let until = now + REST_FIRST * 2u32.pow(doublings);
        state.rests_until = Some(until);
        Some((state.queue.extract(|_| true), until))
    }

    /// Ends a rest whose time has come.
    pub(crate) fn wake(&self, now: OffsetDateTime) {
        let mut state = lock(&self.state);
        if state.rests_until.is_some_and(|until| until <= now) {
            state.rests_until = None;
        }
    }

    /// True if deliveries wait and nobody works: a session ended on the way, or put its delivery
    /// back while the path went to rest. Counts the session that the caller then starts.
    pub(crate) fn is_abandoned(&self, now: OffsetDateTime) -> bool {
        self.wake(now);
        let mut state = lock(&self.state);
        let abandoned = state.rests_until.is_none() && state.sessions == 0 && state.queue.len() > 0;
        state.sessions += usize::from(abandoned);
        abandoned
    }

    /// Takes out whatever `gone` says.
    pub(crate) fn extract(&self, gone: impl FnMut(&Waiting) -> bool) -> Vec<Waiting> {
        lock(&self.state).queue.extract(gone)
    }

    /// Nothing waits, nobody works, no trouble worth remembering.
    pub(crate) fn is_unused(&self, now: OffsetDateTime) -> bool {
        let mut state = lock(&self.state);
        state.surplus.sweep(now);
        let clean = state.failures == 0
            || state
                .rests_until
                .is_none_or(|until| until + TROUBLE_REMEMBERED < now);
        state.sessions == 0 && state.queue.len() == 0 && clean
    }

    pub(crate) fn sessions(&self) -> usize {
        lock(&self.state).sessions
    }

    /// Wakes an idle session for the work that came, or says that a new one is needed. `at_hand`
    /// busy sessions are about to ask for work.
    fn staff(&self, state: &mut State, at_hand: usize) -> bool {
        let waiting = state.queue.len();
        if state.idle > 0 {
            self.news.notify_one();
        }
        let wanted = state.rests_until.is_none()
            && waiting > state.idle + at_hand
            && state.sessions < state.window;
        state.sessions += usize::from(wanted);
        wanted
    }
}

impl State {
    fn retire(&mut self) -> Next {
        self.sessions -= 1;
        Next::Retire
    }
}

/// Deliveries a second over about the last ten seconds.
#[derive(Debug, Default)]
struct Rate {
    since: Option<Instant>,
    count: u32,
    last: f64,
}

impl Rate {
    const SPAN: Duration = Duration::from_secs(10);

    fn count(&mut self) {
        let since = *self.since.get_or_insert_with(Instant::now);
        self.count += 1;
        let elapsed = since.elapsed();
        if elapsed >= Self::SPAN {
            self.last = f64::from(self.count) / elapsed.as_secs_f64();
            self.since = None;
            self.count = 0;
        }
    }

    fn per_second(&self) -> f64 {
        let running = self.since.map_or(0.0, |since| {
            f64::from(self.count) / since.elapsed().as_secs_f64().max(1.0)
        });
        running.max(self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mail::ids::MessageId;
    use store::{DeliveryKey, QueueFlags, RecipientDomainNo, ShardNo, StreamNo};

    const START: OffsetDateTime = time::macros::datetime!(2026-03-10 12:00 UTC);

    fn path(lane_max: usize) -> Path {
        let source = EgressSource {
            number: 1,
            address: None,
            ehlo: "mta.example".to_owned(),
        };
        let limits = MtaLimits {
            connections_per_path: 8,
            waiting_per_lane: lane_max,
            ..MtaLimits::default()
        };
        let route = route();
        let key = PathKey {
            site: route.site.clone(),
            source: 1,
        };
        Path::new(key, Arc::new(source), route, &limits)
    }

    fn route() -> Arc<Route> {
        Arc::new(Route::to_address("192.0.2.1:25".parse().unwrap()))
    }

    fn waiting(number: u64) -> Waiting {
        let row = QueueRow {
            shard: ShardNo(0),
            next_at: START,
            key: DeliveryKey {
                message: MessageId::from_time_and_random(number, [0; 10]),
                rcpt: 0,
            },
            account: AccountNo(1),
            stream: StreamNo(1),
            domain: RecipientDomainNo(1),
            pool: None,
            attempt: 0,
            flags: QueueFlags::default(),
            first_at: START,
            expires_at: START + Duration::from_hours(120),
        };
        Waiting {
            row,
            class: StreamClass::Transactional,
        }
    }

    fn push(path: &Path, number: u64, now: OffsetDateTime) -> Result<bool, OffsetDateTime> {
        path.push(waiting(number), route(), now)
            .map_err(|(_, until)| until)
    }

    #[test]
    fn sessions_come_with_the_backlog_up_to_the_window() {
        let path = path(100);
        let spawned = (0..20).filter(|n| push(&path, *n, START).unwrap()).count();
        assert_eq!(spawned, WINDOW_START);
        assert_eq!(path.sessions(), WINDOW_START);
    }

    #[test]
    fn the_window_grows_only_while_it_is_full() {
        let path = path(100);
        for n in 0..20 {
            push(&path, n, START).unwrap();
        }
        let more = (0..20).filter(|_| path.answered()).count();
        assert_eq!(path.sessions(), 8, "the limit of the path");
        assert_eq!(more, 8 - WINDOW_START);

        let idle = super::tests::path(100);
        push(&idle, 1, START).unwrap();
        (0..20).for_each(|_| assert!(!idle.answered(), "one session is no full window"));
    }

    #[tokio::test]
    async fn a_session_retires_when_nothing_comes_and_when_the_window_shrinks() {
        let path = path(100);
        assert!(push(&path, 1, START).unwrap());
        assert!(matches!(
            path.next(Duration::from_millis(1)).await,
            Next::Deliver(_)
        ));
        assert!(matches!(
            path.next(Duration::from_millis(1)).await,
            Next::Retire
        ));
        assert_eq!(path.sessions(), 0);

        (0..20).for_each(|n| assert!(push(&path, n, START).is_ok()));
        let earlier = Instant::now();
        assert!(path.troubled(Instant::now(), START).is_none());
        assert!(path.troubled(earlier, START).is_none());
        assert_eq!(
            lock(&path.state).failures,
            1,
            "those under way together count once"
        );
        assert!(matches!(
            path.next(Duration::from_millis(1)).await,
            Next::Retire
        ));
    }

    #[tokio::test]
    async fn work_wakes_an_idle_session_instead_of_a_new_one() {
        let path = Arc::new(path(100));
        assert!(push(&path, 1, START).unwrap());
        let Next::Deliver(_) = path.next(Duration::from_secs(5)).await else {
            panic!("no work")
        };
        let idle = tokio::spawn({
            let path = path.clone();
            async move { matches!(path.next(Duration::from_secs(30)).await, Next::Deliver(_)) }
        });
        while lock(&path.state).idle == 0 {
            tokio::task::yield_now().await;
        }
        assert!(!push(&path, 2, START).unwrap(), "the idle session takes it");
        assert!(idle.await.unwrap());
    }

    #[test]
    fn a_dead_site_rests_longer_each_time_and_what_waits_is_parked() {
        let path = path(100);
        (0..3).for_each(|n| assert!(push(&path, n, START).is_ok()));
        let mut rests = Vec::new();
        let mut now = START;
        for _ in 0..8 {
            if let Some((_, until)) = path.troubled(Instant::now(), now) {
                assert_eq!(
                    push(&path, 9, now).unwrap_err(),
                    until,
                    "new mail waits as well"
                );
                rests.push((until - now).whole_seconds());
                now = until;
                path.wake(now);
            }
        }
        assert_eq!(rests, [30, 60, 120, 240]);
        assert!(push(&path, 10, now).is_ok());
    }

    #[test]
    fn the_surplus_of_a_lane_is_parked_further_and_further() {
        let path = path(2);
        assert!(push(&path, 1, START).is_ok());
        assert!(push(&path, 2, START).is_ok());
        let first = push(&path, 3, START).unwrap_err();
        let second = push(&path, 4, START).unwrap_err();
        assert!(START < first && first < second);
    }
}
