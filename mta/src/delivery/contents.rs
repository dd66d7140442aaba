//! Message and content of deliveries about to be sent. What was accepted by this process a moment ago
//! is still here; the rest is fetched, many in one statement: whoever asks while a statement runs is in
//! the next one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use mail::ids::MessageId;
use store::{StoreError, StoredMessage};
use tokio::sync::{Mutex as AsyncMutex, mpsc, oneshot};

use super::fill_in::fill_in;
use super::fresh::Fresh;
use crate::node::Node;
use crate::sync::lock;

/// Messages in one statement at most. Content is in memory from here to the end of the attempt.
const BATCH_MAX: usize = 64;
const WORKERS: usize = 2;
const QUEUE_MAX: usize = 4_096;

type Answer = Result<Option<Arc<StoredMessage>>, StoreError>;
/// Somebody waits for this message.
pub(crate) type FetchRequest = (MessageId, oneshot::Sender<Answer>);

/// See the module.
#[derive(Debug)]
pub(crate) struct Contents {
    requests: mpsc::Sender<FetchRequest>,
    fresh: Mutex<Fresh>,
}

impl Contents {
    pub(crate) fn new() -> (Self, mpsc::Receiver<FetchRequest>) {
        let (requests, queue) = mpsc::channel(QUEUE_MAX);
        let contents = Self {
            requests,
            fresh: Mutex::default(),
        };
        (contents, queue)
    }

    /// Keeps messages that were just accepted for those who will ask for them, within bounds.
    pub(crate) fn keep(&self, messages: Vec<Arc<StoredMessage>>) {
        lock(&self.fresh).keep(messages, Instant::now());
    }

    /// The message, or `None` if there is no such message or no content any more.
    ///
    /// # Errors
    /// When PostgreSQL cannot be asked; `None` inside when the node stops.
    pub(crate) async fn get(&self, id: MessageId) -> Answer {
        if let Some(message) = lock(&self.fresh).take(id, Instant::now()) {
            return Ok(Some(message));
        }
        let (answer, message) = oneshot::channel();
        let stopping = || StoreError::Unavailable {
            operation: "fetch a message",
            source: None,
        };
        self.requests
            .send((id, answer))
            .await
            .map_err(|_| stopping())?;
        message.await.map_err(|_| stopping())?
    }

    pub(crate) const fn workers() -> usize {
        WORKERS
    }

    pub(crate) async fn work(node: &Node, queue: &AsyncMutex<mpsc::Receiver<FetchRequest>>) {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        while queue.lock().await.recv_many(&mut batch, BATCH_MAX).await > 0 {
            let mut ids: Vec<MessageId> = batch.iter().map(|(id, _)| *id).collect();
            ids.sort_unstable();
            ids.dedup();
            match node.store.contents(&ids).await {
                Ok(messages) => {
                    let messages = fill_in(&node.signatures, messages).await;
                    let found: HashMap<MessageId, Arc<StoredMessage>> = messages
                        .into_iter()
                        .map(|message| (message.id, Arc::new(message)))
                        .collect();
                    for (id, answer) in batch.drain(..) {
                        let _ = answer.send(Ok(found.get(&id).cloned()));
                    }
                }
                Err(error) => {
                    for (_, answer) in batch.drain(..) {
                        let _ = answer.send(Err(error.clone()));
                    }
                }
            }
        }
    }
}
