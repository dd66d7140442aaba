//! A loop that works when hinted and when time has passed, until the process stops.
//! Hints may be lost: the period keeps the loop right, hints only make it quick. The work must be
//! safe to repeat; what it does is none of this file's business.

use std::fmt::Display;
use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use tokio::sync::Notify;

use crate::clock::Clock;
use crate::shutdown::Shutdown;

/// First pause after an error; doubled with each further error in a row.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);

/// What one round of work found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Round {
    /// Nothing more to do now: wait for a hint or the period.
    Idle,
    /// There may be more: the next round starts at once.
    Busy,
}

/// Name and pace of a loop.
#[derive(Clone, Debug)]
pub struct Loop {
    /// Named in the log.
    pub name: &'static str,
    /// Longest wait between two rounds, in domain time: a test that moves the clock sees the
    /// round happen.
    pub period: Duration,
    /// Longest pause after errors, in real time: trouble is not cured by moving a clock.
    pub backoff_max: Duration,
}

impl Loop {
    /// Repeats `work` until `shutdown` is requested. A round in progress is finished, not cut;
    /// long work should look at `shutdown` itself.
    ///
    /// A round that fails is logged and repeated after a growing pause, which hints do not
    /// shorten: else a busy hinter would hammer a database that is down.
    pub async fn run<W, F, E>(&self, clock: &Clock, hint: &Notify, shutdown: &Shutdown, mut work: W)
    where
        W: FnMut() -> F,
        F: Future<Output = Result<Round, E>>,
        E: Display,
    {
        let mut failures: u32 = 0;
        while !shutdown.is_requested() {
            // Listened for before the work looks, so that no hint given meanwhile is lost.
            let mut hinted = pin!(hint.notified());
            hinted.as_mut().enable();
            match work().await {
                Ok(Round::Busy) => {
                    failures = 0;
                    // A loop that is always busy must still let its neighbours run.
                    tokio::task::yield_now().await;
                }
                Ok(Round::Idle) => {
                    failures = 0;
                    tokio::select! {
                        () = hinted => {}
                        () = clock.sleep(self.period) => {}
                        () = shutdown.requested() => {}
                    }
                }
                Err(error) => {
                    let pause = self.backoff(failures);
                    failures = failures.saturating_add(1);
                    tracing::warn!(
                        background = self.name,
                        error = format!("{error:#}"),
                        failures,
                        pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
                        "round failed, repeating after a pause"
                    );
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        () = shutdown.requested() => {}
                    }
                }
            }
        }
        tracing::debug!(background = self.name, "stopped");
    }

    fn backoff(&self, failures: u32) -> Duration {
        BACKOFF_FIRST
            .saturating_mul(2u32.saturating_pow(failures))
            .min(self.backoff_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use tokio::sync::mpsc;
    use tokio::task::JoinHandle;

    const PATIENCE: Duration = Duration::from_secs(5);

    /// A running loop whose rounds are reported, one by one.
    struct Started {
        rounds: mpsc::UnboundedReceiver<u32>,
        hint: Arc<Notify>,
        shutdown: Shutdown,
        task: JoinHandle<()>,
    }

    impl Started {
        async fn next(&mut self) -> u32 {
            tokio::time::timeout(PATIENCE, self.rounds.recv())
                .await
                .unwrap()
                .unwrap()
        }

        async fn stop(self) {
            self.shutdown.request();
            tokio::time::timeout(PATIENCE, self.task)
                .await
                .unwrap()
                .unwrap();
        }
    }

    fn start(clock: Clock, result: fn(u32) -> Result<Round, String>) -> Started {
        let (report, rounds) = mpsc::unbounded_channel();
        let (hint, shutdown) = (Arc::new(Notify::new()), Shutdown::new());
        let pace = Loop {
            name: "test",
            period: Duration::from_secs(3_600),
            backoff_max: Duration::from_millis(5),
        };
        let task = tokio::spawn({
            let (hint, shutdown) = (Arc::clone(&hint), shutdown.clone());
            async move {
                let count = AtomicU32::new(0);
                let work = || async {
                    let round = count.fetch_add(1, Ordering::Relaxed);
                    report.send(round).unwrap();
                    result(round)
                };
                pace.run(&clock, &hint, &shutdown, work).await;
            }
        });
        Started {
            rounds,
            hint,
            shutdown,
            task,
        }
    }

    #[tokio::test]
    async fn a_hint_wakes_the_loop_and_shutdown_ends_it() {
        let mut started = start(Clock::system(), |_| Ok(Round::Idle));
        assert_eq!(started.next().await, 0);
        started.hint.notify_one();
        assert_eq!(started.next().await, 1);
        started.stop().await;
    }

    #[tokio::test]
    async fn domain_time_wakes_the_loop() {
        let dir = tempfile::tempdir().unwrap();
        let file = crate::clock::ClockFile::create(dir.path().join("clock")).unwrap();
        let mut started = start(Clock::from_file(file.path()).unwrap(), |_| Ok(Round::Idle));
        assert_eq!(started.next().await, 0);
        file.advance(Duration::from_secs(7_200)).unwrap();
        assert_eq!(started.next().await, 1);
        started.stop().await;
    }

    #[tokio::test]
    async fn busy_and_failed_rounds_are_repeated_without_a_hint() {
        let mut started = start(Clock::system(), |round| match round {
            0 => Ok(Round::Busy),
            1 => Err("database is down".to_owned()),
            _ => Ok(Round::Idle),
        });
        for round in 0..3 {
            assert_eq!(started.next().await, round);
        }
        started.stop().await;
    }

    #[test]
    fn pauses_double_up_to_their_limit() {
        let pace = Loop {
            name: "test",
            period: Duration::ZERO,
            backoff_max: Duration::from_secs(30),
        };
        let pauses = [0, 1, 2, 40].map(|failures| pace.backoff(failures).as_millis());
        assert_eq!(pauses, [100, 200, 400, 30_000]);
    }
}
