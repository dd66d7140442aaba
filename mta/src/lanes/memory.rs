//! Which deliveries this node already knows, so that reading a row twice is harmless.
//!
//! A settled delivery is remembered until every read that began before its settle has ended: a
//! paused read may still show the row. Reads of one node follow each other, so a count is enough.

use std::collections::HashMap;
use std::sync::Mutex;

use crate::sync::lock;
use store::{AccountNo, DeliveryKey, QueueRow, ShardNo};

/// The known deliveries of a node.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    known: HashMap<DeliveryKey, Known>,
    held: usize,
    held_by_account: HashMap<AccountNo, usize>,
    reads: u64,
    /// Settled keys with the number of reads begun by then, oldest first.
    settled: Vec<(u64, DeliveryKey)>,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    shard: ShardNo,
    account: AccountNo,
    attempt: u16,
    settled: bool,
}

impl Memory {
    /// A read of the queue begins: what was settled before the one that just ended can be forgotten.
    pub(crate) fn read_begins(&self) {
        let mut state = lock(&self.state);
        state.reads += 1;
        let reads = state.reads;
        let fresh = state.settled.partition_point(|(read, _)| *read < reads);
        let State { known, settled, .. } = &mut *state;
        for (_, key) in settled.drain(..fresh) {
            if known.get(&key).is_some_and(|entry| entry.settled) {
                known.remove(&key);
            }
        }
    }

    /// Keeps the rows that are news and remembers them as held.
    pub(crate) fn admit(&self, rows: Vec<QueueRow>) -> Vec<QueueRow> {
        let mut state = lock(&self.state);
        let mut news = Vec::with_capacity(rows.len());
        for row in rows {
            let fresh = match state.known.get(&row.key) {
                None => true,
                // An old view of a settled attempt is no news; the next attempt is.
                Some(known) => known.settled && row.attempt > known.attempt,
            };
            if fresh {
                let entry = Known {
                    shard: row.shard,
                    account: row.account,
                    attempt: row.attempt,
                    settled: false,
                };
                state.known.insert(row.key, entry);
                state.held += 1;
                *state.held_by_account.entry(row.account).or_default() += 1;
                news.push(row);
            }
        }
        news
    }

    /// The attempt is settled: its row, should a read still show it, is not to be taken again. A
    /// later attempt of the delivery, held already, is none of its business.
    pub(crate) fn settled(&self, key: DeliveryKey, attempt: u16) {
        let mut state = lock(&self.state);
        let reads = state.reads;
        let held = |entry: &&mut Known| !entry.settled && entry.attempt == attempt;
        let Some(entry) = state.known.get_mut(&key).filter(held) else {
            return;
        };
        entry.settled = true;
        let account = entry.account;
        state.settled.push((reads, key));
        state.let_go(account);
    }

    /// The delivery is no longer this node's concern (lost shard, refused at the gate, parked).
    pub(crate) fn forget(&self, key: DeliveryKey) {
        let mut state = lock(&self.state);
        if let Some(entry) = state.known.get(&key).filter(|entry| !entry.settled) {
            let account = entry.account;
            state.known.remove(&key);
            state.let_go(account);
        }
    }

    /// Deliveries held: waiting, in flight, or with an outcome that is not settled.
    pub(crate) fn held(&self) -> usize {
        lock(&self.state).held
    }

    /// Deliveries held of one account.
    pub(crate) fn held_by(&self, account: AccountNo) -> usize {
        lock(&self.state)
            .held_by_account
            .get(&account)
            .copied()
            .unwrap_or_default()
    }

    /// Deliveries held of one shard.
    pub(crate) fn held_of(&self, shard: ShardNo) -> usize {
        let state = lock(&self.state);
        state
            .known
            .values()
            .filter(|known| known.shard == shard && !known.settled)
            .count()
    }
}

impl State {
    fn let_go(&mut self, account: AccountNo) {
        self.held -= 1;
        if let Some(count) = self.held_by_account.get_mut(&account) {
            *count -= 1;
            if *count == 0 {
                self.held_by_account.remove(&account);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mail::ids::MessageId;
    use store::{QueueFlags, RecipientDomainNo, StreamNo};
    use time::OffsetDateTime;

    fn row(attempt: u16) -> QueueRow {
        let now = OffsetDateTime::UNIX_EPOCH;
        QueueRow {
            shard: ShardNo(3),
            next_at: now,
            key: DeliveryKey {
                message: MessageId::from_time_and_random(1, [7; 10]),
                rcpt: 0,
            },
            account: AccountNo(1),
            stream: StreamNo(1),
            domain: RecipientDomainNo(1),
            pool: None,
            attempt,
            flags: QueueFlags::default(),
            first_at: now,
            expires_at: now,
        }
    }

    #[test]
    fn a_row_read_twice_is_news_once() {
        let memory = Memory::default();
        assert_eq!(memory.admit(vec![row(0), row(0)]).len(), 1);
        assert_eq!(memory.held_of(ShardNo(3)), 1);
    }

    #[test]
    fn a_paused_read_cannot_bring_a_settled_delivery_back() {
        let memory = Memory::default();
        memory.read_begins();
        memory.admit(vec![row(0)]);
        memory.read_begins();
        memory.settled(row(0).key, 0);
        assert!(
            memory.admit(vec![row(0)]).is_empty(),
            "shown by the read that began before"
        );
        assert_eq!(memory.held(), 0);
        memory.read_begins();
        assert_eq!(
            memory.admit(vec![row(0)]).len(),
            1,
            "now it would be a new row"
        );
    }

    #[test]
    fn the_next_attempt_is_news_at_once() {
        let memory = Memory::default();
        memory.admit(vec![row(0)]);
        memory.settled(row(0).key, 0);
        assert_eq!(memory.admit(vec![row(1)]).len(), 1);
        memory.read_begins();
        assert!(memory.admit(vec![row(1)]).is_empty(), "and stays known");
        memory.settled(row(0).key, 0);
        assert_eq!(memory.held(), 1, "an old outcome says nothing about it");
        assert_eq!(memory.held_by(AccountNo(1)), 1);
    }
}
