//! Taking from a channel what one statement is to hold.

use std::time::Instant;

use store::BatchPace;
use tokio::sync::mpsc;

/// A channel that batches are taken from.
pub(super) trait Waiting<T> {
    async fn first(&mut self) -> Option<T>;
    fn waiting(&self) -> usize;
    fn take(&mut self, into: &mut Vec<T>, most: usize);
}

impl<T> Waiting<T> for mpsc::Receiver<T> {
    async fn first(&mut self) -> Option<T> {
        self.recv().await
    }

    fn waiting(&self) -> usize {
        self.len()
    }

    fn take(&mut self, into: &mut Vec<T>, most: usize) {
        into.extend(std::iter::from_fn(|| self.try_recv().ok()).take(most));
    }
}

impl<T> Waiting<T> for mpsc::UnboundedReceiver<T> {
    async fn first(&mut self) -> Option<T> {
        self.recv().await
    }

    fn waiting(&self) -> usize {
        self.len()
    }

    fn take(&mut self, into: &mut Vec<T>, most: usize) {
        into.extend(std::iter::from_fn(|| self.try_recv().ok()).take(most));
    }
}

/// Waits for the first, then for the pace unless `full` wait, and takes all that wait then, at most
/// `most`. False at the end of the channel.
pub(super) async fn gather<T>(
    channel: &mut impl Waiting<T>,
    pace: &BatchPace,
    full: usize,
    batch: &mut Vec<T>,
    most: usize,
) -> bool {
    let Some(first) = channel.first().await else {
        return false;
    };
    batch.push(first);
    if channel.waiting() < full {
        pace.begin().await;
    } else {
        pace.begun(Instant::now());
    }
    channel.take(batch, most - 1);
    true
}
