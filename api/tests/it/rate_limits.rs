//! Limits of requests: told on every answer, shared by nodes over Redis, kept without it.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::keys::{KeyMode, generate};
use api::{ApiMetrics, AppParts, AppState, Callers, RateLimits};
use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{HeaderMap, Method, StatusCode};
use service::metrics::Metrics;
use service::redis_server::RedisServer;
use store::RateLimitStore;
use tower::ServiceExt;

use crate::platform::{Answer, Platform, with_key};

const PATIENCE: Duration = Duration::from_secs(10);
/// Refused by its query before anything is looked up, but after it was counted: 422.
pub(crate) const CHEAP: &str = "/v1/webhooks?limit=0";
/// How long tokens that a node took ahead are good.
const AHEAD: Duration = Duration::from_millis(500);

pub(crate) fn limits(account: (u32, u32), key: (u32, u32)) -> RateLimits {
    let count = |number| NonZeroU32::new(number).unwrap();
    RateLimits {
        account_per_second: account.0,
        account_burst: count(account.1),
        key_per_second: key.0,
        key_burst: count(key.1),
        ..RateLimits::default()
    }
}

fn number(headers: &HeaderMap, name: &str) -> u32 {
    headers[name].to_str().unwrap().parse().unwrap()
}

/// One API process of several; the database is the platform's.
pub(crate) struct Node {
    pub(crate) router: Router,
    state: AppState,
    shared: RateLimitStore,
}

impl Node {
    pub(crate) async fn start(
        platform: &Platform,
        redis: &RedisServer,
        limits: RateLimits,
    ) -> Self {
        let shared = RateLimitStore::connect(&redis.url()).unwrap();
        let registry = Arc::new(Metrics::new());
        let state = AppState::from(AppParts {
            callers: Callers::new(&limits, Some(shared.clone())),
            metrics: ApiMetrics::register(&registry).unwrap(),
            registry,
            ..AppParts::clone(&platform.state)
        });
        let node = Self {
            router: api::router(state.clone()),
            state,
            shared,
        };
        node.until_up().await;
        node
    }

