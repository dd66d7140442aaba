//! What the event log says about where deliveries stand, for the index that mail is searched with.

use mail::event::{DeliveryStatus, EventType};
use mail::ids::MessageId;
use sqlx::Row;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use crate::database::Store;
use crate::decode::{event_type, unsigned};
use crate::error::{During, StoreError};
use crate::numbers::AccountNo;
use crate::webhook_log::LogCursor;

/// A delivery as an event left it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SearchEvent {
    /// Whose.
    pub account: AccountNo,
    /// Which message.
    pub message: MessageId,
    /// Which of its recipients, from 0.
    pub rcpt: u16,
    /// After the event.
    pub status: DeliveryStatus,
    /// Of the event.
    pub sequence: u16,
}

impl SearchEvent {
    /// True when nothing is known of the delivery before. Said again of mail that got another time.
    pub fn is_first(&self) -> bool {
        self.sequence == 1
    }
}

/// A piece of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchPage {
    /// Transactions from this one on may still be running and were not looked at.
    pub horizon: u64,
    /// In the order of the log. Those that cannot be understood are left out.
    pub events: Vec<SearchEvent>,
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
            .fetch_all(&self.search)
            .await
            .during(operation)?;
        let first = found
            .first()
            .ok_or_else(|| StoreError::corrupt("horizon", "no row"))?;
        let horizon: &str = first.try_get("horizon").during(operation)?;
        let horizon = LogCursor::from_columns(horizon, Uuid::nil())?.xid;
        let (mut events, mut last, mut count) = (Vec::with_capacity(found.len()), None, 0_i64);
        for row in &found {
            // The horizon comes alone when there is no event.
            if let Some(id) = row.try_get("id").during(operation)? {
                last = Some(LogCursor::from_columns(
                    row.try_get("xid").during(operation)?,
                    id,
                )?);
                events.extend(event(row, id).during(operation)?);
                count += 1;
            }
        }
        Ok(SearchPage {
            horizon,
            events,
            last,
            complete: count < limit,
        })
    }
}

/// The event, unless it tells of no delivery or a value in it cannot be understood: the index goes
/// on without it.
fn event(row: &PgRow, id: Uuid) -> Result<Option<SearchEvent>, sqlx::Error> {
    let Some(rcpt) = row.try_get::<Option<i16>, _>("rcpt")? else {
        return Ok(None);
    };
    let (kind, sequence): (i16, i16) = (row.try_get("type")?, row.try_get("sequence")?);
    let Some((rcpt, status, sequence)) = delivery(rcpt, kind, sequence) else {
        tracing::error!(event = %id, "an event cannot be understood and is not searched");
        return Ok(None);
    };
    Ok(Some(SearchEvent {
        account: AccountNo(row.try_get("account")?),
        message: MessageId::from_uuid(row.try_get("subject")?),
        rcpt,
        status,
        sequence,
    }))
}

fn delivery(rcpt: i16, kind: i16, sequence: i16) -> Option<(u16, DeliveryStatus, u16)> {
    Some((
        unsigned("recipient number", rcpt).ok()?,
        event_type(kind).ok()?.status()?,
        unsigned("event sequence", sequence).ok()?,
    ))
}
