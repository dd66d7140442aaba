//! Webhook endpoints: where events are told, and with which secret. What their owners see and
//! change of them is in `webhook_settings`.

use mail::event::EventType;
use mail::ids::WebhookEndpointId;
use sqlx::{Connection, FromRow, PgConnection};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::cache::cached;
use crate::connections::within;
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
    /// Signs the calls too, until that time: the secret before the last rotation.
    pub previous: Option<(Vec<u8>, OffsetDateTime)>,
    /// False: called no more.
    pub enabled: bool,
    /// The first failed call since the last good one, as far as it was written down.
    pub failing_since: Option<OffsetDateTime>,
}

impl Endpoint {
    /// What to sign a call of this time with, the newest first.
    pub fn secrets(&self, now: OffsetDateTime) -> impl Iterator<Item = &[u8]> {
        let previous = self.previous.as_ref().filter(|(_, until)| now < *until);
        let previous = previous.map(|(secret, _)| secret.as_slice());
        std::iter::once(self.secret.as_slice()).chain(previous)
    }
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// An endpoint to be made.
#[derive(Clone, Copy)]
pub struct NewEndpoint<'a> {
    /// Outside.
    pub id: WebhookEndpointId,
    /// Whose.
    pub account: AccountNo,
    /// Where to call.
    pub url: &'a str,
    /// What to tell.
    pub types: &'a [EventType],
    /// Signs the calls.
    pub secret: &'a [u8],
}

/// Binds a sealed secret to its endpoint.
fn place(id: WebhookEndpointId) -> String {
    format!("webhook_endpoint/{}", id.uuid())
}

pub(crate) fn types_from(codes: Vec<i16>) -> Result<Vec<EventType>, StoreError> {
    codes.into_iter().map(event_type).collect()
}

pub(crate) fn codes(types: &[EventType]) -> Vec<i16> {
    types.iter().map(|kind| kind.code()).collect()
}

#[derive(FromRow)]
struct EndpointColumns {
    public_id: Uuid,
    account: i32,
    url: String,
    types: Vec<i16>,
    seal_key: i32,
    secret: Vec<u8>,
    previous_seal_key: Option<i32>,
    previous_secret: Option<Vec<u8>>,
    previous_until: Option<OffsetDateTime>,
    enabled: bool,
    failing_since: Option<OffsetDateTime>,
}

impl EndpointColumns {
    fn open(self, no: EndpointNo, sealer: &Sealer) -> Result<Endpoint, StoreError> {
        let id = WebhookEndpointId::from_uuid(self.public_id);
        let open = |seal_key: i32, sealed: &[u8]| {
            sealer
                .open(seal_key, sealed, place(id).as_bytes())
                .map_err(|error| StoreError::corrupt("webhook secret", error))
        };
        let secret = open(self.seal_key, &self.secret)?;
        let previous = self
            .previous_seal_key
            .zip(self.previous_secret)
            .map(|(seal_key, sealed)| open(seal_key, &sealed))
            .transpose()?;
        Ok(Endpoint {
            no,
            id,
            account: AccountNo(self.account),
            url: self.url,
            types: types_from(self.types)?,
            secret,
            previous: previous.zip(self.previous_until),
            enabled: self.enabled,
            failing_since: self.failing_since,
        })
    }
}

/// The account's row is locked first: two requests that count at once would both find room.
async fn insert(
    connection: &mut PgConnection,
    new: &NewEndpoint<'_>,
    most: usize,
    (seal_key, secret): (i32, &[u8]),
    at: OffsetDateTime,
) -> Result<Option<i32>, sqlx::Error> {
    let mut transaction = connection.begin().await?;
    sqlx::query("SELECT FROM account WHERE id = $1 FOR NO KEY UPDATE")
        .bind(new.account.0)
        .execute(&mut *transaction)
        .await?;
    let no = sqlx::query_scalar(
        "INSERT INTO webhook_endpoint (public_id, account, url, types, seal_key, secret,
                                       created_at)
         SELECT $1, $2, $3, $4, $5, $6, $7
         WHERE (SELECT count(*) FROM webhook_endpoint WHERE account = $2) < $8 RETURNING id",
    )
    .bind(new.id.uuid())
    .bind(new.account.0)
    .bind(new.url)
    .bind(codes(new.types))
    .bind(seal_key)
    .bind(secret)
    .bind(at)
    .bind(i64::try_from(most).unwrap_or(i64::MAX))
    .fetch_optional(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(no)
}

