//! A node that is killed again and again loses no mail and sends none twice but what it could not
//! know about; and nothing at all twice where the sender asked for that.

use std::time::{Duration, Instant};

use tests::audit::{Audit, Kill};
use tests::load::Load;
use tests::platform::Platform;
use tests::sink::Sink;
use tests::{full, ledger, take_turn};

/// From the start of the process to the first final dot.
const FIRST_DELIVERY_MAX: Duration = Duration::from_secs(5);
const RUN_PATIENCE: Duration = Duration::from_secs(300);

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_node_loses_nothing_and_repeats_only_what_was_in_doubt() {
    let Some(audit) = run(false).await else {
        return;
    };
    assert_eq!(audit.held, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_policy_hold_nothing_arrives_twice() {
    let Some(audit) = run(true).await else { return };
    assert_eq!(audit.duplicates, 0);
}

async fn run(hold: bool) -> Option<Audit> {
    let _turn = take_turn();
    let (count, kill_count) = if full() { (5_000, 20) } else { (1_000, 6) };
    let sink = Sink::options().latency_ms(0..=50).start().await;
    let mut platform = Platform::builder().route("*", sink.address).start().await?;
    if hold {
        platform.tenant.hold_when_ambiguous(&platform.pool).await;
    }
    let load = Load {
        count,
        senders: 16,
        apis: vec![platform.api(0)],
        from_domain: platform.tenant.domain.clone(),
    };
    let sending = load.start();
    let mut kills = Vec::new();
    let mut slowest = Duration::ZERO;
    let mut doubts_before = 0;
    for number in 1..=kill_count {
        sink.has_dots_within(count * number / (kill_count + 1), RUN_PATIENCE)
            .await;
        let at = Some(platform.nodes[0].kill());
        let open = ledger::open_intents_of_dead(&platform.pool, &platform.nodes[0].file.name).await;
        doubts_before = ledger::doubts(&platform.pool).await.len();
        kills.push(Kill { at, open });
        let dots = sink.dots();
        platform.nodes[0].launch();
        let started = Instant::now();
        sink.has_dots(dots + 1).await;
        slowest = slowest.max(started.elapsed());
        platform.nodes[0].ready().await;
    }
    let sent = sending.finish(RUN_PATIENCE).await;
    ledger::settled(&platform.pool, RUN_PATIENCE).await;
    let audit = Audit::of(&platform, &sent, &sink, &kills).await;
    let open: usize = kills.iter().map(|kill| kill.open.len()).sum();
    eprintln!(
        "{kill_count} kills: {audit}; of {open} open intents the journal knew the others; slowest \
         first delivery after a restart: {slowest:?}; {} requests broken, {} answered 503",
        sent.broken, sent.unavailable
    );
    // The counter starts anew with the process.
    let doubts = ledger::doubts(&platform.pool).await.len() - doubts_before;
    let counter = "postrider_ambiguous_deliveries_total";
    assert_eq!(platform.nodes[0].metric(counter).await, doubts as f64);
    assert!(
        slowest <= FIRST_DELIVERY_MAX,
        "first delivery after a restart: {slowest:?}"
    );
    Some(audit)
}
