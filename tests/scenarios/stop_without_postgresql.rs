//! A node that is asked to stop while it cannot reach PostgreSQL ends in time and takes along what
//! it knows: started again on the same directory it settles what it had read, and sends nothing of
//! that twice.

#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use mail::ids::MessageId;
use serde_json::json;
use tests::api::message;
use tests::audit::{Audit, Kill};
use tests::load::{Load, Sent};
use tests::platform::Platform;
use tests::sink::Sink;
use tests::{PATIENCE, full, ledger, take_turn, until};

const RUN_PATIENCE: Duration = Duration::from_secs(300);
/// 30 s for sessions, 10 s for outcomes, and before, between and after them the patience with a
/// statement that nobody answers.
const STOP_PATIENCE: Duration = Duration::from_secs(90);
/// Final dots that wait when PostgreSQL goes: one in doubt, the others answered in the dark.
const WAITING: usize = 6;

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_without_postgresql_ends_in_time_and_forgets_nothing() {
    let _turn = take_turn();
    let sink = Sink::options().start().await;
    let builder = Platform::builder()
        .route("*", sink.address)
        .leases(3, 600)
        .deadline_secs(120)
        .node("front", "api,worker")
        .node_behind_proxy("shaky", "mta");
    let Some(mut platform) = builder.start().await else {
        return;
    };
    let mut sent = warm_up(&platform).await;
    sink.hang("shaky.test");
    let ids = send_more(&platform, &mut sent).await;
    let answered = || {
        let receipts = sink.receipts().into_iter();
        receipts.filter(|one| one.answered_at.is_some()).count()
    };
    sink.has_dots(sent.accepted.len()).await;
    let (in_doubt, in_the_dark) = ids.split_first().unwrap();

    platform.proxy.as_ref().unwrap().cut();
    sink.hang_up_on(in_doubt);
    sink.answer();
    let all_but_one = sent.accepted.len() - 1;
    until("the others are answered", PATIENCE, || async {
        (answered() == all_but_one).then_some(())
    })
    .await;
    let asked = Instant::now();
    let status = tokio::task::block_in_place(|| platform.node("shaky").terminate(STOP_PATIENCE));
    let status = status.expect("the node did not stop in time");
    assert!(status.success(), "the node ended with {status}");
    eprintln!("stopped within {:?}", asked.elapsed());

    let stop = mend(&platform).await;
    assert_eq!(stop.open.len(), WAITING, "only the journal knows");
    platform.node("shaky").restart().await;
    ledger::settled(&platform.pool, RUN_PATIENCE).await;
    let audit = Audit::of(&platform, &sent, &sink, &[stop]).await;
    eprintln!("{audit}");
    assert_eq!(
        (audit.in_doubt, audit.duplicates, audit.held),
        (1, 1, 0),
        "one was in doubt and is sent again"
    );
    let fates = ledger::fates(&platform.pool).await;
    for id in in_the_dark {
        let fate = &fates[&sent.accepted[id]];
        assert_eq!(fate.in_doubt, 0, "{id}: its 250 had been read: {fate:?}");
    }
    assert_eq!(fates[&sent.accepted[in_doubt]].in_doubt, 1);
}

/// Mail enough for the site to earn as many connections as dots have to wait.
async fn warm_up(platform: &Platform) -> Sent {
    let load = Load {
        count: if full() { 2_000 } else { 300 },
        senders: 16,
        apis: vec![platform.api(0)],
        from_domain: platform.tenant.domain.clone(),
    };
    let sent = load.start().finish(RUN_PATIENCE).await;
    ledger::settled(&platform.pool, RUN_PATIENCE).await;
    sent
}

/// Sends the mail that will wait for its answers; its test ids.
async fn send_more(platform: &Platform, sent: &mut Sent) -> Vec<String> {
    let api = platform.api(0);
    let mut ids = Vec::new();
    for number in 0..WAITING {
        let id = format!("w-{number}");
        let mut body = message(&platform.tenant.domain, &format!("{id}@sink.test"));
        body["headers"] = json!({"X-Test-Id": id});
        let accepted: MessageId = api.send(&body).await.parse().unwrap();
        sent.accepted.insert(id.clone(), accepted.uuid());
        ids.push(id);
    }
    ids
}

/// Makes the wire whole; what the node had put on it in vain stays lost. What was open then.
async fn mend(platform: &Platform) -> Kill {
    let at = Instant::now();
    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
               WHERE application_name = 'postrider shaky'";
    let ended: i64 = sqlx::query_scalar(end)
        .fetch_one(&platform.pool)
        .await
        .unwrap();
    assert!(ended > 0, "nothing was on the wire");
    let open = ledger::open_intents_of_dead(&platform.pool, "shaky").await;
    platform.proxy.as_ref().unwrap().heal();
    Kill { at: Some(at), open }
}
