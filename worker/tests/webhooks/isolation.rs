//! An endpoint that hangs, one that answers 500 and one that redirects to a metadata address: what
//! they cost an endpoint beside them, measured against a run without them.

use std::time::{Duration, Instant};

use mail::event::EventType;
use store::Account;

use crate::common::{Platform, Receiver, Reply};

/// Deliveries whose delay is measured, each sent when the one before has arrived.
const SAMPLES: usize = 15;
/// The delay may be so many times that of the run without bad neighbours: machines are busy.
const RATIO_MAX: f64 = 3.0;
/// Below this a ratio says nothing: a read of the log comes every quarter of a second.
const DELAY_FLOOR: Duration = Duration::from_millis(250);

/// The median time from commit to arrival.
async fn delay(platform: &Platform, account: &Account, receiver: &Receiver) -> Duration {
    let mut delays = Vec::new();
    for _ in 0..SAMPLES {
        let arrived = receiver.events().len();
        let sent = Instant::now();
        platform.send_for(account, 1).await;
        receiver.has_events(arrived + 1).await;
        delays.push(sent.elapsed());
    }
    delays.sort();
    delays[SAMPLES / 2]
}

fn assert_no_worse(alone: Duration, beside: Duration) {
    let ratio = beside.as_secs_f64() / alone.max(DELAY_FLOOR).as_secs_f64();
    assert!(
        ratio < RATIO_MAX,
        "{alone:?} alone, {beside:?} beside bad ones"
    );
}

async fn good_and_bad(platform: &Platform, good: &Account, bad: &Account) {
    let receiver = Receiver::start(|_| Reply::Status(200)).await;
    let kinds = [EventType::EmailQueued];
    platform.endpoint_for(good, &receiver.url, &kinds).await;
    let worker = platform.worker();
    platform.send_for(good, 1).await;
    receiver.has_events(1).await;
    let alone = delay(platform, good, &receiver).await;

    let trap = Receiver::start(|_| Reply::Status(200)).await;
    let to = trap.url.clone();
    let bad_ones = [
        Receiver::start(|_| Reply::Never).await,
        Receiver::start(|_| Reply::Status(500)).await,
        Receiver::start(|_| Reply::RedirectTo("http://169.254.169.254/latest/meta-data/".into()))
            .await,
        Receiver::start(move |_| Reply::RedirectTo(to.clone())).await,
    ];
    for one in &bad_ones {
        platform.endpoint_for(bad, &one.url, &kinds).await;
    }
    // A backlog of theirs too.
    platform.send_for(bad, 300).await;
    for one in &bad_ones {
        one.has_calls(1).await;
    }
    let beside = delay(platform, good, &receiver).await;
    assert_no_worse(alone, beside);
    assert!(trap.calls().is_empty(), "a redirect was followed");
    worker.stop().await;
}

#[tokio::test]
async fn bad_endpoints_do_not_delay_another_of_their_account() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    good_and_bad(&platform, &platform.account, &platform.account).await;
}

#[tokio::test]
async fn bad_endpoints_do_not_delay_another_account() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let other = platform.other_account().await;
    good_and_bad(&platform, &platform.account, &other).await;
}
