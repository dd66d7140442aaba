//! Orderly end of a process: one request that every loop hears, and a count of the tasks that are
//! still finishing. Not global: a value that is passed on, so that a test can stop one role only.

use std::future::Future;
use std::io;
use std::process;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Exit status after a second signal: 128 + SIGINT, what a shell reports for an interrupted job.
const EXIT_INTERRUPTED: i32 = 130;

/// A request to stop, and the tasks to wait for. Clones share both.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    token: CancellationToken,
    tasks: TaskTracker,
}

impl Shutdown {
    /// Not requested, no tasks.
    pub fn new() -> Self {
        Self::default()
    }

    /// A part that can be stopped alone, and stops with the whole. It counts its own tasks, so
    /// whoever makes a part drains it.
    pub fn part(&self) -> Self {
        Self {
            token: self.token.child_token(),
            tasks: TaskTracker::new(),
        }
    }

    /// Asks everything that holds a clone to finish. Safe to repeat.
    pub fn request(&self) {
        self.token.cancel();
    }

    /// Whether the request was made.
    pub fn is_requested(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Resolves once the request was made. Cancel safe.
    pub async fn requested(&self) {
        self.token.cancelled().await;
    }

    /// The request alone, for code that takes a token.
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// Runs `task`, which `drain` then waits for. The task itself must listen to `requested`.
    pub fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tasks.spawn(task)
    }

    /// Number of tasks that have not ended.
    pub fn running(&self) -> usize {
        self.tasks.len()
    }

    /// Requests the stop and waits until every task ended, at most `patience`.
    /// Returns the number of tasks left: 0 means all work was finished.
    pub async fn drain(&self, patience: Duration) -> usize {
        self.request();
        self.tasks.close();
        let _ended_or_out_of_patience = tokio::time::timeout(patience, self.tasks.wait()).await;
        self.tasks.len()
    }

    /// Turns SIGTERM and SIGINT into the request; a second signal ends the process at once.
    ///
    /// # Errors
    /// The system refuses to install a signal handler.
    pub fn follow_signals(&self) -> io::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let shutdown = self.clone();
        // Not tracked: it has to outlive the drain to hear the second signal.
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                if shutdown.is_requested() {
                    tracing::warn!("second signal: leaving without finishing");
                    process::exit(EXIT_INTERRUPTED);
                }
                tracing::info!("stopping: finishing what is in flight; signal again to leave now");
                shutdown.request();
            }
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn draining_waits_for_tasks_that_are_finishing() {
        let shutdown = Shutdown::new();
        let task = shutdown.spawn({
            let shutdown = shutdown.clone();
            async move {
                shutdown.requested().await;
                "finished"
            }
        });
        assert_eq!(shutdown.running(), 1);
        assert_eq!(shutdown.drain(Duration::from_secs(5)).await, 0);
        assert_eq!(task.await.unwrap(), "finished");
    }

    #[tokio::test]
    async fn draining_gives_up_on_a_task_that_hangs() {
        let shutdown = Shutdown::new();
        shutdown.spawn(std::future::pending::<()>());
        assert_eq!(shutdown.drain(Duration::from_millis(20)).await, 1);
    }

    #[tokio::test]
    async fn a_part_stops_alone_and_with_the_whole() {
        let whole = Shutdown::new();
        let (one, other) = (whole.part(), whole.part());
        one.request();
        assert!(one.is_requested() && !other.is_requested() && !whole.is_requested());
        whole.request();
        other.requested().await;
    }

    #[tokio::test]
    async fn sigterm_requests_the_stop() {
        let shutdown = Shutdown::new();
        shutdown.follow_signals().unwrap();
        crate::process::send_signal(std::process::id(), "TERM").unwrap();
        tokio::time::timeout(Duration::from_secs(5), shutdown.requested())
            .await
            .unwrap();
    }
}
