//! Webhook endpoints: where events are told, and with which secret.

use mail::event::EventType;
use mail::ids::WebhookEndpointId;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::cache::cached;
use crate::database::Store;
use crate::decode::event_type;
use crate::error::{During, StoreError};
use crate::numbers::{AccountNo, EndpointNo};
use crate::seal::Sealer;

/// An endpoint with its secret, for those who call it.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Inside.
    pub no: EndpointNo,
    /// Outside.
    pub id: WebhookEndpointId,
    /// Whose.
    pub account: AccountNo,
    /// Where to call.
    pub url: String,
    /// What to tell.
    pub types: Vec<EventType>,
    /// Signs the calls.
    pub secret: Vec<u8>,
    /// False: called no more.
    pub enabled: bool,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint")
            .field("id", &self.id)
            .finish_non_exhaustive()
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
}

/// Binds a sealed secret to its endpoint.
fn place(id: WebhookEndpointId) -> String {
    format!("webhook_endpoint/{}", id.uuid())
}

fn types_from(codes: Vec<i16>) -> Result<Vec<EventType>, StoreError> {
    codes.into_iter().map(event_type).collect()
}

impl Store {
    /// Makes an endpoint; it is told what is committed from now on.
    ///
    /// # Errors
    /// `Conflict` when the id is taken; `Invalid` when the secret cannot be sealed; of the
    /// database.
    #[expect(clippy::too_many_arguments, reason = "one a column")]
    pub async fn create_endpoint(
        &self,
        id: WebhookEndpointId,
        account: AccountNo,
        url: &str,
        types: &[EventType],
        secret: &[u8],
        sealer: &Sealer,
        at: OffsetDateTime,
    ) -> Result<EndpointNo, StoreError> {
        let (seal_key, sealed) =
            sealer
                .seal(secret, place(id).as_bytes())
                .map_err(|error| StoreError::Invalid {
                    what: "webhook secret",
                    detail: error.to_string(),
                })?;
        let no: i32 = sqlx::query_scalar(
            "INSERT INTO webhook_endpoint (public_id, account, url, types, seal_key, secret,
                                           created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING id",
        )
        .bind(id.uuid())
        .bind(account.0)
        .bind(url)
        .bind(types.iter().map(|kind| kind.code()).collect::<Vec<i16>>())
        .bind(seal_key)
        .bind(sealed)
        .bind(at)
        .fetch_one(&self.general)
        .await
        .unless_taken("create a webhook endpoint", "webhook endpoint")?;
        Ok(EndpointNo(no))
    }

    /// The account's endpoints, oldest first.
    ///
    /// # Errors
    /// Of the database.
    pub async fn endpoints(&self, account: AccountNo) -> Result<Vec<EndpointSummary>, StoreError> {
        let rows: Vec<(i32, Uuid, String, Vec<i16>, bool, OffsetDateTime)> = sqlx::query_as(
            "SELECT id, public_id, url, types, enabled, created_at FROM webhook_endpoint
             WHERE account = $1 ORDER BY id",
        )
        .bind(account.0)
        .fetch_all(&self.general)
        .await
        .during("list webhook endpoints")?;
        rows.into_iter()
            .map(|(no, id, url, types, enabled, created_at)| {
                Ok(EndpointSummary {
                    no: EndpointNo(no),
                    id: WebhookEndpointId::from_uuid(id),
                    url,
                    types: types_from(types)?,
                    enabled,
                    created_at,
                })
            })
            .collect()
    }

    /// The endpoint with its secret, at most 5 s old. None when it was deleted.
    ///
    /// # Errors
    /// `Corrupt` when the secret does not open with the master keys given; of the database.
    pub async fn endpoint(
        &self,
        no: EndpointNo,
        sealer: &Sealer,
    ) -> Result<Option<Endpoint>, StoreError> {
        cached(&self.cache.endpoints, no, self.load_endpoint(no, sealer)).await
    }

    async fn load_endpoint(
        &self,
        no: EndpointNo,
        sealer: &Sealer,
    ) -> Result<Option<Endpoint>, StoreError> {
        type Columns = (Uuid, i32, String, Vec<i16>, i32, Vec<u8>, bool);
        let row: Option<Columns> = sqlx::query_as(
            "SELECT public_id, account, url, types, seal_key, secret, enabled
             FROM webhook_endpoint WHERE id = $1",
        )
        .bind(no.0)
        .fetch_optional(&self.general)
        .await
        .during("read a webhook endpoint")?;
        let Some((id, account, url, types, seal_key, sealed, enabled)) = row else {
            return Ok(None);
        };
        let id = WebhookEndpointId::from_uuid(id);
        let secret = sealer
            .open(seal_key, &sealed, place(id).as_bytes())
            .map_err(|error| StoreError::corrupt("webhook secret", error))?;
        let (account, types) = (AccountNo(account), types_from(types)?);
        Ok(Some(Endpoint {
            no,
            id,
            account,
            url,
            types,
            secret,
            enabled,
        }))
    }

    /// Removes an endpoint of the account and all its pending calls. False when there is none.
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
               DELETE FROM webhook_pending WHERE endpoint = (SELECT id FROM gone))
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
