//! When keys were last used: noted in memory beside the request, written down together, once a minute
//! for each key at most. What a crash loses is a minute.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mail::ids::ApiKeyId;
use service::background::{Loop, Round};
use service::clock::Clock;
use service::shutdown::Shutdown;
use store::{Store, StoreError};
use time::OffsetDateTime;
use tokio::sync::Notify;

/// A use this soon after a noted one is not noted.
const GRAIN: Duration = Duration::from_secs(60);
/// How long a note waits to be written with others.
const WRITE_PERIOD: Duration = Duration::from_secs(5);
const WRITE_BACKOFF_MAX: Duration = Duration::from_secs(60);
/// Keys noted within a minute; the uses of further ones are not.
const NOTED_MAX: usize = 50_000;

/// Clones share the notes.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeyUses(Arc<Mutex<Notes>>);

#[derive(Debug, Default)]
struct Notes {
    /// The last minute's.
    noted: HashMap<ApiKeyId, OffsetDateTime>,
    /// Those of them not written yet.
    waiting: HashMap<ApiKeyId, OffsetDateTime>,
}

impl KeyUses {
    /// Notes a use.
    pub(crate) fn note(&self, id: ApiKeyId, at: OffsetDateTime) {
        let mut notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match notes.noted.get(&id) {
            Some(before) if at - *before < GRAIN => return,
            None if notes.noted.len() >= NOTED_MAX => return,
            _ => {}
        }
        notes.noted.insert(id, at);
        notes.waiting.insert(id, at);
    }

    /// Writes the notes down now and then, until the stop.
    pub(crate) async fn write_down(self, store: Store, clock: Clock, shutdown: Shutdown) {
        let pace = Loop {
            name: "key uses",
            period: WRITE_PERIOD,
            backoff_max: WRITE_BACKOFF_MAX,
        };
        let work = || self.write(&store, clock.now());
        pace.run(&clock, &Notify::new(), &shutdown, work).await;
    }

    async fn write(&self, store: &Store, now: OffsetDateTime) -> Result<Round, StoreError> {
        let uses = self.take(now);
        if !uses.is_empty() {
            store.note_key_uses(&uses).await?;
        }
        Ok(Round::Idle)
    }

    /// What waits to be written; forgets what is older than a minute.
    fn take(&self, now: OffsetDateTime) -> Vec<(ApiKeyId, OffsetDateTime)> {
        let mut notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        notes.noted.retain(|_, at| now - *at < GRAIN);
        std::mem::take(&mut notes.waiting).into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn a_key_is_noted_once_a_minute() {
        let uses = KeyUses::default();
        let id = ApiKeyId::from_uuid(uuid::Uuid::from_u128(7));
        let now = datetime!(2026-11-22 09:00 UTC);
        let after = |secs| now + Duration::from_secs(secs);
        uses.note(id, now);
        uses.note(id, after(59));
        assert_eq!(uses.take(after(59)), [(id, now)]);
        uses.note(id, after(59));
        assert_eq!(uses.take(after(59)), []);
        uses.note(id, after(60));
        assert_eq!(uses.take(after(60)), [(id, after(60))]);
    }
}
