//! How many octets of bodies, asked and answered, are in memory at once, and where work on large ones is done.
//! Reads no body and knows no route.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{HeaderValue, header};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::ApiConfig;
use crate::problem::{Code, Problem};

/// Bodies above this are worked on by a thread of their own: smaller ones take less time than
/// moving them there.
pub(crate) const INLINE_MAX_OCTETS: usize = 64 * 1024;
/// What a client is told to wait when others' bodies fill the memory.
const RETRY_SECS: u64 = 5;

/// The octets that all bodies of this process share; clones share them too.
#[derive(Clone)]
pub(crate) struct BodyBudget {
    free: Arc<Semaphore>,
    turns: Arc<Semaphore>,
    total: u32,
    patience: Duration,
}

/// The same for large answers: a budget of their own, because a client may take its time to read
/// one, and nobody's sending may wait for that.
#[derive(Clone)]
pub(crate) struct AnswerBudget(BodyBudget);

impl AnswerBudget {
    /// Half of what request bodies may take.
    pub(crate) fn new(config: &ApiConfig) -> Self {
        Self(BodyBudget::of(
            config.bodies_max_octets / 2,
            config.body_room_timeout,
        ))
    }

    /// As [`BodyBudget::room_for`].
    pub(crate) async fn room_for(&self, octets: usize) -> Result<BodyRoom, Problem> {
        self.0.room_for(octets).await
    }
}

/// Octets that are part of an answer and keep their room until the last of them was sent.
pub(crate) struct RoomedOctets {
    octets: Bytes,
    _room: BodyRoom,
}

impl RoomedOctets {
    /// Gives back what of the room the answer does not need.
    pub(crate) fn answer(octets: Bytes, mut room: BodyRoom) -> Bytes {
        room.shrink_to(octets.len());
        Bytes::from_owner(Self {
            octets,
            _room: room,
        })
    }
}

impl AsRef<[u8]> for RoomedOctets {
    fn as_ref(&self) -> &[u8] {
        &self.octets
    }
}

/// Room for one body, given back when dropped.
pub(crate) struct BodyRoom {
    permit: OwnedSemaphorePermit,
    turns: Arc<Semaphore>,
}

impl BodyBudget {
    pub(crate) fn new(config: &ApiConfig) -> Self {
        Self::of(config.bodies_max_octets, config.body_room_timeout)
    }

    fn of(octets: usize, patience: Duration) -> Self {
        let total = as_permits(octets);
        Self {
            free: Arc::new(Semaphore::new(total as usize)),
            turns: Arc::new(Semaphore::new(turns())),
            total,
            patience,
        }
    }

    /// Waits for room. A body larger than everything there is gets everything.
    ///
    /// # Errors
    /// `unavailable` when other bodies keep the room for too long.
    pub(crate) async fn room_for(&self, octets: usize) -> Result<BodyRoom, Problem> {
        let wanted = as_permits(octets).min(self.total);
        let waiting = self.free.clone().acquire_many_owned(wanted);
        match tokio::time::timeout(self.patience, waiting).await {
            Ok(Ok(permit)) => Ok(BodyRoom {
                permit,
                turns: self.turns.clone(),
            }),
            Ok(Err(_)) | Err(_) => {
                let detail = "too many large requests or answers are under way at the moment; nothing was \
                              done with this one, send it again in a few seconds";
                Err(Problem::new(Code::Unavailable, detail)
                    .with_header(header::RETRY_AFTER, HeaderValue::from(RETRY_SECS)))
            }
        }
    }
}

impl BodyRoom {
    /// Gives back what a body that has arrived turned out not to need.
    pub(crate) fn shrink_to(&mut self, octets: usize) {
        let unused = self.permit.num_permits().saturating_sub(octets);
        drop(self.permit.split(unused));
    }

    /// Waits for a turn at work that takes much longer than its octets tell. There are half as many
    /// as there are cores: the rest is for everybody else.
    pub(crate) async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        self.turns.clone().acquire_owned().await.ok()
    }
}

fn turns() -> usize {
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    (cores / 2).max(1)
}

fn as_permits(octets: usize) -> u32 {
    u32::try_from(octets).unwrap_or(u32::MAX)
}

/// Does work on a body of `octets` where it holds up no other request.
///
/// # Errors
/// `internal` when the work broke down.
pub(crate) async fn work_on<T: Send + 'static>(
    octets: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Problem> {
    if octets <= INLINE_MAX_OCTETS {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        tracing::error!(%error, "work on a body did not finish");
        Problem::new(
            Code::Internal,
            "the cause was logged under the id of this request",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bodies_share_what_there_is() {
        let budget = BodyBudget::new(&ApiConfig {
            bodies_max_octets: 100,
            body_room_timeout: Duration::from_millis(20),
            ..ApiConfig::default()
        });
        let mut all = budget.room_for(1_000).await.unwrap();
        let refused = budget.room_for(1).await.err().unwrap();
        assert_eq!(refused.code(), Code::Unavailable);
        all.shrink_to(60);
        let rest = budget.room_for(40).await.unwrap();
        assert!(budget.room_for(1).await.is_err());
        drop((all, rest));
        assert!(budget.room_for(100).await.is_ok());
    }
}
