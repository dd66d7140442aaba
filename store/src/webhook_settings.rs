//! Webhook endpoints as their owners see, change and delete them. Secrets are not here.

use mail::event::EventType;
use mail::ids::WebhookEndpointId;
use sqlx::FromRow;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::database::Store;
use crate::error::{During, StoreError};
use crate::numbers::{AccountNo, EndpointNo};
use crate::webhook::{codes, types_from};

/// Why an endpoint is called no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DisabledReason {
    /// Its owner wished it.
    Owner,
    /// It failed for days, without one good answer.
    Failing,
    /// It answered 410.
    Gone,
}

impl DisabledReason {
    pub(crate) fn code(self) -> i16 {
        match self {
            Self::Owner => 1,
            Self::Failing => 2,
            Self::Gone => 3,
        }
    }

    fn from_code(code: i16) -> Result<Self, StoreError> {
        match code {
            1 => Ok(Self::Owner),
            2 => Ok(Self::Failing),
            3 => Ok(Self::Gone),
            _ => Err(StoreError::corrupt("reason of a disabled webhook", code)),
        }
    }

    /// The word used in the API and in events.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Failing => "failing",
            Self::Gone => "gone",
        }
    }
}

/// An endpoint as its account sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointSummary {
    /// Inside.
    pub no: EndpointNo,
    /// Outside.
    pub id: WebhookEndpointId,
    /// Where to call.
    pub url: String,
    /// What to tell.
    pub types: Vec<EventType>,
    /// False: called no more.
    pub enabled: bool,
    /// Made at.
    pub created_at: OffsetDateTime,
    /// The first failed call since the last good one.
    pub failing_since: Option<OffsetDateTime>,
    /// Since when and why it is called no more, where that is known.
    pub disabled: Option<(OffsetDateTime, DisabledReason)>,
}

/// What to change of an endpoint; none stays as it is.
#[derive(Debug, Clone, Copy, Default)]
pub struct EndpointChange<'a> {
    /// Where to call.
    pub url: Option<&'a str>,
    /// What to tell.
    pub types: Option<&'a [EventType]>,
    /// Whether it is called. True also forgets its failures.
    pub enabled: Option<bool>,
}

#[derive(FromRow)]
struct SummaryColumns {
    id: i32,
    public_id: Uuid,
    url: String,
    types: Vec<i16>,
    enabled: bool,
    created_at: OffsetDateTime,
    failing_since: Option<OffsetDateTime>,
    disabled_at: Option<OffsetDateTime>,
    disabled_reason: Option<i16>,
}

impl TryFrom<SummaryColumns> for EndpointSummary {
    type Error = StoreError;

    fn try_from(row: SummaryColumns) -> Result<Self, StoreError> {
        let reason = row.disabled_reason.map(DisabledReason::from_code);
        Ok(Self {
            no: EndpointNo(row.id),
            id: WebhookEndpointId::from_uuid(row.public_id),
            url: row.url,
            types: types_from(row.types)?,
            enabled: row.enabled,
            created_at: row.created_at,
            failing_since: row.failing_since,
            disabled: row.disabled_at.zip(reason.transpose()?),
        })
    }
}

impl Store {
    /// The account's endpoints, oldest first.
    ///
    /// # Errors
    /// Of the database.
    pub async fn endpoints(&self, account: AccountNo) -> Result<Vec<EndpointSummary>, StoreError> {
        let rows: Vec<SummaryColumns> = sqlx::query_as(
            "SELECT id, public_id, url, types, enabled, created_at, failing_since, disabled_at,
                    disabled_reason
             FROM webhook_endpoint WHERE account = $1 ORDER BY id",
        )
        .bind(account.0)
        .fetch_all(&self.general)
        .await
        .during("list webhook endpoints")?;
        rows.into_iter().map(TryInto::try_into).collect()
    }

    /// Changes an endpoint of the account. None when there is no such one.
    ///
    /// # Errors
    /// Of the database.
    pub async fn change_endpoint(
        &self,
        account: AccountNo,
        id: WebhookEndpointId,
        change: EndpointChange<'_>,
        at: OffsetDateTime,
    ) -> Result<Option<EndpointSummary>, StoreError> {
        let types = change.types.map(codes);
        // Failures count against the place that was called.
        let row: Option<SummaryColumns> = sqlx::query_as(
            "UPDATE webhook_endpoint SET
               url = coalesce($3, url), types = coalesce($4, types), enabled = coalesce($5, enabled),
               failing_since = CASE WHEN $5 OR $3 <> url THEN NULL ELSE failing_since END,
               disabled_at = CASE WHEN $5 THEN NULL WHEN NOT $5 AND enabled THEN $6
                                  ELSE disabled_at END,
               disabled_reason = CASE WHEN $5 THEN NULL WHEN NOT $5 AND enabled THEN $7
                                      ELSE disabled_reason END
             WHERE account = $1 AND public_id = $2
             RETURNING id, public_id, url, types, enabled, created_at, failing_since, disabled_at,
                       disabled_reason",
        )
        .bind(account.0)
        .bind(id.uuid())
        .bind(change.url)
        .bind(types)
        .bind(change.enabled)
        .bind(at)
        .bind(DisabledReason::Owner.code())
        .fetch_optional(&self.general)
        .await
        .during("change a webhook endpoint")?;
        let changed: Option<EndpointSummary> = row.map(TryInto::try_into).transpose()?;
        if let Some(endpoint) = &changed {
            self.cache.endpoints.invalidate(&endpoint.no).await;
        }
        Ok(changed)
    }

    /// Removes an endpoint of the account, all its pending calls and its replays. False when there is none.
    ///
    /// # Errors
    /// Of the database.
    pub async fn delete_endpoint(
        &self,
        account: AccountNo,
        id: WebhookEndpointId,
    ) -> Result<bool, StoreError> {
        let no: Option<i32> = sqlx::query_scalar(
            "WITH gone AS (
               DELETE FROM webhook_endpoint WHERE account = $1 AND public_id = $2 RETURNING id),
             calls AS (
               DELETE FROM webhook_pending WHERE endpoint = (SELECT id FROM gone)),
             replays AS (
               DELETE FROM webhook_replay WHERE endpoint = (SELECT id FROM gone))
             SELECT id FROM gone",
        )
        .bind(account.0)
        .bind(id.uuid())
        .fetch_optional(&self.general)
        .await
        .during("delete a webhook endpoint")?;
        if let Some(no) = no {
            self.cache.endpoints.invalidate(&EndpointNo(no)).await;
        }
        Ok(no.is_some())
    }
}
