//! A sender of many messages that behaves as the documentation asks: it retries what was not
//! accepted, with the same Idempotency-Key.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::api::Api;

const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// Recipient domains, so that there are several sites.
const DOMAINS: usize = 5;

/// What to send.
#[derive(Clone, Debug)]
pub struct Load {
    /// Number of messages.
    pub count: usize,
    /// How many senders work at a time.
    pub senders: usize,
    /// The interfaces, used in turn.
    pub apis: Vec<Api>,
    /// Domain of the From address.
    pub from_domain: String,
}

/// What became of it.
#[derive(Debug, Default)]
pub struct Sent {
    /// `X-Test-Id` of every message and the message id it was accepted under.
    pub accepted: HashMap<String, Uuid>,
    /// Answers 503.
    pub unavailable: usize,
    /// Answers 503 without Retry-After.
    pub without_retry_after: usize,
    /// Requests that nobody answered.
    pub broken: usize,
}

/// A load under way.
pub struct Sending {
    senders: JoinSet<Sent>,
    accepted: watch::Receiver<usize>,
}

impl Load {
    /// Starts sending.
    pub fn start(self) -> Sending {
        let (next, load) = (Arc::new(AtomicUsize::new(0)), Arc::new(self));
        let (accepted, watching) = watch::channel(0);
        let mut senders = JoinSet::new();
        for _ in 0..load.senders {
            let (next, load, accepted) = (next.clone(), load.clone(), accepted.clone());
            senders.spawn(async move {
                let mut sent = Sent::default();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= load.count {
                        return sent;
                    }
                    send_one(&load, number, &mut sent).await;
                    accepted.send_modify(|accepted| *accepted += 1);
                }
            });
        }
        Sending {
            senders,
            accepted: watching,
        }
    }
}

impl Sending {
    /// Waits until this many messages were accepted.
    pub async fn has_accepted(&mut self, count: usize) {
        self.accepted
            .wait_for(|accepted| *accepted >= count)
            .await
            .unwrap();
    }

    /// Waits until every message was accepted.
    pub async fn finish(mut self, patience: Duration) -> Sent {
        let mut all = Sent::default();
        let collect = async {
            while let Some(sent) = self.senders.join_next().await {
                let sent = sent.unwrap();
                all.accepted.extend(sent.accepted);
                all.unavailable += sent.unavailable;
                all.without_retry_after += sent.without_retry_after;
                all.broken += sent.broken;
            }
        };
        let finished = tokio::time::timeout(patience, collect).await;
        assert!(
            finished.is_ok(),
            "not everything was accepted within {patience:?}"
        );
        all
    }
}

async fn send_one(load: &Load, number: usize, sent: &mut Sent) {
    let id = format!("t-{number}");
    let body = body(load, number, &id);
    for turn in number.. {
        let api = &load.apis[turn % load.apis.len()];
        let request = api
            .request(Method::POST, "/v1/emails")
            .header("Idempotency-Key", &id);
        match api.ask(request.json(&body)).await {
            Err(_) => sent.broken += 1,
            Ok(answer) if answer.status == 503 => {
                sent.unavailable += 1;
                sent.without_retry_after += usize::from(answer.header("retry-after").is_empty());
            }
            Ok(answer) => {
                assert_eq!(answer.status, 202, "{answer:?}");
                let message = answer.json()["id"].as_str().unwrap().to_owned();
                let message: mail::ids::MessageId = message.parse().unwrap();
                sent.accepted.insert(id, message.uuid());
                return;
            }
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

fn body(load: &Load, number: usize, id: &str) -> Value {
    json!({
        "from": format!("Acme <hello@{}>", load.from_domain),
        "to": [format!("user{number}@d{}.sink.test", number % DOMAINS)],
        "subject": format!("Number {number}"),
        "text": format!("This is number {number}.\n"),
        "headers": {"X-Test-Id": id},
    })
}
