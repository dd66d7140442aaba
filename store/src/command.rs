//! Commands to queued mail, as those who want them see it: noted here, carried out by the owner of
//! the shard (`command_run.rs`), answered by it. What no owner can be sending is cancelled directly.

use mail::event::EventType;
use mail::ids::{MessageId, uuid_v7};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::database::Store;
use crate::decode::{signed, unsigned};
use crate::error::{During, StoreError};
use crate::numbers::{AccountNo, ShardNo, micros};
use crate::queue::DeliveryKey;

/// Rows of a span of time that are looked at for one message.
const SPAN_ROWS: i64 = 5_000;

/// What is wanted of a queued delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CommandKind {
    /// It ends as cancelled.
    Cancel,
    /// It is due at once; if it was held, it no longer is.
    RetryNow,
    /// It ends as expired.
    Expire,
    /// It is due at another time, if it was not attempted yet; its life is counted from then on.
    Reschedule(OffsetDateTime),
}

impl CommandKind {
    pub(crate) fn code(self) -> i16 {
        match self {
            Self::Cancel => 0,
            Self::RetryNow => 1,
            Self::Expire => 2,
            Self::Reschedule(_) => 3,
        }
    }

    pub(crate) fn from_columns(
        code: i16,
        due_at: Option<OffsetDateTime>,
    ) -> Result<Self, StoreError> {
        match (code, due_at) {
            (0, _) => Ok(Self::Cancel),
            (1, _) => Ok(Self::RetryNow),
            (2, _) => Ok(Self::Expire),
            (3, Some(due_at)) => Ok(Self::Reschedule(due_at)),
            _ => Err(StoreError::corrupt("command", code)),
        }
    }

    fn due_at(self) -> Option<OffsetDateTime> {
        match self {
            Self::Reschedule(due_at) => Some(micros(due_at)),
            _ => None,
        }
    }
}

/// A command about one delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewCommand {
    /// By which its answer is asked for.
    pub id: Uuid,
    /// Where the delivery is queued.
    pub shard: ShardNo,
    /// Which delivery.
    pub key: DeliveryKey,
    /// What is wanted.
    pub kind: CommandKind,
    /// When its row was due when it was seen last: saves the owner looking for it.
    pub seen_at: Option<OffsetDateTime>,
    /// One of many of an action: comes after those given one by one, and is too late for a row that
    /// is not where it was seen.
    pub bulk: bool,
}

/// What a command came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommandResult {
    /// It was carried out.
    Done,
    /// The delivery was being sent, or had ended.
    TooLate,
}

impl CommandResult {
    pub(crate) fn from_code(code: i16) -> Result<Self, StoreError> {
        match code {
            0 => Ok(Self::Done),
            1 => Ok(Self::TooLate),
            _ => Err(StoreError::corrupt("result of a command", code)),
        }
    }
}

/// Where the deliveries of a message are queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessagePlace {
    /// The shard.
    pub shard: ShardNo,
    /// When its content is due by the content's id, in milliseconds since 1970: the time the
    /// message was scheduled for, unless it shares its content.
    pub content_due_ms: u64,
}

/// A delivery that is queued, and until when it waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueuedDelivery {
    /// Which.
    pub key: DeliveryKey,
    /// Not before this time.
    pub next_at: OffsetDateTime,
}

impl Store {
    /// Where a message of this account is queued, or was.
    ///
    /// # Errors
    /// Of the database.
    pub async fn message_place(
        &self,
        account: AccountNo,
        id: MessageId,
    ) -> Result<Option<MessagePlace>, StoreError> {
        let row: Option<(i16, Uuid)> =
            sqlx::query_as("SELECT shard, content_id FROM message WHERE id = $1 AND account = $2")
                .bind(id.uuid())
                .bind(account.0)
                .fetch_optional(&self.command)
                .await
                .during("find a message")?;
        Ok(row.map(|(shard, content)| MessagePlace {
            shard: ShardNo(shard),
            content_due_ms: u64::try_from(content.as_u128() >> 80).unwrap_or_default(),
        }))
    }

    /// The deliveries of a message that are queued for one of these times, or in one of these spans
    /// (both ends belong to it). However many others are queued for the same time: a time costs one
    /// look-up, and of a span no more than its last 5,000 rows are looked at. What is not found
    /// there may be queued all the same.
    ///
    /// # Errors
    /// Of the database.
    pub async fn queued_in(
        &self,
        shard: ShardNo,
        message: MessageId,
        times: &[OffsetDateTime],
        spans: &[(OffsetDateTime, OffsetDateTime)],
    ) -> Result<Vec<QueuedDelivery>, StoreError> {
        let rows: Vec<(i16, OffsetDateTime)> =
            sqlx::query_as(include_str!("../queries/queued_in.sql"))
                .bind(shard.0)
                .bind(message.uuid())
                .bind(times)
                .bind(
                    spans
                        .iter()
                        .map(|(first, _)| *first)
                        .collect::<Vec<OffsetDateTime>>(),
                )
                .bind(
                    spans
                        .iter()
                        .map(|(_, last)| *last)
                        .collect::<Vec<OffsetDateTime>>(),
                )
                .bind(SPAN_ROWS)
                .fetch_all(&self.command)
                .await
                .during("find queued deliveries")?;
        rows.into_iter()
            .map(|(rcpt, next_at)| {
                let rcpt = unsigned("recipient number", rcpt)?;
                let key = DeliveryKey { message, rcpt };
                Ok(QueuedDelivery { key, next_at })
            })
            .collect()
    }

