//! A delivery as it gets into the index that mail is searched with: what its message says of it,
//! and the keys it is found by.

use std::collections::HashMap;

use mail::ids::MessageId;
use uuid::Uuid;

use crate::database::Store;
use crate::error::{During, StoreError};
use crate::numbers::{AccountNo, MessageFlags, StreamNo};
use crate::search_key::{self, AddressKeys};
use crate::search_log::SearchEvent;
use crate::search_span::Spanned;

/// A delivery that is new to the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchRow {
    /// Which one, and where it stands.
    pub delivery: SearchEvent,
    /// Of which kind.
    pub stream: StreamNo,
    /// Sent with a test key.
    pub test: bool,
    /// The From field as given.
    pub sender: String,
    /// The address.
    pub recipient: String,
    /// As given.
    pub tags: Vec<String>,
}

type Message = (Uuid, i32, i16, String, Vec<String>, Option<Vec<String>>);

impl Store {
    /// What new deliveries are found by. Those whose message is gone are left out.
    ///
    /// # Errors
    /// Of the database.
    pub async fn search_rows(&self, new: &[SearchEvent]) -> Result<Vec<SearchRow>, StoreError> {
        let mut ids: Vec<Uuid> = new.iter().map(|new| new.message.uuid()).collect();
        ids.sort_unstable();
        ids.dedup();
        let (Some(lowest), Some(highest)) = (ids.first().copied(), ids.last().copied()) else {
            return Ok(Vec::new());
        };
        let found: Vec<Message> = sqlx::query_as(include_str!("../queries/search_messages.sql"))
            .bind(ids)
            .bind(lowest)
            .bind(highest)
            .fetch_all(&self.search)
            .await
            .during("read mail for the search index")?;
        let messages: HashMap<Uuid, Message> = found.into_iter().map(|row| (row.0, row)).collect();
        let row = |delivery: &SearchEvent| {
            let (_, stream, flags, sender, recipients, tags) =
                messages.get(&delivery.message.uuid())?;
            Some(SearchRow {
                delivery: *delivery,
                stream: StreamNo(*stream),
                test: MessageFlags::from_bits(*flags).contains(MessageFlags::TEST),
                sender: sender.clone(),
                recipient: recipients.get(usize::from(delivery.rcpt))?.clone(),
                tags: tags.clone().unwrap_or_default(),
            })
        };
        Ok(new.iter().filter_map(row).collect())
    }
}

/// A row and its keys.
pub(crate) struct KeyedRow<'a> {
    pub(crate) row: &'a SearchRow,
    pub(crate) recipient: AddressKeys,
    pub(crate) sender: AddressKeys,
    pub(crate) tags: Vec<i64>,
}

impl<'a> KeyedRow<'a> {
    /// In the order of account, message and recipient: of the primary key, and of spans.
    pub(crate) fn of(rows: &'a [SearchRow]) -> Vec<Self> {
        // Few senders write most of the mail.
        let mut senders: HashMap<(AccountNo, &str), AddressKeys> = HashMap::new();
        let mut keyed: Vec<Self> = rows
            .iter()
            .map(|row| {
                let account = row.delivery.account;
                Self {
                    row,
                    recipient: search_key::of_recipient(account, &row.recipient),
                    sender: *senders
                        .entry((account, &row.sender))
                        .or_insert_with(|| search_key::of_sender(account, &row.sender)),
                    tags: row
                        .tags
                        .iter()
                        .map(|tag| search_key::tag(account, tag))
                        .collect(),
                }
            })
            .collect();
        keyed.sort_unstable_by_key(Self::place);
        keyed
    }

    fn place(&self) -> (i32, MessageId, u16) {
        let delivery = self.row.delivery;
        (delivery.account.0, delivery.message, delivery.rcpt)
    }

    /// The recipient is none of them: an index of its own leads to the mail of one.
    pub(crate) fn spanned(&self) -> Spanned {
        let account = self.row.delivery.account;
        let mut keys = vec![
            self.recipient.domain,
            self.sender.address,
            self.sender.domain,
            search_key::stream(account, self.row.stream),
        ];
        keys.extend(&self.tags);
        Spanned {
            account,
            message: self.row.delivery.message.uuid(),
            keys,
        }
    }
}
