//! From the event log into the index that mail is searched with. What stands in it is derived: it
//! can be emptied and filled again from the log.

use mail::event::{DeliveryStatus, EventType};
use mail::ids::MessageId;
use sqlx::Row;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use crate::database::Store;
use crate::decode::{event_type, signed, unsigned};
use crate::error::{During, StoreError};
use crate::lease::SearchLease;
use crate::numbers::{AccountNo, MessageFlags, StreamNo};
use crate::search_key;
use crate::webhook_log::LogCursor;

/// A delivery as an event left it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchRow {
    /// Which message.
    pub message: MessageId,
    /// Which of its recipients, from 0.
    pub rcpt: u16,
    /// After the event.
    pub status: DeliveryStatus,
    /// Of the event.
    pub sequence: u16,
    /// Whose.
    pub account: AccountNo,
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

/// A piece of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchPage {
    /// Transactions from this one on may still be running and were not looked at.
    pub horizon: u64,
    /// In the order of the log. Events whose message is gone, or that cannot be understood, are
    /// left out.
    pub rows: Vec<SearchRow>,
    /// Where the last event found stands, left out or not; none without any.
    pub last: Option<LogCursor>,
    /// Everything below the horizon was seen.
    pub complete: bool,
}

impl Store {
    /// What the log after a cursor says about where deliveries stand. Events older than `lowest`
    /// are not looked for (that leaves the partitions of earlier days out).
    ///
    /// # Errors
    /// Of the database.
    pub async fn read_search_log(
        &self,
        after: LogCursor,
        lowest: Uuid,
        limit: i64,
    ) -> Result<SearchPage, StoreError> {
        let operation = "read the event log for the search index";
        let kinds = EventType::ALL.iter().filter(|kind| kind.status().is_some());
        let found: Vec<PgRow> = sqlx::query(include_str!("../queries/search_read.sql"))
            .bind(after.xid.to_string())
            .bind(after.id)
            .bind(lowest)
            .bind(kinds.map(|kind| kind.code()).collect::<Vec<i16>>())
            .bind(limit)
            .fetch_all(&self.general)
            .await
            .during(operation)?;
        let first = found
            .first()
            .ok_or_else(|| StoreError::corrupt("horizon", "no row"))?;
        let horizon: &str = first.try_get("horizon").during(operation)?;
        let horizon = LogCursor::from_columns(horizon, Uuid::nil())?.xid;
        let (mut rows, mut last, mut events) = (Vec::with_capacity(found.len()), None, 0_i64);
        for row in &found {
            // The horizon comes alone when there is no event.
            if let Some(id) = row.try_get("id").during(operation)? {
                last = Some(LogCursor::from_columns(
                    row.try_get("xid").during(operation)?,
                    id,
                )?);
                rows.extend(search_row(row).during(operation)?);
                events += 1;
            }
        }
        Ok(SearchPage {
            horizon,
            rows,
            last,
            complete: events < limit,
        })
    }

    /// Puts rows into the index, each delivery once, and moves the cursor of the lease to `to`, both
    /// or nothing. False when the lease was lost: nothing was written.
    ///
    /// # Errors
    /// Of the database.
    pub async fn write_search(
        &self,
        lease: &SearchLease,
        to: LogCursor,
        rows: &[SearchRow],
    ) -> Result<bool, StoreError> {
        let columns = Columns::of(rows);
        let moved: i64 = sqlx::query_scalar(include_str!("../queries/search_write.sql"))
            .bind(lease.owner)
            .bind(lease.epoch.0)
            .bind(lease.cursor.xid.to_string())
            .bind(lease.cursor.id)
            .bind(to.xid.to_string())
            .bind(to.id)
            .bind(columns.accounts)
            .bind(columns.messages)
            .bind(columns.rcpts)
            .bind(columns.recipients)
            .bind(columns.recipient_domains)
            .bind(columns.senders)
            .bind(columns.sender_domains)
            .bind(columns.streams)
            .bind(columns.statuses)
            .bind(columns.sequences)
            .bind(columns.tests)
            .bind(columns.tags)
            .fetch_one(&self.general)
            .await
            .during("write the search index")?;
        Ok(moved == 1)
    }
}

/// The row, unless its message is gone or a value in it cannot be understood: the index goes on
/// without it.
fn search_row(row: &PgRow) -> Result<Option<SearchRow>, sqlx::Error> {
    let (Some(account), Some(rcpt), Some(recipient)) = (
        row.try_get::<Option<i32>, _>("account")?,
        row.try_get::<Option<i16>, _>("rcpt")?,
        row.try_get::<Option<String>, _>("recipient")?,
    ) else {
        return Ok(None);
    };
    let (kind, sequence): (i16, i16) = (row.try_get("type")?, row.try_get("sequence")?);
    let flags = MessageFlags::from_bits(row.try_get("flags")?);
    let Some((rcpt, status, sequence)) = delivery(rcpt, kind, sequence) else {
        let event: Uuid = row.try_get("id")?;
        tracing::error!(%event, "an event cannot be understood and is not searched");
        return Ok(None);
    };
    Ok(Some(SearchRow {
        message: MessageId::from_uuid(row.try_get("subject")?),
        rcpt,
        status,
        sequence,
        account: AccountNo(account),
        stream: StreamNo(row.try_get("stream")?),
        test: flags.contains(MessageFlags::TEST),
        sender: row.try_get("sender")?,
        recipient,
        tags: row
            .try_get::<Option<Vec<String>>, _>("tags")?
            .unwrap_or_default(),
    }))
}

fn delivery(rcpt: i16, kind: i16, sequence: i16) -> Option<(u16, DeliveryStatus, u16)> {
    Some((
        unsigned("recipient number", rcpt).ok()?,
        event_type(kind).ok()?.status()?,
        unsigned("event sequence", sequence).ok()?,
    ))
}

/// Parallel arrays, in the order of `search_write.sql`.
#[derive(Default)]
struct Columns {
    accounts: Vec<i32>,
    messages: Vec<Uuid>,
    rcpts: Vec<i16>,
    recipients: Vec<i64>,
    recipient_domains: Vec<i64>,
    senders: Vec<i64>,
    sender_domains: Vec<i64>,
    streams: Vec<i32>,
    statuses: Vec<i16>,
    sequences: Vec<i16>,
    tests: Vec<bool>,
    tags: Vec<Option<String>>,
}

impl Columns {
    fn of(rows: &[SearchRow]) -> Self {
        let mut columns = Self::default();
        for row in rows {
            let recipient = search_key::of_recipient(row.account, &row.recipient);
            let sender = search_key::of_sender(row.account, &row.sender);
            columns.accounts.push(row.account.0);
            columns.messages.push(row.message.uuid());
            columns.rcpts.push(signed(row.rcpt));
            columns.recipients.push(recipient.address);
            columns.recipient_domains.push(recipient.domain);
            columns.senders.push(sender.address);
            columns.sender_domains.push(sender.domain);
            columns.streams.push(row.stream.0);
            columns.statuses.push(row.status.code());
            columns.sequences.push(signed(row.sequence));
            columns.tests.push(row.test);
            columns.tags.push(tag_list(row));
        }
        columns
    }
}

fn tag_list(row: &SearchRow) -> Option<String> {
    let keys = row
        .tags
        .iter()
        .map(|tag| search_key::tag(row.account, tag).to_string());
    let keys: Vec<String> = keys.collect();
    (!keys.is_empty()).then(|| keys.join(","))
}
