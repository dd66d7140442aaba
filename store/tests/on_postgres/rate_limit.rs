//! The shared buckets against a real Redis: what the script grants, what survives a flush, and that
//! a Redis that is gone makes nobody wait.

use std::time::{Duration, Instant};

use mail::ids::ApiKeyId;
use service::redis_server::RedisServer;
use store::*;
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_secs(10);

fn redis() -> Option<(RedisServer, tempfile::TempDir)> {
    if RedisServer::find().is_none() {
        eprintln!("SKIPPED: no redis-server");
        return None;
    }
    let dir = tempfile::tempdir_in("/tmp").unwrap();
    Some((RedisServer::start(dir.path()).unwrap(), dir))
}

async fn connected(redis: &RedisServer) -> RateLimitStore {
    let limits = RateLimitStore::connect(&redis.url()).unwrap();
    until_up(&limits).await;
    limits
}

async fn until_up(limits: &RateLimitStore) {
    let started = Instant::now();
    while !limits.is_up() {
        assert!(started.elapsed() < PATIENCE, "Redis is not found");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn bucket(name: BucketName, per_second: u32, burst: u32, known_debt: Duration) -> SharedBucket {
    SharedBucket {
        name,
        per_second,
        burst,
        known_debt,
    }
}

/// One token in a thousand seconds or so: the test is over before it comes.
fn slow(burst: u32) -> SharedBucket {
    bucket(BucketName::Account, 1, burst, Duration::ZERO)
}

#[tokio::test]
async fn a_grant_is_what_the_poorest_bucket_has() {
    let Some((redis, _dir)) = redis() else { return };
    let limits = connected(&redis).await;
    let key = BucketName::Key(ApiKeyId::from_uuid(Uuid::new_v4()));
    let buckets = [slow(10), bucket(key, 1, 4, Duration::ZERO)];
    let taken = limits.take(AccountNo(1), 3, &buckets).await.unwrap();
    assert_eq!(taken.granted, 3);
    let taken = limits.take(AccountNo(1), 3, &buckets).await.unwrap();
    assert_eq!(taken.granted, 1, "the key's bucket held 4");
    assert!(taken.debts[0] > Duration::from_secs(3) && taken.debts[0] <= Duration::from_secs(4));
    let taken = limits.take(AccountNo(1), 3, &buckets).await.unwrap();
    assert_eq!(taken.granted, 0);
    let taken = limits.take(AccountNo(1), 100, &buckets[..1]).await.unwrap();
    assert_eq!(taken.granted, 6, "refusals cost the account nothing");
    let other = limits.take(AccountNo(2), 100, &buckets[..1]).await.unwrap();
    assert_eq!(other.granted, 10);
}

#[tokio::test]
async fn what_redis_forgot_a_node_still_knows_and_nonsense_locks_nobody_out() {
    let Some((mut redis, _dir)) = redis() else {
        return;
    };
    let limits = connected(&redis).await;
    let taken = limits.take(AccountNo(1), 10, &[slow(10)]).await.unwrap();
    assert_eq!(taken.granted, 10);
    redis.restart().unwrap();
    let known = bucket(BucketName::Account, 1, 10, taken.debts[0]);
    // The first call finds the connection broken.
    let mut after = limits.take(AccountNo(1), 10, &[known]).await;
    while after.is_err() {
        until_up(&limits).await;
        after = limits.take(AccountNo(1), 10, &[known]).await;
    }
    let after = after.unwrap();
    assert!(after.granted <= 1, "{after:?}");
    // The next node learns it from Redis.
    let other = limits.take(AccountNo(1), 10, &[slow(10)]).await.unwrap();
    assert!(other.granted <= 1, "{other:?}");
    // A debt deeper than the bucket counts as an empty one.
    let absurd = bucket(BucketName::Account, 1, 2, Duration::from_secs(1_000_000));
    let taken = limits.take(AccountNo(3), 1, &[absurd]).await.unwrap();
    assert_eq!((taken.granted, taken.debts[0]), (0, Duration::from_secs(2)));
}

#[tokio::test]
async fn a_redis_that_hangs_costs_one_short_wait() {
    let Some((redis, _dir)) = redis() else { return };
    let limits = connected(&redis).await;
    let stop = |signal: &str| {
        let pid = redis.pid().to_string();
        let done = std::process::Command::new("kill")
            .args([signal, &pid])
            .status();
        assert!(done.unwrap().success());
    };
    stop("-STOP");
    let started = Instant::now();
    for _ in 0..1_000 {
        assert!(limits.take(AccountNo(1), 1, &[slow(10)]).await.is_err());
    }
    let took = started.elapsed();
    stop("-CONT");
    // A thousand waits of 20 ms would be 20 s.
    assert!(took < Duration::from_secs(2), "{took:?}");
    until_up(&limits).await;
    let taken = limits.take(AccountNo(1), 1, &[slow(10)]).await.unwrap();
    assert_eq!(taken.granted, 1);
}
