//! The event log as webhook dispatchers read it: complete with any number of writers, no clock
//! assumed, because only transactions below the oldest running one are read.

use mail::ids::EventId;
use sqlx::postgres::PgRow;
use sqlx::{FromRow, Row};
use uuid::Uuid;

use crate::database::Store;
use crate::error::{During, StoreError};
use crate::event::{EventColumns, StoredEvent};
use crate::numbers::{AccountNo, EndpointNo};

/// A place in the log: what comes after it has not been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogCursor {
    /// The transaction.
    pub xid: u64,
    /// The event in it; nil is before all of them.
    pub id: Uuid,
}

impl LogCursor {
    /// Before every event.
    pub const START: Self = Self {
        xid: 0,
        id: Uuid::nil(),
    };

    /// Before every event of this transaction and after all before it: where a reader stands who
    /// has seen everything below a page's horizon.
    pub const fn at_horizon(xid: u64) -> Self {
        Self {
            xid,
            id: Uuid::nil(),
        }
    }

    pub(crate) fn from_columns(xid: &str, id: Uuid) -> Result<Self, StoreError> {
        Ok(Self {
            xid: parse_xid(xid)?,
            id,
        })
    }
}

fn parse_xid(text: &str) -> Result<u64, StoreError> {
    text.parse()
        .map_err(|error| StoreError::corrupt("transaction id", error))
}

/// What an event says about its message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogMessage {
    /// The From field as given.
    pub sender: String,
    /// Of this delivery.
    pub recipient: String,
    /// Decoded.
    pub subject: String,
    /// The Message-ID field.
    pub rfc_message_id: String,
    /// As given.
    pub tags: Vec<String>,
    /// JSON, as given.
    pub metadata: Option<String>,
    /// Name of the stream.
    pub stream: Option<String>,
}

/// An event and whom to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRow {
    /// Where it stands in the log.
    pub cursor: LogCursor,
    /// Enabled endpoints that asked for its type and existed before it.
    pub endpoints: Vec<EndpointNo>,
    /// Whose.
    pub account: AccountNo,
    /// The message, or what else the event is about.
    pub subject: Uuid,
    /// What happened.
    pub event: StoredEvent,
    /// None for events about something else than mail.
    pub message: Option<LogMessage>,
}

/// A piece of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogPage {
    /// Transactions from this one on may still be running and were not looked at.
    pub horizon: u64,
    /// In the order of the log. Rows that cannot be understood are logged and left out.
    pub rows: Vec<LogRow>,
    /// Where the last row found stands, left out or not; none without any.
    pub last: Option<LogCursor>,
    /// Everything below the horizon was seen.
    pub complete: bool,
}

impl Store {
    /// The log of these dispatchers after a cursor. Events older than `lowest` are not looked for
    /// (that leaves the partitions of earlier days out).
    ///
    /// # Errors
    /// Of the database.
    pub async fn read_log(
        &self,
        numbers: &[i16],
        after: LogCursor,
        lowest: Uuid,
        limit: i64,
    ) -> Result<LogPage, StoreError> {
        let operation = "read the event log";
        let found: Vec<PgRow> = sqlx::query(include_str!("../queries/events_read.sql"))
            .bind(numbers)
            .bind(after.xid.to_string())
            .bind(after.id)
            .bind(lowest)
            .bind(limit)
            .fetch_all(&self.general)
            .await
            .during(operation)?;
        let first = found
            .first()
            .ok_or_else(|| StoreError::corrupt("horizon", "no row"))?;
        let horizon = parse_xid(first.try_get("horizon").during(operation)?)?;
        let (mut rows, mut last, mut events) = (Vec::with_capacity(found.len()), None, 0_i64);
        for row in &found {
            // The horizon comes alone when there is no event.
            if let Some(id) = row.try_get("id").during(operation)? {
                let xid = row.try_get("xid").during(operation)?;
                last = Some(LogCursor::from_columns(xid, id)?);
                rows.extend(log_row(row)?);
                events += 1;
            }
        }
        Ok(LogPage {
            horizon,
            rows,
            last,
            complete: events < limit,
        })
    }

