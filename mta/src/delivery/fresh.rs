//! Messages that this process accepted a moment ago, so that sending them at once needs no look into
//! the database. Bounded in octets and in time: the suppression list was asked when they were
//! accepted, and is asked again whenever content is fetched, so what is older than
//! [`FRESH_FOR`] has to be fetched.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mail::ids::MessageId;
use store::StoredMessage;

/// How long the answer of the suppression list is good.
const FRESH_FOR: Duration = Duration::from_secs(5);
/// Octets of content. What does not fit waits in the database: the queue is longer than that then,
/// and a fetch of many costs little.
const OCTETS_MAX: usize = 48 * 1024 * 1024;
/// What an entry takes besides its content, about.
const ENTRY_OCTETS: usize = 1_024;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Fresh {
    messages: HashMap<MessageId, Entry>,
    /// Oldest first; may name what was taken already.
    order: VecDeque<(Instant, MessageId)>,
    octets: usize,
}

#[derive(Debug)]
struct Entry {
    message: Arc<StoredMessage>,
    /// Recipients who have not come for it.
    awaited: usize,
}

impl Fresh {
    pub(super) fn keep(&mut self, messages: Vec<Arc<StoredMessage>>, now: Instant) {
        self.forget_old(now);
        for message in messages {
            let octets = octets(&message);
            if self.octets + octets > OCTETS_MAX {
                return;
            }
            self.octets += octets;
            self.order.push_back((now, message.id));
            let awaited = message.recipients.len();
            self.messages.insert(message.id, Entry { message, awaited });
        }
    }

    /// The message, for one of its recipients.
    pub(super) fn take(&mut self, id: MessageId, now: Instant) -> Option<Arc<StoredMessage>> {
        self.forget_old(now);
        let entry = self.messages.get_mut(&id)?;
        entry.awaited = entry.awaited.saturating_sub(1);
        if entry.awaited > 0 {
            return Some(entry.message.clone());
        }
        self.remove(id)
    }

    fn remove(&mut self, id: MessageId) -> Option<Arc<StoredMessage>> {
        let Entry { message, .. } = self.messages.remove(&id)?;
        self.octets -= octets(&message);
        Some(message)
    }

    fn forget_old(&mut self, now: Instant) {
        while let Some((kept_at, id)) = self.order.front().copied()
            && now.duration_since(kept_at) >= FRESH_FOR
        {
            self.order.pop_front();
            self.remove(id);
        }
    }
}

fn octets(message: &StoredMessage) -> usize {
    message.bytes.len() + message.header.len() + ENTRY_OCTETS
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use store::{AccountNo, ContentKind, DomainNo, MessageFlags, StreamNo};

    use super::*;

    fn message(number: u64, recipients: usize, octets: usize) -> Arc<StoredMessage> {
        Arc::new(StoredMessage {
            id: MessageId::from_time_and_random(number, [0; 10]),
            account: AccountNo(1),
            stream: StreamNo(1),
            domain: DomainNo(1),
            flags: MessageFlags::NONE,
            sender: "a@b.example".to_owned(),
            recipients: vec!["c@d.example".to_owned(); recipients],
            rfc_message_id: "<1@b.example>".to_owned(),
            header: String::new(),
            variables: None,
            content_id: Default::default(),
            kind: ContentKind::Message,
            header_len: 0,
            body_hash: [0; 32],
            bytes: Bytes::from(vec![b'x'; octets]),
            suppressed: Vec::new(),
        })
    }

    #[test]
    fn each_recipient_gets_it_once_and_then_it_is_gone() {
        let (mut fresh, now) = (Fresh::default(), Instant::now());
        let sent = message(1, 2, 10);
        fresh.keep(vec![sent.clone()], now);
        assert!(fresh.take(sent.id, now).is_some());
        assert!(fresh.take(sent.id, now).is_some());
        assert!(fresh.take(sent.id, now).is_none());
        assert_eq!(fresh.octets, 0);
    }

    #[test]
    fn what_the_suppression_list_said_long_ago_does_not_count() {
        let (mut fresh, now) = (Fresh::default(), Instant::now());
        let sent = message(1, 1, 10);
        fresh.keep(vec![sent.clone()], now);
        assert!(fresh.take(sent.id, now + FRESH_FOR).is_none());
        assert_eq!((fresh.octets, fresh.order.len()), (0, 0));
    }

    #[test]
    fn memory_is_bounded_and_those_who_come_first_stay() {
        let (mut fresh, now) = (Fresh::default(), Instant::now());
        let many: Vec<_> = (0..60).map(|number| message(number, 1, 1 << 20)).collect();
        fresh.keep(many.clone(), now);
        assert!(fresh.octets <= OCTETS_MAX && fresh.messages.len() >= 40);
        assert!(fresh.take(many[0].id, now).is_some());
        assert!(fresh.take(many[59].id, now).is_none());
    }
}
