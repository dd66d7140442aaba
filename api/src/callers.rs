//! What is remembered of callers from one request to the next: how much they asked for, who guessed,
//! which keys were used. All of it may be lost without harm.

use std::sync::Arc;

use store::RateLimitStore;

use crate::config::RateLimits;
use crate::key_uses::KeyUses;
use crate::limits::{Limiter, WrongKeys};

/// The memory of one process. Clones share it.
#[derive(Clone)]
pub struct Callers {
    pub(crate) limiter: Arc<Limiter>,
    pub(crate) wrong_keys: Arc<WrongKeys>,
    pub(crate) uses: KeyUses,
}

impl Callers {
    /// Remembers nothing yet. Without `shared` this is the only node.
    pub fn new(limits: &RateLimits, shared: Option<RateLimitStore>) -> Self {
        Self {
            limiter: Arc::new(Limiter::new(limits, shared)),
            wrong_keys: Arc::new(WrongKeys::new(limits)),
            uses: KeyUses::default(),
        }
    }
}
