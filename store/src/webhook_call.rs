//! The log of webhook calls: what every call was about and what came of it, for its account to
//! see, for some days.

use mail::event::EventType;
use mail::ids::{EventId, WebhookCallId};
use mail::text::DbText;
use sqlx::{AssertSqlSafe, Connection, FromRow, PgConnection};
use time::macros::format_description;
use time::{Date, OffsetDateTime};
use uuid::Uuid;

use crate::connections::within;
use crate::database::Store;
use crate::decode::{event_type, signed, unsigned};
use crate::error::{During, StoreError};
use crate::numbers::EndpointNo;

/// What came of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallResult {
    /// 2xx.
    Taken,
    /// 410.
    Gone,
    /// Another status.
    Status,
    /// No answer in time.
    Timeout,
    /// The guard lets nobody call there.
    Refused,
    /// No connection, or it broke.
    Connection,
}

impl CallResult {
    fn code(self) -> i16 {
        match self {
            Self::Taken => 0,
            Self::Gone => 1,
            Self::Status => 2,
            Self::Timeout => 3,
            Self::Refused => 4,
            Self::Connection => 5,
        }
    }

    fn from_code(code: i16) -> Result<Self, StoreError> {
        match code {
            0 => Ok(Self::Taken),
            1 => Ok(Self::Gone),
            2 => Ok(Self::Status),
            3 => Ok(Self::Timeout),
            4 => Ok(Self::Refused),
            5 => Ok(Self::Connection),
            _ => Err(StoreError::corrupt("result of a webhook call", code)),
        }
    }

    /// The word used in the API and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::Gone => "gone",
            Self::Status => "status",
            Self::Timeout => "timeout",
            Self::Refused => "refused",
            Self::Connection => "connection",
        }
    }
}

/// One call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallRecord {
    /// Carries the time at which the call began.
    pub id: WebhookCallId,
    /// Who was called.
    pub endpoint: EndpointNo,
    /// About which event.
    pub event: EventId,
    /// What the event is about.
    pub subject: Uuid,
    /// What happened.
    pub kind: EventType,
    /// 1 for the first call about the event, or of a replay of it.
    pub attempt: u16,
    /// What came of it.
    pub result: CallResult,
    /// The status answered.
    pub status: Option<u16>,
    /// The beginning of the answer's body, or why there was none.
    pub response: DbText,
    /// From the beginning of the call to the end of the answer.
    pub duration_ms: i32,
    /// When the call is made again; none: never.
    pub next_at: Option<OffsetDateTime>,
    /// The call was made because somebody asked for the event again.
    pub is_replay: bool,
}

/// Which calls to list.
#[derive(Debug, Clone, Copy, Default)]
pub struct CallFilter {
    /// Those that were taken, or those that were not.
    pub taken: Option<bool>,
    /// Those about this event.
    pub event: Option<EventId>,
}

#[derive(FromRow)]
struct Columns {
    id: Uuid,
    event_id: Uuid,
    subject: Uuid,
    next_at: Option<OffsetDateTime>,
    endpoint: i32,
    duration_ms: i32,
    r#type: i16,
    attempt: i16,
    result: i16,
    status: Option<i16>,
    is_replay: bool,
    response: String,
}

impl TryFrom<Columns> for CallRecord {
    type Error = StoreError;