    /// Events by id and subject, as [`Store::read_log`] gives them, to tell them again. Those
    /// whose partition is gone, or that cannot be understood, are left out.
    ///
    /// # Errors
    /// Of the database.
    pub async fn log_rows(&self, events: &[(EventId, Uuid)]) -> Result<Vec<LogRow>, StoreError> {
        let found: Vec<PgRow> = sqlx::query(
            "SELECT e.xid::text AS xid, w.endpoints, e.id, e.subject, e.next_at, e.account,
                    (SELECT coalesce(o.address, o.ehlo)
                     FROM source o WHERE o.id = e.source) AS source,
                    e.duration_ms, e.type, e.rcpt, e.sequence, e.attempt, e.flags,
                    e.class, e.code, e.enhanced, e.mx, e.tls, e.reply, m.sender, m.rfc_message_id,
                    m.subject AS message_subject, m.recipients[e.rcpt + 1] AS recipient, m.tags,
                    m.metadata, s.name AS stream
             FROM unnest($1::uuid[], $2::uuid[]) AS u (id, subject)
             CROSS JOIN LATERAL (
               SELECT * FROM event e WHERE e.id = u.id AND e.subject = u.subject OFFSET 0) e
             CROSS JOIN LATERAL (
               SELECT coalesce(array_agg(w.id), '{}') AS endpoints FROM webhook_endpoint w
               WHERE w.account = e.account AND w.enabled AND e.type = ANY (w.types)
                 AND w.created_xid < e.xid) w
             LEFT JOIN LATERAL (SELECT * FROM message m WHERE m.id = e.subject OFFSET 0) m ON true
             LEFT JOIN stream s ON s.id = m.stream",
        )
        .bind(
            events
                .iter()
                .map(|(id, _)| id.uuid())
                .collect::<Vec<Uuid>>(),
        )
        .bind(
            events
                .iter()
                .map(|(_, subject)| *subject)
                .collect::<Vec<Uuid>>(),
        )
        .fetch_all(&self.general)
        .await
        .during("read events by id")?;
        found
            .iter()
            .map(log_row)
            .filter_map(Result::transpose)
            .collect()
    }
}

/// The row, unless a value in it cannot be understood, as one that a newer version wrote: the log
/// is everybody's, and goes on without it.
fn log_row(row: &PgRow) -> Result<Option<LogRow>, StoreError> {
    let operation = "read a row of the event log";
    let read = read_log_row(row).during(operation)?;
    if let Err(error) = &read {
        let event: Uuid = row.try_get("id").during(operation)?;
        tracing::error!(%error, %event, "no webhook is told of an event");
    }
    Ok(read.ok())
}

fn read_log_row(row: &PgRow) -> Result<Result<LogRow, StoreError>, sqlx::Error> {
    let (xid, id, account): (&str, Uuid, i32) = (
        row.try_get("xid")?,
        row.try_get("id")?,
        row.try_get("account")?,
    );
    let endpoints: Vec<i32> = row.try_get("endpoints")?;
    let subject = row.try_get("subject")?;
    let message = read_message(row)?;
    let columns = EventColumns::from_row(row)?;
    Ok(LogCursor::from_columns(xid, id).and_then(|cursor| {
        Ok(LogRow {
            cursor,
            endpoints: endpoints.into_iter().map(EndpointNo).collect(),
            account: AccountNo(account),
            subject,
            event: columns.try_into()?,
            message,
        })
    }))
}

fn read_message(row: &PgRow) -> Result<Option<LogMessage>, sqlx::Error> {
    let Some(sender) = row.try_get("sender")? else {
        return Ok(None);
    };
    Ok(Some(LogMessage {
        sender,
        recipient: row
            .try_get::<Option<String>, _>("recipient")?
            .unwrap_or_default(),
        subject: row.try_get("message_subject")?,
        rfc_message_id: row.try_get("rfc_message_id")?,
        tags: row
            .try_get::<Option<Vec<String>>, _>("tags")?
            .unwrap_or_default(),
        metadata: row.try_get("metadata")?,
        stream: row.try_get("stream")?,
    }))
}
