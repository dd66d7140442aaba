//! Names of endpoints to addresses, through the system's resolver. It blocks a thread, for as long
//! as the name's servers please, of a pool that signing and accepting mail use too: so few may
//! block at once. What may be connected to is not judged here.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

/// Most threads that resolve names at once.
const LOOKUPS_MAX: usize = 64;
/// How long a name waits for a thread.
const TURN_PATIENCE: Duration = Duration::from_secs(5);

/// Every thread allowed to resolve names is held up by some other name.
#[derive(Clone, Debug, thiserror::Error)]
#[error("too many host names are being looked up")]
pub(super) struct Busy;

/// The threads that resolve names. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct Lookups {
    free: Arc<Semaphore>,
    turn_patience: Duration,
}

impl Default for Lookups {
    fn default() -> Self {
        Self::new(LOOKUPS_MAX, TURN_PATIENCE)
    }
}

impl Lookups {
    fn new(most: usize, turn_patience: Duration) -> Self {
        Self {
            free: Arc::new(Semaphore::new(most)),
            turn_patience,
        }
    }

    /// Addresses of a name, with port 0.
    ///
    /// # Errors
    /// [`Busy`], or what the resolver said.
    pub(super) async fn addresses(&self, name: String) -> io::Result<Vec<SocketAddr>> {
        self.run(move || Ok((name.as_str(), 0).to_socket_addrs()?.collect()))
            .await
    }

    /// Runs what blocks. Nothing can end the thread: who stops waiting for it gives nothing back,
    /// or hanging names would take all threads one after the other.
    async fn run<T: Send + 'static>(
        &self,
        lookup: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let turn = tokio::time::timeout(self.turn_patience, self.free.clone().acquire_owned());
        let Ok(Ok(permit)) = turn.await else {
            return Err(io::Error::other(Busy));
        };
        let thread = tokio::task::spawn_blocking(move || {
            let found = lookup();
            drop(permit);
            found
        });
        thread.await.map_err(io::Error::other)?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_lookup_nobody_waits_for_keeps_its_turn_until_its_thread_ends() {
        let lookups = Lookups::new(1, Duration::from_millis(20));
        let (answer, answered) = std::sync::mpsc::channel::<()>();
        let hanging = lookups.run(move || answered.recv().map_err(io::Error::other));
        let given_up = tokio::time::timeout(Duration::from_millis(20), hanging).await;
        assert!(given_up.is_err());
        let error = lookups.addresses("localhost".to_owned()).await.unwrap_err();
        assert!(error.get_ref().unwrap().is::<Busy>(), "{error}");

        answer.send(()).unwrap();
        let patient = Lookups {
            turn_patience: Duration::from_secs(30),
            ..lookups
        };
        let found = patient.addresses("localhost".to_owned()).await.unwrap();
        assert!(found.iter().all(|address| address.ip().is_loopback()));
    }
}