    fn try_from(row: Columns) -> Result<Self, StoreError> {
        Ok(Self {
            id: WebhookCallId::from_uuid(row.id),
            endpoint: EndpointNo(row.endpoint),
            event: EventId::from_uuid(row.event_id),
            subject: row.subject,
            kind: event_type(row.r#type)?,
            attempt: unsigned("webhook attempt", row.attempt)?,
            result: CallResult::from_code(row.result)?,
            status: row
                .status
                .map(|status| unsigned("HTTP status", status))
                .transpose()?,
            response: DbText::parse(&row.response, usize::MAX)
                .map_err(|error| StoreError::corrupt("webhook response", error))?,
            duration_ms: row.duration_ms,
            next_at: row.next_at,
            is_replay: row.is_replay,
        })
    }
}

impl Store {
    /// Adds calls to the log. A call that is in it already stays as it is.
    ///
    /// # Errors
    /// Of the database.
    pub async fn log_calls(&self, calls: &[CallRecord]) -> Result<(), StoreError> {
        fn column<T>(calls: &[CallRecord], of: impl Fn(&CallRecord) -> T) -> Vec<T> {
            calls.iter().map(of).collect()
        }
        sqlx::query(
            "INSERT INTO webhook_call (id, event_id, subject, next_at, endpoint, duration_ms, type,
                                       attempt, result, status, is_replay, response)
             SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::timestamptz[], $5::int4[],
                                  $6::int4[], $7::int2[], $8::int2[], $9::int2[], $10::int2[],
                                  $11::bool[], $12::text[])
             ON CONFLICT DO NOTHING",
        )
        .bind(column(calls, |call| call.id.uuid()))
        .bind(column(calls, |call| call.event.uuid()))
        .bind(column(calls, |call| call.subject))
        .bind(column(calls, |call| call.next_at))
        .bind(column(calls, |call| call.endpoint.0))
        .bind(column(calls, |call| call.duration_ms))
        .bind(column(calls, |call| call.kind.code()))
        .bind(column(calls, |call| signed(call.attempt)))
        .bind(column(calls, |call| call.result.code()))
        .bind(column(calls, |call| call.status.map(signed)))
        .bind(column(calls, |call| call.is_replay))
        .bind(column(calls, |call| call.response.as_str().to_owned()))
        .execute(&self.general)
        .await
        .during("log webhook calls")?;
        Ok(())
    }

    /// The calls of an endpoint from `lowest` on, the newest first, below `before`.
    ///
    /// # Errors
    /// Of the database.
    pub async fn calls(
        &self,
        endpoint: EndpointNo,
        filter: CallFilter,
        lowest: WebhookCallId,
        before: Option<WebhookCallId>,
        limit: i64,
    ) -> Result<Vec<CallRecord>, StoreError> {
        const COLUMNS: &str =
            "SELECT id, event_id, subject, next_at, endpoint, duration_ms, type, attempt,
             result, status, is_replay, response
             FROM webhook_call WHERE endpoint = $1 AND id >= $2 AND id < $3";
        // A statement each, so that each has the plan of its own index.
        let condition = match (filter.event.is_some(), filter.taken) {
            (true, None) => "AND event_id = $5",
            (true, Some(true)) => "AND event_id = $5 AND result = 0",
            (true, Some(false)) => "AND event_id = $5 AND result <> 0",
            (false, None) => "AND $5::uuid IS NULL",
            (false, Some(true)) => "AND $5::uuid IS NULL AND result = 0",
            (false, Some(false)) => "AND $5::uuid IS NULL AND result <> 0",
        };
        let statement = format!("{COLUMNS} {condition} ORDER BY id DESC LIMIT $4");
        let rows: Vec<Columns> = sqlx::query_as(AssertSqlSafe(statement))
            .bind(endpoint.0)
            .bind(lowest.uuid())
            .bind(before.map_or(Uuid::max(), |before| before.uuid()))
            .bind(limit)
            .bind(filter.event.map(|event| event.uuid()))
            .fetch_all(&self.general)
            .await
            .during("list webhook calls")?;
        rows.into_iter().map(TryInto::try_into).collect()
    }

    /// Drops the day partitions of the log before `day`. Returns their number.
    ///
    /// # Errors
    /// Of the database; also when one is read for long, which the next round tries again.
    pub async fn drop_calls_before(&self, day: Date) -> Result<usize, StoreError> {
        let operation = "drop old webhook calls";
        let day = day
            .format(format_description!("[year][month][day]"))
            .map_err(|error| StoreError::Invalid {
                what: "day",
                detail: error.to_string(),
            })?;
        let names: Vec<String> = sqlx::query_scalar(
            "SELECT c.relname::text FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
             WHERE i.inhparent = 'webhook_call'::regclass
               AND c.relname ~ '^webhook_call_[0-9]{8}$' AND c.relname < 'webhook_call_' || $1
             ORDER BY c.relname",
        )
        .bind(day)
        .fetch_all(&self.general)
        .await
        .during(operation)?;
        for name in &names {
            let mut checkout = self.general.checkout().await.during(operation)?;
            let dropped = within(drop_table(checkout.raw(), name)).await;
            checkout.give_back(&dropped);
            dropped.during(operation)?;
        }
        Ok(names.len())
    }
}

/// `name` comes from the catalogue. Those who write wait behind us: hence the short `lock_timeout`.
async fn drop_table(connection: &mut PgConnection, name: &str) -> Result<(), sqlx::Error> {
    let mut transaction = connection.begin().await?;
    sqlx::query("SET LOCAL lock_timeout = '500ms'")
        .execute(&mut *transaction)
        .await?;
    let statement = AssertSqlSafe(format!("DROP TABLE IF EXISTS {name}"));
    sqlx::query(statement).execute(&mut *transaction).await?;
    transaction.commit().await
}
