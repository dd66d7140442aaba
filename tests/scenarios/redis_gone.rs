//! Redis may be emptied, stopped and started again in the middle of a run: nothing is lost or
//! repeated.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use tests::audit::Audit;
use tests::load::Load;
use tests::platform::Platform;
use tests::sink::Sink;
use tests::{full, ledger, take_turn};

const RUN_PATIENCE: Duration = Duration::from_secs(300);

#[tokio::test(flavor = "multi_thread")]
async fn mail_does_not_need_redis() {
    let _turn = take_turn();
    let count = if full() { 5_000 } else { 800 };
    let sink = Sink::options().latency_ms(0..=20).start().await;
    let builder = Platform::builder().route("*", sink.address).redis();
    let builder = builder.node("front", "api,worker").node("sender", "mta");
    let Some(mut platform) = builder.start().await else {
        return;
    };
    let load = Load {
        count,
        senders: 8,
        apis: vec![platform.api(0)],
        from_domain: platform.tenant.domain.clone(),
    };
    let sending = load.start();
    sink.has_dots_within(count / 4, RUN_PATIENCE).await;
    flush(&platform.redis.as_ref().unwrap().url());
    sink.has_dots_within(count / 2, RUN_PATIENCE).await;
    let redis = platform.redis.as_mut().unwrap();
    redis.kill().unwrap();
    sink.has_dots_within(count * 3 / 4, RUN_PATIENCE).await;
    redis.restart().unwrap();
    let sent = sending.finish(RUN_PATIENCE).await;
    ledger::settled(&platform.pool, RUN_PATIENCE).await;
    let audit = Audit::of(&platform, &sent, &sink, &[]).await;
    eprintln!("Redis flushed, stopped, restarted: {audit}");
    assert_eq!((audit.in_doubt, audit.duplicates), (0, 0));
    assert_eq!(
        (sent.unavailable, sent.broken),
        (0, 0),
        "sends noticed the loss of Redis"
    );
}

fn flush(url: &str) {
    let client = redis::Client::open(url).unwrap();
    redis::cmd("FLUSHALL")
        .exec(&mut client.get_connection().unwrap())
        .unwrap();
}
