//! Puts very many deliveries into the queue in a short time: a thousand a request, which share
//! their content.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, bail, ensure};
use hyper::StatusCode;
use serde_json::json;
use service::shutdown::Shutdown;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::task::JoinSet;

use super::super::connection::{Authorization, Connection};
use super::super::own_platform::OwnPlatform;

/// Messages of one request: as many as the interface takes.
const MESSAGES: u64 = 1_000;
const CONNECTIONS: u64 = 4;
/// Every so many requests something is said.
const SAID_EVERY: u64 = 50;
const TEXT: &str = "This message waits in the queue so that others are sent beside it.\r\n";

/// What to queue.
#[derive(Clone)]
pub(super) struct Fill {
    pub(super) key: Authorization,
    pub(super) from: String,
    /// Where all of it goes.
    pub(super) to_domain: String,
    /// When; none: now.
    pub(super) send_at: Option<OffsetDateTime>,
    pub(super) deliveries: u64,
}

impl Fill {
    /// Queues it all.
    ///
    /// # Errors
    /// The platform refuses it or does not answer.
    pub(super) async fn run(self, platform: &OwnPlatform, stop: &Shutdown) -> anyhow::Result<()> {
        let (next, done) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let requests = self.deliveries.div_ceil(MESSAGES);
        let target = platform.target()?;
        let path = target.path("/v1/emails/batch")?;
        let mut loops = JoinSet::new();
        for _ in 0..CONNECTIONS {
            let (fill, next, done, stop) = (self.clone(), next.clone(), done.clone(), stop.clone());
            let (mut connection, path) = (Connection::new(target.clone()), path.clone());
            loops.spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= requests {
                        return Ok(());
                    }
                    ensure!(!stop.is_requested(), "stopped while the queue was filled");
                    let first = number * MESSAGES;
                    let body = fill.request(first)?;
                    let answer = connection.post(&path, &fill.key, body).await;
                    let (status, said) = answer.context("the queue could not be filled")?;
                    if status != StatusCode::ACCEPTED {
                        let said = String::from_utf8_lossy(&said);
                        bail!("the queue could not be filled: {status} {said}");
                    }
                    let done = done.fetch_add(1, Ordering::Relaxed) + 1;
                    if done.is_multiple_of(SAID_EVERY) || done == requests {
                        eprintln!("bench: {} deliveries queued", done * MESSAGES);
                    }
                }
            });
        }
        while let Some(ended) = loops.join_next().await {
            ended??;
        }
        Ok(())
    }

    fn request(&self, first: u64) -> anyhow::Result<Vec<u8>> {
        let end = self.deliveries.min(first + MESSAGES);
        let to = |number| json!({"to": format!("queued{number}@{}", self.to_domain)});
        let mut defaults = json!({
            "from": self.from,
            "subject": "In the queue",
            "text": TEXT,
        });
        if let Some(send_at) = self.send_at {
            defaults["send_at"] = send_at.format(&Rfc3339)?.into();
        }
        let messages: Vec<_> = (first..end).map(to).collect();
        let body = json!({"defaults": defaults, "messages": messages});
        Ok(body.to_string().into_bytes())
    }
}
