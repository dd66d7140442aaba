//! Two nodes share a queue. When one is gone for good, or cannot reach PostgreSQL, the other
//! delivers everything, and nothing twice but what nobody could know about.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use tests::audit::{Audit, Kill};
use tests::load::{Load, Sending, Sent};
use tests::platform::{Platform, PlatformBuilder};
use tests::sink::Sink;
use tests::{PATIENCE, full, ledger, take_turn, until};

const RUN_PATIENCE: Duration = Duration::from_secs(300);

fn count() -> usize {
    if full() { 5_000 } else { 600 }
}

fn send(platform: &Platform) -> Sending {
    let load = Load {
        count: count(),
        senders: 8,
        apis: vec![platform.api(0)],
        from_domain: platform.tenant.domain.clone(),
    };
    load.start()
}

/// Mail comes in through a process that stays; two more send it. Both have shards before anything
/// is sent.
async fn start(builder: PlatformBuilder) -> Option<Platform> {
    let builder = builder.node("front", "api,worker").node("steady", "mta");
    let mut platform = builder.node_behind_proxy("shaky", "mta").start().await?;
    for name in ["steady", "shaky"] {
        let node = &*platform.node(name);
        until(&format!("{name} owns shards"), PATIENCE, || async {
            (node.metric("postrider_shards_owned").await >= 1.0).then_some(())
        })
        .await;
    }
    Some(platform)
}

async fn finish(
    platform: &Platform,
    sending: Sending,
    sink: &Sink,
    kills: &[Kill],
) -> (Audit, Sent) {
    let sent = sending.finish(RUN_PATIENCE).await;
    ledger::settled(&platform.pool, RUN_PATIENCE).await;
    let audit = Audit::of(platform, &sent, sink, kills).await;
    eprintln!("{audit}");
    (audit, sent)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_other_node_delivers_what_a_dead_node_left() {
    let _turn = take_turn();
    let sink = Sink::options().latency_ms(0..=50).start().await;
    let (lease_ttl, hold) = if full() { (15, 60) } else { (3, 6) };
    let builder = Platform::builder()
        .route("*", sink.address)
        .leases(lease_ttl, hold);
    let Some(mut platform) = start(builder).await else {
        return;
    };
    let sending = send(&platform);
    sink.has_dots_within(count() / 3, RUN_PATIENCE).await;
    let at = Some(platform.node("shaky").kill());
    let open = ledger::open_intents_of_dead(&platform.pool, "shaky").await;
    let (audit, _) = finish(&platform, sending, &sink, &[Kill { at, open }]).await;
    assert_eq!(audit.held, 0);
    let counter = "postrider_ambiguous_deliveries_total";
    let counted = platform.node("steady").metric(counter).await;
    assert_eq!(counted, ledger::doubts(&platform.pool).await.len() as f64);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_cut_off_node_learned_is_settled_when_it_is_back() {
    let _turn = take_turn();
    let sink = Sink::options().latency_ms(0..=20).start().await;
    let (lease_ttl, cut) = if full() { (15, 60) } else { (3, 8) };
    // The hold outlasts the cut: what the node knows is handed in, and nothing stays in doubt.
    let builder = Platform::builder()
        .route("*", sink.address)
        .leases(lease_ttl, 600);
    let Some(mut platform) = start(builder.deadline_secs(120)).await else {
        return;
    };
    let sending = send(&platform);
    sink.has_dots_within(count() / 4, RUN_PATIENCE).await;
    sink.hang("shaky.test");
    let waiting = || {
        let receipts = sink.receipts().into_iter();
        let waiting = receipts.filter(|one| one.helo == "shaky.test" && one.answered_at.is_none());
        waiting.map(|one| one.id).collect::<Vec<_>>()
    };
    until("dots of the shaky node wait", PATIENCE, || async {
        (waiting().len() >= 5).then_some(())
    })
    .await;
    platform.proxy.as_ref().unwrap().cut();
    tokio::time::sleep(Duration::from_secs(cut)).await;
    let answered_in_the_dark = waiting();
    // Its shards have lapsed and are the other node's by now; only then the receiver answers.
    let steady = &*platform.node("steady");
    until("the other node owns all shards", PATIENCE, || async {
        (steady.metric("postrider_shards_owned").await >= 16.0).then_some(())
    })
    .await;
    sink.answer();
    until("the answers are written", PATIENCE, || async {
        waiting().is_empty().then_some(())
    })
    .await;
    // What was noted and whose answer the cut swallowed was never sent, and is open all the same.
    let open = ledger::open_intents(&platform.pool).await;
    platform.proxy.as_ref().unwrap().heal();
    let (audit, sent) = finish(&platform, sending, &sink, &[Kill { at: None, open }]).await;
    assert_eq!((audit.duplicates, audit.held), (0, 0));
    let fates = ledger::fates(&platform.pool).await;
    for id in &answered_in_the_dark {
        let fate = &fates[&sent.accepted[id]];
        assert_eq!(
            fate.in_doubt, 0,
            "{id}: the node had read its 250: {fate:?}"
        );
    }
    eprintln!("{} outcomes were handed in", answered_in_the_dark.len());
}
