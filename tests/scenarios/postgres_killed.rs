//! PostgreSQL may be killed and started again at any moment: senders are told to come back, and
//! nothing is lost or repeated.

use std::time::Duration;

use tests::audit::Audit;
use tests::load::Load;
use tests::platform::Platform;
use tests::sink::Sink;
use tests::{full, ledger, take_turn};

const RUN_PATIENCE: Duration = Duration::from_secs(300);

#[tokio::test(flavor = "multi_thread")]
async fn mail_survives_a_killed_postgresql() {
    let _turn = take_turn();
    let (count, kill_count) = if full() { (5_000, 5) } else { (800, 2) };
    let sink = Sink::options().latency_ms(0..=50).start().await;
    let builder = Platform::builder().route("*", sink.address);
    let Some(mut platform) = builder.start().await else {
        return;
    };
    let load = Load {
        count,
        senders: 16,
        apis: vec![platform.api(0)],
        from_domain: platform.tenant.domain.clone(),
    };
    let sending = load.start();
    for number in 1..=kill_count {
        sink.has_dots_within(count * number / (kill_count + 1), RUN_PATIENCE)
            .await;
        tokio::task::block_in_place(|| {
            platform.cluster.kill();
            platform.cluster.start_again();
        });
    }
    let sent = sending.finish(RUN_PATIENCE).await;
    ledger::settled(&platform.pool, RUN_PATIENCE).await;
    let audit = Audit::of(&platform, &sent, &sink, &[]).await;
    eprintln!(
        "{kill_count} kills of PostgreSQL: {audit}; {} answers 503",
        sent.unavailable
    );
    assert_eq!((audit.in_doubt, audit.duplicates), (0, 0));
    assert_eq!(sent.without_retry_after, 0, "503 without Retry-After");
    assert_eq!(sent.broken, 0, "requests without an answer");
}
