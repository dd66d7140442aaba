//! Streams: kinds of mail of an account, each with its urgency and its policies.

use std::time::Duration;

use mail::ids::StreamId;
use mail::retry::StreamClass;
use sqlx::FromRow;
use uuid::Uuid;

use crate::cache::cached;
use crate::database::Store;
use crate::decode::{stream_class, stream_class_code};
use crate::error::{During, StoreError};
use crate::numbers::{AccountNo, StreamNo};

/// What happens to a delivery that may have arrived without our knowing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AmbiguousPolicy {
    /// Send again: a duplicate is better than a loss.
    Resend,
    /// Set aside until somebody decides or it expires: no duplicates at all.
    Hold,
}

impl AmbiguousPolicy {
    fn code(self) -> i16 {
        match self {
            Self::Resend => 0,
            Self::Hold => 1,
        }
    }

    fn from_code(code: i16) -> Result<Self, StoreError> {
        match code {
            0 => Ok(Self::Resend),
            1 => Ok(Self::Hold),
            _ => Err(StoreError::corrupt("ambiguous policy", code)),
        }
    }
}

/// A kind of mail of one account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stream {
    /// Inside.
    pub no: StreamNo,
    /// Outside.
    pub id: StreamId,
    /// Whose.
    pub account: AccountNo,
    /// Unique in the account.
    pub name: String,
    /// How urgent.
    pub class: StreamClass,
    /// What to do about ambiguous attempts.
    pub ambiguous: AmbiguousPolicy,
    /// How long retries go on, from the time a delivery is due.
    pub expires_after: Duration,
}

#[derive(FromRow)]
struct Row {
    id: i32,
    public_id: Uuid,
    account: i32,
    name: String,
    class: i16,
    ambiguous_policy: i16,
    expires_after_secs: i32,
}

impl TryFrom<Row> for Stream {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        let expires_after_secs = u64::try_from(row.expires_after_secs)
            .map_err(|error| StoreError::corrupt("stream expiry", error))?;
        Ok(Self {
            no: StreamNo(row.id),
            id: StreamId::from_uuid(row.public_id),
            account: AccountNo(row.account),
            name: row.name,
            class: stream_class(row.class)?,
            ambiguous: AmbiguousPolicy::from_code(row.ambiguous_policy)?,
            expires_after: Duration::from_secs(expires_after_secs),
        })
    }
}

impl Store {
    /// Makes a stream with the default policies: resend, five days.
    ///
    /// # Errors
    /// `Conflict` when the account has one of that name; of the database.
    pub async fn create_stream(
        &self,
        id: StreamId,
        account: AccountNo,
        name: &str,
        class: StreamClass,
    ) -> Result<Stream, StoreError> {
        let row: Row = sqlx::query_as(
            "INSERT INTO stream (public_id, account, name, class) VALUES ($1, $2, $3, $4)
             RETURNING id, public_id, account, name, class, ambiguous_policy, expires_after_secs",
        )
        .bind(id.uuid())
        .bind(account.0)
        .bind(name)
        .bind(stream_class_code(class))
        .fetch_one(&self.general)
        .await
        .unless_taken("create a stream", "stream name")?;
        self.cache
            .streams
            .invalidate(&(account, name.to_owned()))
            .await;
        row.try_into()
    }

    /// The stream of that name, at most 10 s old.
    ///
    /// # Errors
    /// Of the database.
    pub async fn stream(
        &self,
        account: AccountNo,
        name: &str,
    ) -> Result<Option<Stream>, StoreError> {
        let load = async {
            let row: Option<Row> = sqlx::query_as(
                "SELECT id, public_id, account, name, class, ambiguous_policy, expires_after_secs
                 FROM stream WHERE account = $1 AND name = $2",
            )
            .bind(account.0)
            .bind(name)
            .fetch_optional(&self.general)
            .await
            .during("find a stream by name")?;
            row.map(Stream::try_from).transpose()
        };
        cached(&self.cache.streams, (account, name.to_owned()), load).await
    }

    /// The stream of that number, at most 10 s old.
    ///
    /// # Errors
    /// Of the database.
    pub async fn stream_by_no(&self, no: StreamNo) -> Result<Option<Stream>, StoreError> {
        let load = async {
            let row: Option<Row> = sqlx::query_as(
                "SELECT id, public_id, account, name, class, ambiguous_policy, expires_after_secs
                 FROM stream WHERE id = $1",
            )
            .bind(no.0)
            .fetch_optional(&self.general)
            .await
            .during("find a stream by number")?;
            row.map(Stream::try_from).transpose()
        };
        cached(&self.cache.streams_by_no, no, load).await
    }

    /// Changes what happens to ambiguous deliveries of the stream from now on.
    ///
    /// # Errors
    /// Of the database.
    pub async fn set_ambiguous_policy(
        &self,
        no: StreamNo,
        policy: AmbiguousPolicy,
    ) -> Result<(), StoreError> {
        let found: Option<(i32, String)> = sqlx::query_as(
            "UPDATE stream SET ambiguous_policy = $2 WHERE id = $1 RETURNING account, name",
        )
        .bind(no.0)
        .bind(policy.code())
        .fetch_optional(&self.general)
        .await
        .during("change a stream's policy")?;
        if let Some((account, name)) = found {
            self.cache
                .streams
                .invalidate(&(AccountNo(account), name))
                .await;
            self.cache.streams_by_no.invalidate(&no).await;
        }
        Ok(())
    }
}
