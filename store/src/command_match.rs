//! Commands to everything that fits a filter. The queue has one index, by shard and time, so all of
//! it is walked, page by page: no statement is large, and none looks at a row twice.

use std::fmt;
use std::str::FromStr;

use mail::domain_name::DomainName;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::command::CommandKind;
use crate::database::Store;
use crate::decode::domain_texts;
use crate::error::{During, StoreError};
use crate::numbers::{AccountNo, RecipientDomainNo, ShardNo, StreamNo};
use crate::queue::Cursor;

/// Where an unfinished delivery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WaitingStatus {
    /// For a time that has not come.
    Scheduled,
    /// For its first attempt.
    Queued,
    /// For another attempt.
    Deferred,
}

impl WaitingStatus {
    fn code(self) -> i16 {
        match self {
            Self::Scheduled => 1,
            Self::Queued => 2,
            Self::Deferred => 3,
        }
    }
}

/// Which deliveries of an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandFilter {
    /// Whose.
    pub account: AccountNo,
    /// Of mail sent with test keys only.
    pub test_only: bool,
    /// Of mail from these domains of the account only; none: from all.
    pub sender_domains: Option<Vec<DomainName>>,
    /// Of this stream.
    pub stream: Option<StreamNo>,
    /// To this domain.
    pub domain: Option<RecipientDomainNo>,
    /// With this tag.
    pub tag: Option<String>,
    /// Waiting for this.
    pub status: Option<WaitingStatus>,
    /// Accepted at this time or later.
    pub after: Option<OffsetDateTime>,
    /// Accepted before this time.
    pub before: Option<OffsetDateTime>,
}

/// How far the queue was walked. Its text form goes to clients and comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalkPlace {
    /// In this shard.
    pub shard: ShardNo,
    /// After this row.
    pub cursor: Cursor,
}

/// A text that is no place of a walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no place of a walk through the queue")]
pub struct WalkPlaceError;

impl fmt::Display for WalkPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Cursor {
            next_at,
            message,
            rcpt,
        } = self.cursor;
        let micros = next_at.unix_timestamp_nanos() / 1_000;
        write!(f, "{}.{micros}.{}.{rcpt}", self.shard.0, message.simple())
    }
}

impl FromStr for WalkPlace {
    type Err = WalkPlaceError;

    fn from_str(text: &str) -> Result<Self, WalkPlaceError> {
        let mut parts = text.split('.');
        let mut part = || parts.next().ok_or(WalkPlaceError);
        let shard = ShardNo(number(part()?)?);
        let micros: i64 = number(part()?)?;
        let next_at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1_000);
        let message = Uuid::try_parse(part()?).map_err(|_| WalkPlaceError)?;
        let rcpt = number(part()?)?;
        let is_all = part().is_err();
        // No row is older, and PostgreSQL does not know every time that can be written.
        let is_time = |at: &OffsetDateTime| is_all && *at >= OffsetDateTime::UNIX_EPOCH;
        let next_at = next_at.ok().filter(is_time).ok_or(WalkPlaceError)?;
        let cursor = Cursor {
            next_at,
            message,
            rcpt,
        };
        Ok(Self { shard, cursor })
    }
}

fn number<T: FromStr>(text: &str) -> Result<T, WalkPlaceError> {
    text.parse().map_err(|_| WalkPlaceError)
}

/// What a page of the walk came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MatchedPage {
    /// The last row looked at; none when there is nothing more in the shard.
    pub last: Option<Cursor>,
    /// Commands noted: for what fitted, and was not commanded so already.
    pub matched: u64,
}

