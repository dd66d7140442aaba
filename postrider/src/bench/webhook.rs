//! Somebody who is told of every delivery: makes the endpoint, and waits until it has been called
//! for everything that was delivered.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use hyper::StatusCode;
use serde_json::json;
use service::shutdown::Shutdown;

use super::children::SinkWatch;
use super::connection::Connection;
use super::own_platform::OwnPlatform;

/// Calls that stop coming for so long do not come.
const STILL_PATIENCE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(100);

/// Subscribes the receiver of the platform, if it has one, to what is delivered.
///
/// # Errors
/// The platform does not take the endpoint.
pub(super) async fn subscribe(platform: &OwnPlatform) -> anyhow::Result<()> {
    let Some(url) = platform.webhook_url() else {
        return Ok(());
    };
    let target = platform.target()?;
    let path = target.path("/v1/webhooks")?;
    let body = json!({"url": url, "events": ["email.delivered"]}).to_string();
    let (status, said) = Connection::new(target)
        .post(&path, &platform.key, body.into_bytes())
        .await
        .context("could not make the webhook endpoint")?;
    ensure!(
        status == StatusCode::CREATED,
        "the platform refused the webhook endpoint: {status} {}",
        String::from_utf8_lossy(&said)
    );
    Ok(())
}

/// Returns when so many calls have come in all, or nothing more comes; how many there are.
///
/// # Errors
/// The receiver is gone.
pub(super) async fn wait_for(
    receiver: &mut SinkWatch,
    wanted: u64,
    stop: &Shutdown,
) -> anyhow::Result<u64> {
    let (mut calls, mut moved) = (0, Instant::now());
    loop {
        let now = receiver.stats().await?.webhook_calls;
        if now > calls {
            (calls, moved) = (now, Instant::now());
        }
        if now >= wanted || stop.is_requested() {
            return Ok(now);
        }
        if moved.elapsed() > STILL_PATIENCE {
            eprintln!("bench: no more webhook calls come; {now} of {wanted} came");
            return Ok(now);
        }
        tokio::time::sleep(POLL).await;
    }
}