fn sealed(
    sealer: &Sealer,
    id: WebhookEndpointId,
    secret: &[u8],
) -> Result<(i32, Vec<u8>), StoreError> {
    sealer
        .seal(secret, place(id).as_bytes())
        .map_err(|error| StoreError::Invalid {
            what: "webhook secret",
            detail: error.to_string(),
        })
}

impl Store {
    /// Makes an endpoint, unless its account has `most` already; it is told what is committed
    /// from now on. None when there are too many.
    ///
    /// # Errors
    /// `Conflict` when the id is taken; `Invalid` when the secret cannot be sealed; of the
    /// database.
    pub async fn create_endpoint(
        &self,
        new: &NewEndpoint<'_>,
        most: usize,
        sealer: &Sealer,
        at: OffsetDateTime,
    ) -> Result<Option<EndpointNo>, StoreError> {
        let operation = "create a webhook endpoint";
        let (seal_key, secret) = sealed(sealer, new.id, new.secret)?;
        let mut checkout = self.general.checkout().await.during(operation)?;
        let made = within(insert(checkout.raw(), new, most, (seal_key, &secret), at)).await;
        checkout.give_back(&made);
        let no = made.unless_taken(operation, "webhook endpoint")?;
        Ok(no.map(EndpointNo))
    }

    /// Gives an endpoint of the account a new secret; the present one signs beside it until
    /// `previous_until`, any before it no more. False when there is no such endpoint.
    ///
    /// # Errors
    /// `Invalid` when the secret cannot be sealed; of the database.
    pub async fn rotate_endpoint_secret(
        &self,
        account: AccountNo,
        id: WebhookEndpointId,
        secret: &[u8],
        sealer: &Sealer,
        previous_until: Option<OffsetDateTime>,
    ) -> Result<bool, StoreError> {
        let (seal_key, secret) = sealed(sealer, id, secret)?;
        let no: Option<i32> = sqlx::query_scalar(
            "UPDATE webhook_endpoint SET
               seal_key = $3, secret = $4, previous_until = $5,
               previous_seal_key = CASE WHEN $5 IS NOT NULL THEN seal_key END,
               previous_secret = CASE WHEN $5 IS NOT NULL THEN secret END
             WHERE account = $1 AND public_id = $2 RETURNING id",
        )
        .bind(account.0)
        .bind(id.uuid())
        .bind(seal_key)
        .bind(secret)
        .bind(previous_until)
        .fetch_optional(&self.general)
        .await
        .during("rotate the secret of a webhook endpoint")?;
        if let Some(no) = no {
            self.cache.endpoints.invalidate(&EndpointNo(no)).await;
        }
        Ok(no.is_some())
    }

    /// Erases the previous secrets that sign no more. Returns their number.
    ///
    /// # Errors
    /// Of the database.
    pub async fn forget_previous_secrets(&self, now: OffsetDateTime) -> Result<u64, StoreError> {
        let done = sqlx::query(
            "UPDATE webhook_endpoint
             SET previous_seal_key = NULL, previous_secret = NULL, previous_until = NULL
             WHERE previous_until <= $1",
        )
        .bind(now)
        .execute(&self.general)
        .await
        .during("forget previous webhook secrets")?;
        Ok(done.rows_affected())
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
        let row: Option<EndpointColumns> = sqlx::query_as(
            "SELECT public_id, account, url, types, seal_key, secret, previous_seal_key,
                    previous_secret, previous_until, enabled, failing_since
             FROM webhook_endpoint WHERE id = $1",
        )
        .bind(no.0)
        .fetch_optional(&self.general)
        .await
        .during("read a webhook endpoint")?;
        row.map(|row| row.open(no, sealer)).transpose()
    }
}
