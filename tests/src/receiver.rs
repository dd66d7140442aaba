//! An HTTP server that takes webhook calls and checks their signatures by itself, from the
//! Standard Webhooks text: HMAC-SHA256 over `id.timestamp.body`.

use std::future::pending;
use std::time::Duration;

use aws_lc_rs::hmac;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Router, routing};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::{PATIENCE, place};

/// How calls are answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Manner {
    /// With this status.
    Status(u16),
    /// With this status, after so long.
    Slowly(Duration, u16),
    /// With 307 and this place to go to instead.
    RedirectsTo(String),
    /// Never.
    Hangs,
}

/// One call as it arrived.
#[derive(Clone, Debug)]
pub struct Call {
    /// All header fields.
    pub headers: HeaderMap,
    /// The body, byte for byte.
    pub body: Bytes,
    /// The status it was answered with.
    pub answered: u16,
}

impl Call {
    /// A header field; empty when it is not there.
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// `type` of the event.
    pub fn kind(&self) -> String {
        self.json()["type"].as_str().unwrap().to_owned()
    }

    /// Whether one of the `v1` signatures fits the secret (`whsec_…`), under the header names
    /// `<prefix>-id`, `<prefix>-timestamp` and `<prefix>-signature`.
    pub fn is_signed(&self, prefix: &str, secret: &str) -> bool {
        let field = |name: &str| self.header(&format!("{prefix}-{name}")).to_owned();
        let key = STANDARD
            .decode(secret.strip_prefix("whsec_").unwrap())
            .unwrap();
        let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
        let mut text = format!("{}.{}.", field("id"), field("timestamp")).into_bytes();
        text.extend_from_slice(&self.body);
        let signatures = field("signature");
        let mut signatures = signatures
            .split(' ')
            .filter_map(|one| one.strip_prefix("v1,"));
        signatures.any(|one| {
            STANDARD
                .decode(one)
                .is_ok_and(|tag| hmac::verify(&key, &text, &tag).is_ok())
        })
    }
}

/// The server. Ends when dropped.
pub struct WebhookReceiver {
    /// Where to call.
    pub url: String,
    manner: watch::Sender<Manner>,
    calls: watch::Sender<Vec<Call>>,
    server: JoinHandle<()>,
}

#[derive(Clone)]
struct Desk {
    manner: watch::Receiver<Manner>,
    calls: watch::Sender<Vec<Call>>,
}

impl WebhookReceiver {
    /// Starts one that answers 200.
    pub async fn start() -> Self {
        let listener = TcpListener::bind(place::free_address()).await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let (manner, calls) = (
            watch::Sender::new(Manner::Status(200)),
            watch::Sender::default(),
        );
        let desk = Desk {
            manner: manner.subscribe(),
            calls: calls.clone(),
        };
        let app = Router::new()
            .route("/hook", routing::post(take))
            .with_state(desk);
        let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self {
            url,
            manner,
            calls,
            server,
        }
    }

    /// Answers differently from now on.
    pub fn behave(&self, manner: Manner) {
        self.manner.send_replace(manner);
    }

    /// All calls so far.
    pub fn calls(&self) -> Vec<Call> {
        self.calls.borrow().clone()
    }

    /// Waits until the calls are as wanted, and returns them.
    pub async fn has(&self, what: &str, wanted: impl Fn(&[Call]) -> bool) -> Vec<Call> {
        let mut calls = self.calls.subscribe();
        // What it answers holds the lock, which a call that comes now would wait for, and we for it.
        let waited = tokio::time::timeout(PATIENCE, calls.wait_for(|calls| wanted(calls)))
            .await
            .is_ok();
        let kinds = || self.calls().iter().map(Call::kind).collect::<Vec<_>>();
        assert!(waited, "not called so that {what}; calls: {:?}", kinds());
        self.calls()
    }
}

impl Drop for WebhookReceiver {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn take(State(desk): State<Desk>, headers: HeaderMap, body: Bytes) -> Response {
    let manner = desk.manner.borrow().clone();
    let answered = match manner {
        Manner::Status(status) | Manner::Slowly(_, status) => status,
        Manner::RedirectsTo(_) => StatusCode::TEMPORARY_REDIRECT.as_u16(),
        Manner::Hangs => 0,
    };
    desk.calls.send_modify(|calls| {
        calls.push(Call {
            headers,
            body,
            answered,
        })
    });
    match manner {
        Manner::Status(_) => {}
        Manner::Slowly(pause, _) => tokio::time::sleep(pause).await,
        Manner::RedirectsTo(place) => {
            let location = [(header::LOCATION, place)];
            return (StatusCode::TEMPORARY_REDIRECT, location).into_response();
        }
        Manner::Hangs => pending().await,
    }
    StatusCode::from_u16(answered).unwrap().into_response()
}
