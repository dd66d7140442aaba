//! The harness of the scenarios: the real program as child processes on a real PostgreSQL and
//! Redis, SMTP sinks and a webhook receiver that share no code with it.
//!
//! Knows no promise: those are in `scenarios/`, one a file. Whatever goes wrong in here fails the
//! test at its place, with the logs of the processes behind it.

#![allow(
    clippy::unwrap_used,
    reason = "a harness: what is unexpected has to fail the test"
)]

pub mod api;
pub mod audit;
pub mod browser;
pub mod cluster;
pub mod dev;
pub mod dns;
pub mod ledger;
pub mod load;
pub mod node;
pub mod node_file;
pub mod peer;
pub mod place;
pub mod platform;
pub mod postfix;
pub mod program;
pub mod proxy;
pub mod python;
pub mod receiver;
pub mod signatures;
pub mod sink;
mod sink_session;
pub mod tenant;

use std::env;
use std::fs::File;
use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How long something that must happen may take before the test fails.
pub const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(25);

/// Whether the long variants of the scenarios are wanted (`POSTRIDER_FULL=1`).
pub fn full() -> bool {
    env::var("POSTRIDER_FULL").is_ok_and(|value| value == "1")
}

/// Asks again and again until there is an answer; `what` is named when there is none in time.
pub async fn until<T, F>(what: &str, patience: Duration, mut ask: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let deadline = Instant::now() + patience;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "not within {patience:?}: {what}");
        sleep(POLL).await;
    }
}

/// Waits until no other scenario that measures time or loads the machine runs. The turn ends when
/// the value is dropped, or with the process.
pub fn take_turn() -> File {
    // Beside the tests themselves: whoever could build them can lock it.
    let path = env::current_exe().unwrap().with_file_name("scenarios.lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .unwrap();
    file.lock().unwrap();
    file
}
