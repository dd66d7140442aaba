//! Token buckets that all nodes share, in Redis: one script call takes tokens for a while ahead from
//! all buckets of a caller. Redis may be slow, empty or gone: then the answer is an error at once,
//! and what to do instead is the caller's business.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mail::ids::ApiKeyId;
use redis::Script;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use crate::numbers::AccountNo;
use crate::redis_wake::RedisUrlError;

const SCRIPT: &str = include_str!("rate_limit.lua");
/// No request waits longer for Redis.
const PATIENCE: Duration = Duration::from_millis(20);
/// After a failure nobody asks Redis for this long, and then only a probe does.
const PAUSE: Duration = Duration::from_secs(1);
/// How long connecting and a probe may take; nobody waits for them.
const PROBE_PATIENCE: Duration = Duration::from_secs(1);

/// Whose bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BucketName {
    /// The account's, shared by its live keys.
    Account,
    /// The account's, shared by its test keys: trying things out takes nothing from live mail.
    AccountTest,
    /// One key's.
    Key(ApiKeyId),
}

/// A bucket to take from.
#[derive(Debug, Clone, Copy)]
pub struct SharedBucket {
    /// Whose.
    pub name: BucketName,
    /// Tokens that flow in; not 0.
    pub per_second: u32,
    /// Tokens that it holds; not 0.
    pub burst: u32,
    /// How long it takes to be full again as far as this node knows: what Redis has forgotten
    /// counts nevertheless.
    pub known_debt: Duration,
}

/// What was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// Tokens, from each bucket the same number.
    pub granted: u32,
    /// How long each bucket takes to be full again, in the order asked.
    pub debts: Vec<Duration>,
}

/// Redis did not answer in time, or not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the shared limits cannot be reached")]
pub struct LimitsAway;

/// The shared buckets. Clones share a connection.
#[derive(Debug, Clone)]
pub struct RateLimitStore {
    manager: ConnectionManager,
    script: Arc<Script>,
    /// Whether Redis answered the last time.
    up: Arc<AtomicBool>,
    /// Tells the prober that it did not; closed when the last clone goes.
    lost: mpsc::Sender<()>,
}

impl RateLimitStore {
    /// Needs no Redis to be there: a probe looks for it, now and once a second after it was lost.
    /// Must be called on a tokio runtime.
    ///
    /// # Errors
    /// Only for a URL that is none.
    pub fn connect(url: &str) -> Result<Self, RedisUrlError> {
        let client = redis::Client::open(url).map_err(RedisUrlError)?;
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(1)
            .set_connection_timeout(Some(PROBE_PATIENCE))
            .set_response_timeout(Some(PROBE_PATIENCE));
        let manager = client
            .get_connection_manager_lazy(config)
            .map_err(RedisUrlError)?;
        let (lost, losses) = mpsc::channel(1);
        let up = Arc::new(AtomicBool::new(false));
        tokio::spawn(probe(manager.clone(), up.clone(), losses));
        Ok(Self {
            manager,
            script: Arc::new(Script::new(SCRIPT)),
            up,
            lost,
        })
    }

    /// Whether asking makes sense: false from a failure until a probe was answered.
    pub fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    /// Takes up to `wanted` tokens from every bucket of one account's caller, within 20 ms.
    ///
    /// # Errors
    /// Redis is not there, or slow; then it is left alone for a second.
    pub async fn take(
        &self,
        account: AccountNo,
        wanted: u32,
        buckets: &[SharedBucket],
    ) -> Result<Taken, LimitsAway> {
        if !self.is_up() {
            return Err(LimitsAway);
        }
        let mut call = self.script.prepare_invoke();
        call.arg(wanted);
        for bucket in buckets {
            call.key(redis_key(account, bucket.name))
                .arg(bucket.per_second)
                .arg(bucket.burst)
                .arg(micros(bucket.known_debt));
        }
        let mut manager = self.manager.clone();
        let asked = timeout(PATIENCE, call.invoke_async::<Vec<u64>>(&mut manager)).await;
        let answer = match asked {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(self.lose(&error.to_string())),
            Err(_) => return Err(self.lose("no answer in time")),
        };
        match answer.split_first() {
            Some((granted, debts)) if debts.len() == buckets.len() => Ok(Taken {
                granted: u32::try_from(*granted).unwrap_or(wanted).min(wanted),
                debts: debts.iter().copied().map(Duration::from_micros).collect(),
            }),
            _ => Err(self.lose("an answer of another shape")),
        }
    }

    fn lose(&self, why: &str) -> LimitsAway {
        if self.up.swap(false, Ordering::Relaxed) {
            tracing::warn!(
                why,
                "no shared rate limits: this node keeps to its own share"
            );
            // Full: the prober has been told.
            let _ = self.lost.try_send(());
        }
        LimitsAway
    }
}

/// Looks for Redis whenever it is lost. Never makes a request wait: connecting may take longer
/// than any of them has patience for.
async fn probe(
    mut manager: ConnectionManager,
    up: Arc<AtomicBool>,
    mut losses: mpsc::Receiver<()>,
) {
    loop {
        while !losses.is_closed() {
            let ping = redis::cmd("PING");
            let asked = timeout(PROBE_PATIENCE, ping.query_async::<String>(&mut manager)).await;
            if matches!(asked, Ok(Ok(_))) {
                break;
            }
            sleep(PAUSE).await;
        }
        up.store(true, Ordering::Relaxed);
        if losses.recv().await.is_none() {
            return;
        }
        sleep(PAUSE).await;
    }
}

/// The braces keep all buckets of an account on one node of a Redis Cluster, as a script needs.
fn redis_key(account: AccountNo, name: BucketName) -> String {
    let account = account.0;
    match name {
        BucketName::Account => format!("postrider:rate:{{{account}}}"),
        BucketName::AccountTest => format!("postrider:rate:{{{account}}}:test"),
        BucketName::Key(id) => format!("postrider:rate:{{{account}}}:{id}"),
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_buckets_of_an_account_share_a_slot() {
        let id = ApiKeyId::from_uuid(uuid::Uuid::nil());
        let key = redis_key(AccountNo(7), BucketName::Key(id));
        assert!(key.starts_with("postrider:rate:{7}:key_"), "{key}");
        let account = |name| redis_key(AccountNo(7), name);
        assert_eq!(account(BucketName::Account), "postrider:rate:{7}");
        assert_eq!(account(BucketName::AccountTest), "postrider:rate:{7}:test");
    }

    #[tokio::test]
    async fn without_redis_the_answer_is_no_at_once() {
        let limits = RateLimitStore::connect("redis://127.0.0.1:1").unwrap();
        assert_eq!(limits.take(AccountNo(1), 1, &[]).await, Err(LimitsAway));
        assert!(RateLimitStore::connect("no url").is_err());
    }
}