impl Store {
    /// Notes a command for each delivery that fits among the next `rows` rows of a shard.
    ///
    /// # Errors
    /// Of the database; `Invalid` for a kind that cannot be given to many.
    pub async fn note_matching(
        &self,
        kind: CommandKind,
        filter: &CommandFilter,
        from: WalkPlace,
        rows: i64,
        now: OffsetDateTime,
    ) -> Result<MatchedPage, StoreError> {
        if let CommandKind::Reschedule(_) = kind {
            let detail = "only single messages are rescheduled".to_owned();
            return Err(StoreError::Invalid {
                what: "command",
                detail,
            });
        }
        let sender_domains = filter.sender_domains.as_deref().map(domain_texts);
        let row: Option<(OffsetDateTime, Uuid, i16, i64, i64)> =
            sqlx::query_as(include_str!("../queries/command_match.sql"))
                .bind(from.shard.0)
                .bind(from.cursor.next_at)
                .bind(from.cursor.message)
                .bind(from.cursor.rcpt)
                .bind(rows)
                .bind(filter.account.0)
                .bind(filter.stream.map(|stream| stream.0))
                .bind(filter.domain.map(|domain| domain.0))
                .bind(filter.tag.as_deref())
                .bind(filter.test_only)
                .bind(filter.status.map(WaitingStatus::code))
                .bind(filter.after.map_or(Uuid::nil(), floor))
                .bind(filter.before.map_or(Uuid::max(), floor))
                .bind(now)
                .bind(kind.code())
                .bind(sender_domains)
                .fetch_optional(&self.command)
                .await
                .during("note commands for what fits a filter")?;
        let Some((next_at, message, rcpt, looked_at, matched)) = row else {
            return Ok(MatchedPage {
                last: None,
                matched: 0,
            });
        };
        let last = Cursor {
            next_at,
            message,
            rcpt,
        };
        Ok(MatchedPage {
            last: (looked_at == rows).then_some(last),
            matched: u64::try_from(matched).unwrap_or_default(),
        })
    }

    /// Open commands of bulk actions of an account, counted up to `most`.
    ///
    /// # Errors
    /// Of the database.
    pub async fn open_bulk_commands(
        &self,
        account: AccountNo,
        most: u64,
    ) -> Result<u64, StoreError> {
        let count: i64 = sqlx::query_scalar(include_str!("../queries/command_count.sql"))
            .bind(account.0)
            .bind(i64::try_from(most).unwrap_or(i64::MAX))
            .fetch_one(&self.command)
            .await
            .during("count the open commands of an account")?;
        Ok(u64::try_from(count).unwrap_or_default())
    }

    /// All shards there are.
    ///
    /// # Errors
    /// Of the database.
    pub async fn all_shards(&self) -> Result<Vec<ShardNo>, StoreError> {
        let numbers: Vec<i16> = sqlx::query_scalar("SELECT shard FROM shard_lease ORDER BY shard")
            .fetch_all(&self.command)
            .await
            .during("list the shards")?;
        Ok(numbers.into_iter().map(ShardNo).collect())
    }

    /// The number of a recipient domain that mail was sent to before.
    ///
    /// # Errors
    /// Of the database.
    pub async fn known_recipient_domain(
        &self,
        name: &DomainName,
    ) -> Result<Option<RecipientDomainNo>, StoreError> {
        let number: Option<i32> =
            sqlx::query_scalar("SELECT id FROM recipient_domain WHERE name = $1")
                .bind(name.as_str())
                .fetch_optional(&self.general)
                .await
                .during("look a recipient domain up")?;
        Ok(number.map(RecipientDomainNo))
    }
}

/// The smallest id of that time.
fn floor(at: OffsetDateTime) -> Uuid {
    let unix_ms = u128::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap_or_default();
    Uuid::from_u128(unix_ms.min((1 << 48) - 1) << 80)
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    #[test]
    fn a_place_survives_the_way_to_the_client_and_nothing_else_is_one() {
        let place = WalkPlace {
            shard: ShardNo(3),
            cursor: Cursor {
                next_at: datetime!(2026-11-22 09:00:00.123456 UTC),
                message: Uuid::from_u128(77),
                rcpt: 5,
            },
        };
        assert_eq!(place.to_string().parse(), Ok(place));
        let start = WalkPlace {
            cursor: Cursor::START,
            ..place
        };
        assert_eq!(start.to_string().parse(), Ok(start));
        for text in [
            "",
            "3",
            "3.1.x.0",
            "3.1.0.0",
            "a.1.0.0",
            &format!("{place}.1"),
        ] {
            assert_eq!(text.parse::<WalkPlace>(), Err(WalkPlaceError), "{text}");
        }
        for micros in [i64::MAX, -1, -377_705_116_800_000_000] {
            let far = format!("3.{micros}.{}.0", Uuid::nil().simple());
            assert_eq!(far.parse::<WalkPlace>(), Err(WalkPlaceError), "{micros}");
        }
    }
}