    /// Cancels those of these deliveries that are due after `later_than`, without asking their
    /// owner; returns them. `later_than` must be so far ahead that no owner's clock is there yet:
    /// with `check_clock` nothing is cancelled if `now` is 20 s away from the server's time.
    ///
    /// # Errors
    /// Of the database; then nothing was cancelled, or nobody knows.
    pub async fn cancel_direct(
        &self,
        shard: ShardNo,
        deliveries: &[QueuedDelivery],
        later_than: OffsetDateTime,
        now: OffsetDateTime,
        check_clock: bool,
    ) -> Result<Vec<DeliveryKey>, StoreError> {
        let keys = || deliveries.iter().map(|delivery| delivery.key);
        let gone: Vec<(Uuid, i16)> = sqlx::query_as(include_str!("../queries/cancel_direct.sql"))
            .bind(vec![shard.0; deliveries.len()])
            .bind(
                deliveries
                    .iter()
                    .map(|d| d.next_at)
                    .collect::<Vec<OffsetDateTime>>(),
            )
            .bind(keys().map(|key| key.message.uuid()).collect::<Vec<Uuid>>())
            .bind(keys().map(|key| signed(key.rcpt)).collect::<Vec<i16>>())
            .bind(keys().map(|_| event_id(now)).collect::<Vec<Uuid>>())
            .bind(EventType::EmailCancelled.code())
            .bind(later_than)
            .bind(check_clock.then_some(now))
            .fetch_all(&self.command)
            .await
            .during("cancel deliveries")?;
        gone.into_iter()
            .map(|(message, rcpt)| {
                Ok(DeliveryKey {
                    message: MessageId::from_uuid(message),
                    rcpt: unsigned("recipient number", rcpt)?,
                })
            })
            .collect()
    }

    /// Notes commands for the owners of their shards, in one statement. Repeating it with the same
    /// ids changes nothing.
    ///
    /// # Errors
    /// Of the database.
    pub async fn note_commands(
        &self,
        commands: &[NewCommand],
        at: OffsetDateTime,
    ) -> Result<(), StoreError> {
        let of = |take: fn(&NewCommand) -> i16| commands.iter().map(take).collect::<Vec<i16>>();
        sqlx::query(
            "INSERT INTO queue_command (id, shard, message_id, rcpt, kind, due_at, seen_at, bulk,
                                        noted_at)
             SELECT u.*, $9::timestamptz
             FROM unnest($1::uuid[], $2::int2[], $3::uuid[], $4::int2[], $5::int2[],
                         $6::timestamptz[], $7::timestamptz[], $8::boolean[]) AS u
             ON CONFLICT DO NOTHING",
        )
        .bind(
            commands
                .iter()
                .map(|command| command.id)
                .collect::<Vec<Uuid>>(),
        )
        .bind(of(|command| command.shard.0))
        .bind(
            commands
                .iter()
                .map(|c| c.key.message.uuid())
                .collect::<Vec<Uuid>>(),
        )
        .bind(of(|command| signed(command.key.rcpt)))
        .bind(of(|command| command.kind.code()))
        .bind(
            commands
                .iter()
                .map(|c| c.kind.due_at())
                .collect::<Vec<Option<OffsetDateTime>>>(),
        )
        .bind(
            commands
                .iter()
                .map(|c| c.seen_at)
                .collect::<Vec<Option<OffsetDateTime>>>(),
        )
        .bind(commands.iter().map(|c| c.bulk).collect::<Vec<bool>>())
        .bind(at)
        .execute(&self.command)
        .await
        .during("note commands")?;
        Ok(())
    }

    /// The answers to these commands, as far as there are any.
    ///
    /// # Errors
    /// Of the database.
    pub async fn command_results(
        &self,
        ids: &[Uuid],
    ) -> Result<Vec<(Uuid, CommandResult)>, StoreError> {
        let rows: Vec<(Uuid, i16)> = sqlx::query_as(
            "SELECT c.id, c.result FROM unnest($1::uuid[]) AS u (id)
             CROSS JOIN LATERAL (
               SELECT c.id, c.result FROM queue_command c WHERE c.id = u.id OFFSET 0) c
             WHERE c.result IS NOT NULL",
        )
        .bind(ids)
        .fetch_all(&self.command)
        .await
        .during("read the answers to commands")?;
        rows.into_iter()
            .map(|(id, code)| Ok((id, CommandResult::from_code(code)?)))
            .collect()
    }

    /// Forgets answered commands noted before a time, some thousands at a time; returns how many.
    ///
    /// # Errors
    /// Of the database; what was forgotten stays so.
    pub async fn age_out_commands(&self, before: OffsetDateTime) -> Result<u64, StoreError> {
        const CHUNK: u32 = 10_000;
        let mut gone = 0;
        loop {
            let done = sqlx::query(
                "DELETE FROM queue_command WHERE ctid = ANY (ARRAY(
                   SELECT ctid FROM queue_command
                   WHERE result IS NOT NULL AND noted_at < $1 LIMIT $2))",
            )
            .bind(before)
            .bind(i64::from(CHUNK))
            .execute(&self.general)
            .await
            .during("age out commands")?;
            gone += done.rows_affected();
            if done.rows_affected() < u64::from(CHUNK) {
                return Ok(gone);
            }
        }
    }
}

pub(crate) fn event_id(now: OffsetDateTime) -> Uuid {
    let unix_ms = u64::try_from(now.unix_timestamp_nanos() / 1_000_000).unwrap_or_default();
    uuid_v7(unix_ms, rand::random())
}
