//! What becomes of a request whose idempotency key was there already.

use std::sync::Arc;

use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::batch::Committer;
use super::job::Job;
use super::{Accepted, IdempotencyKey};
use crate::database::Store;
use crate::error::{During, StoreError};
use crate::numbers::AccountNo;

/// A key means the same request for this long.
const KEY_LIFE: Duration = Duration::hours(24);

/// The row of the request that had the key first.
struct Winner {
    request_id: Uuid,
    body_hash: Vec<u8>,
    response: String,
    created_at: OffsetDateTime,
}

enum Verdict {
    /// The winner was this very request, committed by an earlier try of its own.
    Ourselves,
    /// Somebody else's answer.
    Answer(Accepted),
    /// The key is free now: once more.
    Again,
}

impl Committer {
    /// Reads the winner and answers; tries once more when the winner has aged out meanwhile.
    pub(super) async fn resolve(self: Arc<Self>, job: Job) {
        match self.judge(&job).await {
            Ok(Verdict::Again) => self.commit_again(job).await,
            verdict => self.close(job, verdict).await,
        }
    }

    async fn commit_again(&self, job: Job) {
        let jobs = [job];
        let committed = self.commit(&self.store.general, &jobs).await;
        let [job] = jobs;
        match committed {
            Ok(committed) if committed.lost.is_empty() => {
                self.stored(vec![job], committed.suppressed.as_ref());
            }
            Ok(_) => {
                let verdict = self.judge(&job).await;
                self.close(job, verdict).await;
            }
            Err(error) => job.answer(Err(error)),
        }
    }

    async fn close(&self, job: Job, verdict: Result<Verdict, StoreError>) {
        match verdict {
            Ok(Verdict::Ourselves) => {
                let jobs = [job];
                let suppressed = self.suppressed_before(&jobs).await;
                self.stored(jobs.into(), suppressed.as_ref());
            }
            Ok(Verdict::Answer(accepted)) => job.answer(Ok(accepted)),
            // The key was taken and freed twice within one request: let the sender repeat it.
            Ok(Verdict::Again) => job.answer(Err(StoreError::Unavailable {
                operation: "decide about an idempotency key",
                source: None,
            })),
            Err(error) => job.answer(Err(error)),
        }
    }

    async fn judge(&self, job: &Job) -> Result<Verdict, StoreError> {
        let Some(key) = &job.request.idempotency else {
            return Ok(Verdict::Again);
        };
        let account = job.request.account;
        let Some(winner) = self.store.key_winner(account, key).await? else {
            return Ok(Verdict::Again);
        };
        if winner.request_id == job.request_id {
            return Ok(Verdict::Ourselves);
        }
        if winner.created_at + KEY_LIFE <= (self.clock_now)() {
            self.store.drop_key(account, key, winner.request_id).await?;
            return Ok(Verdict::Again);
        }
        Ok(Verdict::Answer(if winner.body_hash == key.body_hash {
            Accepted::Replayed {
                response: winner.response,
            }
        } else {
            Accepted::KeyConflict
        }))
    }
}

impl Store {
    async fn key_winner(
        &self,
        account: AccountNo,
        key: &IdempotencyKey,
    ) -> Result<Option<Winner>, StoreError> {
        let row: Option<(Uuid, Vec<u8>, String, OffsetDateTime)> = sqlx::query_as(
            "SELECT request_id, body_hash, response, created_at FROM idempotency
             WHERE account = $1 AND key_hash = $2",
        )
        .bind(account.0)
        .bind(&key.key_hash[..])
        .fetch_optional(&self.general)
        .await
        .during("read an idempotency key")?;
        Ok(
            row.map(|(request_id, body_hash, response, created_at)| Winner {
                request_id,
                body_hash,
                response,
                created_at,
            }),
        )
    }

    /// Only the row that was read: another request may have taken the key since.
    async fn drop_key(
        &self,
        account: AccountNo,
        key: &IdempotencyKey,
        request_id: Uuid,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "DELETE FROM idempotency WHERE account = $1 AND key_hash = $2 AND request_id = $3",
        )
        .bind(account.0)
        .bind(&key.key_hash[..])
        .bind(request_id)
        .execute(&self.general)
        .await
        .during("drop an old idempotency key")?;
        Ok(())
    }
}
