//! Replays of a range: finds the events and plans their calls, a piece at a time and never far
//! ahead of the calls, which the retrier makes after all others. What is planned stands in the
//! database together with how far that got: a killed worker loses nothing and plans nothing twice.

use std::time::Duration;

use service::shutdown::Shutdown;
use store::StoreError;

use super::{Webhooks, warn};

/// Calls of a replay that are planned ahead, about.
const PLANNED_MAX: i64 = 256;
/// Pieces of one replay in a round: most events of a time may be others than the wanted ones.
const PIECES_A_ROUND: usize = 20;
/// Events that one replay may tell.
pub(super) const EVENTS_MAX: u32 = 100_000;
/// Pause between rounds while there are replays.
const PERIOD: Duration = Duration::from_millis(250);
/// Pause between rounds otherwise.
const IDLE_PERIOD: Duration = Duration::from_secs(1);

/// Carries out the replays of the accounts whose dispatchers this process holds.
pub(crate) struct Replayer(Webhooks);

impl Replayer {
    pub(crate) fn new(webhooks: Webhooks) -> Self {
        Self(webhooks)
    }

    /// Works until shutdown. What it has not planned by then waits.
    pub(crate) async fn run(self, shutdown: Shutdown) {
        while !shutdown.is_requested() {
            let pause = match self.round().await {
                Ok(0) => IDLE_PERIOD,
                Ok(_) => PERIOD,
                Err(error) => {
                    warn(&error, "could not go on with webhook replays");
                    IDLE_PERIOD
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = shutdown.requested() => {}
            }
        }
    }

    /// Returns how many replays are not done.
    async fn round(&self) -> Result<i64, StoreError> {
        let store = &self.0.store;
        let held = self.0.held.borrow().clone();
        if held.is_empty() {
            return Ok(0);
        }
        for replay in store.replays_to_read(&held, PLANNED_MAX).await? {
            let mut next = Some(replay);
            for _ in 0..PIECES_A_ROUND {
                let Some(replay) = next.take() else { break };
                let piece = store.replay_piece(&replay).await?;
                let now = self.0.clock.now();
                let went_on = store.plan_replay(&replay, &piece, EVENTS_MAX, now).await?;
                if !piece.events.is_empty() {
                    self.0.set_aside.notify_one();
                    break;
                }
                next = went_on;
            }
        }
        store.close_replays(self.0.clock.now()).await
    }
}
