//! How often batches begin. A statement costs PostgreSQL some hundred microseconds however little is
//! in it, and a fast disk answers so soon that "take all that waits" finds one or two each time. So a
//! batch waits until the one before began long enough ago: twice what batches usually take. Who comes
//! alone waits for nothing; under load, when statements take longer, batches grow by themselves.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Of what the last batch took, so much goes into what they usually take.
const NEWS: f64 = 0.25;
/// Between two beginnings lies so many times what batches usually take.
const SPACING: f64 = 2.0;

/// When the next batch may begin. Shared by all who make batches of one kind.
#[derive(Debug)]
pub struct BatchPace {
    least: Duration,
    most: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    begun: Option<Instant>,
    usual: Duration,
}

impl BatchPace {
    /// Beginnings lie at least `least` apart, and nobody waits longer than `most` for one.
    pub fn new(least: Duration, most: Duration) -> Self {
        Self {
            least,
            most,
            state: Mutex::default(),
        }
    }

    /// Waits until a batch may begin, a full one for nothing, and notes that it does.
    pub async fn begin(&self, is_full: bool) {
        let next = self.next();
        if !is_full && next > Instant::now() {
            tokio::time::sleep_until(next.into()).await;
        }
        self.begun(Instant::now());
    }

    /// When a batch that is not full may begin.
    pub fn next(&self) -> Instant {
        let state = self.state();
        let spacing = state.usual.mul_f64(SPACING).max(self.least).min(self.most);
        state.begun.map_or_else(Instant::now, |at| at + spacing)
    }

    /// A batch begins.
    pub fn begun(&self, at: Instant) {
        self.state().begun = Some(at);
    }

    /// A batch took so long.
    pub fn took(&self, time: Duration) {
        let mut state = self.state();
        state.usual = state.usual.mul_f64(1.0 - NEWS) + time.min(self.most).mul_f64(NEWS);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn who_comes_alone_waits_for_nothing() {
        let pace = BatchPace::new(Duration::ZERO, 20 * MS);
        assert!(pace.next() <= Instant::now());
        pace.begun(Instant::now() - 50 * MS);
        (0..100).for_each(|_| pace.took(500 * MS));
        assert!(pace.next() <= Instant::now(), "the last one is long ago");
    }

    #[test]
    fn batches_begin_twice_as_far_apart_as_they_take() {
        let pace = BatchPace::new(Duration::ZERO, 20 * MS);
        let now = Instant::now();
        pace.begun(now);
        (0..100).for_each(|_| pace.took(4 * MS));
        let apart = pace.next() - now;
        assert!((7 * MS..=8 * MS).contains(&apart), "{apart:?}");
        (0..100).for_each(|_| pace.took(500 * MS));
        assert_eq!(pace.next() - now, 20 * MS, "a slow server holds nobody up");
        (0..100).for_each(|_| pace.took(Duration::ZERO));
        let pace = BatchPace::new(5 * MS, 20 * MS);
        pace.begun(now);
        assert_eq!(pace.next() - now, 5 * MS);
    }
}
