//! A node that is asked to stop finishes what is in flight: it ends in time and with success, and
//! leaves nothing in doubt.

use std::time::{Duration, Instant};

use tests::audit::Audit;
use tests::load::Load;
use tests::platform::Platform;
use tests::sink::Sink;
use tests::{full, ledger, take_turn};

const RUN_PATIENCE: Duration = Duration::from_secs(300);
const STOP_PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_node_leaves_nothing_in_doubt() {
    let _turn = take_turn();
    let (count, stop_count) = if full() { (3_000, 10) } else { (600, 3) };
    let sink = Sink::options().latency_ms(0..=100).start().await;
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
    for number in 1..=stop_count {
        sink.has_dots_within(count * number / (stop_count + 1), RUN_PATIENCE)
            .await;
        let asked = Instant::now();
        let status = tokio::task::block_in_place(|| platform.nodes[0].terminate(STOP_PATIENCE));
        let status = status.expect("the node did not stop in time");
        assert!(status.success(), "the node ended with {status}");
        let open = ledger::open_intents(&platform.pool).await;
        assert!(open.is_empty(), "intents are left open: {open:?}");
        eprintln!("stopped within {:?}", asked.elapsed());
        platform.nodes[0].restart().await;
    }
    let sent = sending.finish(RUN_PATIENCE).await;
    ledger::settled(&platform.pool, RUN_PATIENCE).await;
    let audit = Audit::of(&platform, &sent, &sink, &[]).await;
    eprintln!("{stop_count} stops: {audit}");
    assert_eq!((audit.in_doubt, audit.duplicates), (0, 0));
}
