//! Keeps a command about a delivery and the gate before its final dot apart: their statements, run
//! side by side, would not see each other's rows. Both are this node's, so memory is enough; what
//! was noted earlier, by whomever, the command's statement sees.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use store::DeliveryKey;

use crate::sync::lock;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Barrier {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// A command is being carried out about these.
    barred: HashSet<DeliveryKey>,
    /// An intent is being noted for these, so often at once.
    noting: HashMap<DeliveryKey, usize>,
}

/// Deliveries that pass no gate as long as this lives.
#[derive(Debug)]
pub(crate) struct Barred {
    state: Arc<Mutex<State>>,
    keys: HashSet<DeliveryKey>,
}

impl Barrier {
    /// Bars the deliveries that are not at the gate at this moment.
    pub(crate) fn bar(&self, keys: impl IntoIterator<Item = DeliveryKey>) -> Barred {
        let mut state = lock(&self.state);
        let State { barred, noting } = &mut *state;
        let keys: HashSet<DeliveryKey> = keys
            .into_iter()
            .filter(|key| !noting.contains_key(key) && barred.insert(*key))
            .collect();
        Barred {
            state: Arc::clone(&self.state),
            keys,
        }
    }

    /// An intent is about to be noted; false when the delivery is barred.
    pub(crate) fn begin(&self, key: DeliveryKey) -> bool {
        let mut state = lock(&self.state);
        let free = !state.barred.contains(&key);
        if free {
            *state.noting.entry(key).or_default() += 1;
        }
        free
    }

    /// The intents are noted, or never will be followed by a dot.
    pub(crate) fn end(&self, keys: impl IntoIterator<Item = DeliveryKey>) {
        let mut state = lock(&self.state);
        for key in keys {
            if let Some(count) = state.noting.get_mut(&key) {
                *count -= 1;
                if *count == 0 {
                    state.noting.remove(&key);
                }
            }
        }
    }
}

impl Barred {
    pub(crate) fn holds(&self, key: DeliveryKey) -> bool {
        self.keys.contains(&key)
    }
}

impl Drop for Barred {
    fn drop(&mut self) {
        let mut state = lock(&self.state);
        for key in &self.keys {
            state.barred.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mail::ids::MessageId;

    fn key(rcpt: u16) -> DeliveryKey {
        DeliveryKey {
            message: MessageId::from_time_and_random(1, [0; 10]),
            rcpt,
        }
    }

    #[test]
    fn a_delivery_is_at_the_gate_or_commanded_and_never_both() {
        let barrier = Barrier::default();
        assert!(barrier.begin(key(0)) && barrier.begin(key(0)));
        let barred = barrier.bar([key(0), key(1)]);
        assert!(!barred.holds(key(0)) && barred.holds(key(1)));
        assert!(!barrier.begin(key(1)) && barrier.begin(key(0)));
        drop(barred);
        assert!(barrier.begin(key(1)));
        barrier.end([key(0), key(0)]);
        assert!(
            !barrier.bar([key(0)]).holds(key(0)),
            "one is still being noted"
        );
        barrier.end([key(0), key(1)]);
        let both = barrier.bar([key(0), key(1)]);
        assert!(both.holds(key(0)) && both.holds(key(1)));
        assert!(
            !barrier.bar([key(0)]).holds(key(0)),
            "one command at a time"
        );
        assert!(!barrier.begin(key(0)), "and the first still bars it");
    }
}