    async fn until_up(&self) {
        let started = Instant::now();
        while !self.shared.is_up() {
            assert!(started.elapsed() < PATIENCE, "Redis is not found");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Whether a request was let in; nothing but a limit may refuse it.
    pub(crate) async fn lets_in(&self, key: &str) -> bool {
        match self.ask(key).await.as_u16() {
            422 => true,
            429 => false,
            other => panic!("answered {other}"),
        }
    }

    /// What the cheapest request is answered.
    pub(crate) async fn ask(&self, key: &str) -> StatusCode {
        let request = with_key(key, Method::GET, CHEAP).body(Body::empty());
        let answer = self.router.clone().oneshot(request.unwrap()).await;
        answer.unwrap().status()
    }

    /// Requests counted here only: on a busy machine Redis may be late now and then.
    pub(crate) fn alone(&self) -> u32 {
        let metrics = self.state.registry.render();
        let name = "postrider_api_rate_limits_alone_total ";
        let value = metrics.lines().find_map(|line| line.strip_prefix(name));
        value.unwrap().parse().unwrap()
    }

    async fn count(&self, key: &str, requests: u32) -> u32 {
        let mut count = 0;
        for _ in 0..requests {
            count += u32::from(self.lets_in(key).await);
        }
        count
    }
}

pub(crate) fn redis() -> Option<(RedisServer, tempfile::TempDir)> {
    if RedisServer::find().is_none() {
        eprintln!("SKIPPED: no redis-server");
        return None;
    }
    let dir = tempfile::tempdir_in("/tmp").unwrap();
    Some((RedisServer::start(dir.path()).unwrap(), dir))
}

fn ask_redis(redis: &RedisServer, command: &[&str]) -> String {
    let client = redis::Client::open(redis.url()).unwrap();
    let mut connection = client.get_connection().unwrap();
    let mut asked = redis::cmd(command[0]);
    asked.arg(&command[1..]);
    asked.query::<String>(&mut connection).unwrap()
}

/// How often the script was run.
pub(crate) fn calls(redis: &RedisServer) -> u32 {
    let stats = ask_redis(redis, &["INFO", "commandstats"]);
    let asked = stats
        .lines()
        .find_map(|line| line.strip_prefix("cmdstat_evalsha:calls="));
    let asked = asked.map_or("0", |rest| rest.split(',').next().unwrap());
    asked.parse().unwrap()
}

fn signal(redis: &RedisServer, name: &str) {
    let pid = redis.pid().to_string();
    let done = std::process::Command::new("kill")
        .args([name, &pid])
        .status();
    assert!(done.unwrap().success());
}

#[tokio::test]
async fn a_key_is_told_how_it_stands_and_when_to_come_back() {
    let change = |config: &mut api::ApiConfig| config.rate_limits = limits((1, 100), (1, 3));
    let Some(platform) = Platform::start_with(change).await else {
        return;
    };
    let key = &platform.live_key;
    for left in [2, 1, 0] {
        let answer = platform.get(key, CHEAP).await;
        answer.refused(422, "invalid_parameter");
        assert_eq!(number(&answer.headers, "ratelimit-limit"), 3);
        assert_eq!(number(&answer.headers, "ratelimit-remaining"), left);
        assert!((1..=3).contains(&number(&answer.headers, "ratelimit-reset")));
    }
    let answer = platform.get(key, CHEAP).await;
    answer.refused(429, "rate_limited");
    assert_eq!(number(&answer.headers, "retry-after"), 1);
    assert_eq!(number(&answer.headers, "ratelimit-remaining"), 0);
    assert_eq!(number(&answer.headers, "ratelimit-limit"), 3);
    let metrics = platform.state.registry.render();
    assert!(
        metrics.contains("api_rate_limited_total{limit=\"key\"} 1"),
        "{metrics}"
    );
    // The account's other keys go on, and also what is refused for its scope counts.
    let answer = platform.get(&platform.key_with(&[]).await, CHEAP).await;
    answer.refused(403, "missing_scope");
    assert_eq!(number(&answer.headers, "ratelimit-remaining"), 2);
}

#[tokio::test]
async fn the_keys_of_an_account_share_its_limit_and_other_accounts_do_not() {
    let change = |config: &mut api::ApiConfig| config.rate_limits = limits((1, 3), (1, 2));
    let Some(platform) = Platform::start_with(change).await else {
        return;
    };
    let second = platform.key_with(&["webhooks:*"]).await;
    platform
        .get(&platform.live_key, CHEAP)
        .await
        .refused(422, "invalid_parameter");
    platform
        .get(&platform.live_key, CHEAP)
        .await
        .refused(422, "invalid_parameter");
    let answer = platform.get(&second, CHEAP).await;
    assert_eq!(
        number(&answer.headers, "ratelimit-limit"),
        3,
        "the scarcer one is shown"
    );
    platform
        .get(&second, CHEAP)
        .await
        .refused(429, "rate_limited");
    let other = platform.other_account("other.test").await;
    platform
        .get(&other, CHEAP)
        .await
        .refused(422, "invalid_parameter");
}

#[tokio::test]
async fn without_limits_nothing_is_told_or_refused() {
    let change = |config: &mut api::ApiConfig| config.rate_limits = limits((0, 1), (0, 1));
    let Some(platform) = Platform::start_with(change).await else {
        return;
    };
    for _ in 0..50 {
        let answer = platform.get(&platform.live_key, CHEAP).await;
        answer.refused(422, "invalid_parameter");
        assert!(!answer.headers.contains_key("ratelimit-limit"));
    }
}

#[tokio::test]
async fn guessing_keys_is_slowed_down_by_address() {
    let change = |config: &mut api::ApiConfig| {
        config.rate_limits.wrong_keys_per_second = 1;
        config.rate_limits.wrong_keys_burst = NonZeroU32::new(3).unwrap();
    };
    let Some(platform) = Platform::start_with(change).await else {
        return;
    };
    let from = async |address: &str, key: &str| -> Answer {
        let mut request = with_key(key, Method::GET, CHEAP)
            .body(Body::empty())
            .unwrap();
        let peer: SocketAddr = address.parse().unwrap();
        request.extensions_mut().insert(ConnectInfo(peer));
        platform.send(request).await
    };
    let guess = |number: u8| generate(KeyMode::Live, [number; 32]).secret;
    let (attacker, other) = ("192.0.2.1:1", "192.0.2.2:1");
    from(attacker, &platform.live_key)
        .await
        .refused(422, "invalid_parameter");
    for number in 0..3 {
        from(attacker, &guess(number))
            .await
            .refused(401, "invalid_api_key");
    }
    let answer = from(attacker, &guess(3)).await;
    answer.refused(429, "rate_limited");
    assert_eq!(number(&answer.headers, "retry-after"), 1);
    assert!(!answer.headers.contains_key("ratelimit-limit"));
    // A key that worked before passes, and so do other addresses.
    from(attacker, &platform.live_key)
        .await
        .refused(422, "invalid_parameter");
    from(other, &guess(4)).await.refused(401, "invalid_api_key");
}

#[tokio::test]
async fn two_nodes_share_one_limit() {
    let Some((redis, _dir)) = redis() else { return };
    let Some(platform) = Platform::start().await else {
        return;
    };
    let (rate, burst) = (50, 20);
    let mut quota = limits((0, 1), (rate, burst));
    quota.nodes_expected = NonZeroU32::new(2).unwrap();
    let one = Node::start(&platform, &redis, quota).await;
    let two = Node::start(&platform, &redis, quota).await;
    let key = &platform.live_key;
    let started = Instant::now();
    let (mut count, mut refused) = (0, 0);
    while started.elapsed() < Duration::from_millis(1_500) {
        for node in [&one, &two] {
            match node.lets_in(key).await {
                true => count += 1,
                false => refused += 1,
            }
        }
    }
    let bound = f64::from(burst) + f64::from(rate) * (started.elapsed() + AHEAD).as_secs_f64();
    assert!(f64::from(count) <= bound, "{count} of at most {bound}");
    assert!(count > burst && refused > 0, "{count} and {refused}");
}

#[tokio::test]
async fn neither_a_flush_nor_the_loss_of_redis_gives_more() {
    let Some((mut redis, _dir)) = redis() else {
        return;
    };
    let Some(platform) = Platform::start().await else {
        return;
    };
    let burst = 30;
    let mut quota = limits((1, burst), (1, burst));
    quota.nodes_expected = NonZeroU32::new(2).unwrap();
    let one = Node::start(&platform, &redis, quota).await;
    let two = Node::start(&platform, &redis, quota).await;
    let key = &platform.live_key;
    let started = Instant::now();
    let mut count = 0;
    // In turn, as a balancer sends them.
    for _ in 0..25 {
        count += one.count(key, 1).await + two.count(key, 1).await;
    }
    assert!(count >= burst, "{count}");
    ask_redis(&redis, &["FLUSHALL"]);
    // A refusal is repeated from memory for a second at most; then Redis is asked again.
    while ask_redis(&redis, &["INFO", "keyspace"]).lines().count() < 2 {
        assert!(started.elapsed() < PATIENCE, "nobody asks Redis");
        count += one.count(key, 5).await + two.count(key, 5).await;
    }
    redis.kill().unwrap();
    count += one.count(key, 100).await + two.count(key, 100).await;
    redis.restart().unwrap();
    one.until_up().await;
    two.until_up().await;
    count += one.count(key, 100).await + two.count(key, 100).await;
    let elapsed = started.elapsed() + AHEAD;
    assert!(
        f64::from(count) <= f64::from(burst) + elapsed.as_secs_f64() + 1.0,
        "{count} in {elapsed:?}"
    );
}

#[tokio::test]
async fn a_redis_that_hangs_slows_nobody() {
    let Some((redis, _dir)) = redis() else { return };
    let Some(platform) = Platform::start().await else {
        return;
    };
    let mut quota = limits((10_000, 20_000), (10_000, 20_000));
    quota.nodes_expected = NonZeroU32::new(4).unwrap();
    let node = Node::start(&platform, &redis, quota).await;
    let key = &platform.live_key;
    assert_eq!(node.count(key, 100).await, 100);
    signal(&redis, "-STOP");
    let mut times = Vec::new();
    for _ in 0..1_000 {
        let started = Instant::now();
        assert!(node.lets_in(key).await);
        times.push(started.elapsed());
    }
    signal(&redis, "-CONT");
    times.sort_unstable();
    eprintln!(
        "Redis stopped: p50 {:?}, p99 {:?}, worst {:?}",
        times[500], times[990], times[999]
    );
    // Were each request to wait for Redis, all would take that long; a busy machine makes some.
    assert!(times[900] < Duration::from_millis(20), "{:?}", times[900]);
    assert!(node.alone() >= 900, "{}", node.alone());
    node.until_up().await;
}

#[tokio::test]
async fn tokens_are_taken_ahead_so_that_few_requests_ask_redis() {
    let Some((redis, _dir)) = redis() else { return };
    let Some(platform) = Platform::start().await else {
        return;
    };
    let key = &platform.live_key;
    let high = limits((50_000, 100_000), (50_000, 100_000));
    let timed = async |node: &Node| {
        let mut times = Vec::new();
        for _ in 0..2_000 {
            let started = Instant::now();
            assert!(node.lets_in(key).await);
            times.push(started.elapsed());
        }
        times.sort_unstable();
        (times[1_000], times[1_980])
    };
    let free = Node::start(&platform, &redis, limits((0, 1), (0, 1))).await;
    let limited = Node::start(&platform, &redis, high).await;
    let none = timed(&free).await;
    let ahead = timed(&limited).await;
    let asked = calls(&redis);
    let least = (2_000 - limited.alone()) / 50;
    assert!((least..400).contains(&asked), "{asked} for 2000 requests");
    // At twenty a second nothing is taken ahead.
    let asking = Node::start(&platform, &redis, limits((20, 100_000), (20, 100_000))).await;
    let every_time = timed(&asking).await;
    assert!(calls(&redis) - asked + asking.alone() >= 2_000);
    eprintln!(
        "p50 and p99 of an answer: no limits {none:?}, tokens taken ahead {ahead:?}, Redis asked \
         every time {every_time:?}"
    );
}
