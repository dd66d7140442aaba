//! An HTTP server that takes webhook calls, keeps them, and answers as it is told.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use axum::{Router, routing};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use super::PATIENCE;

/// One call as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Received {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap().to_str().unwrap()
    }
}

/// What to answer.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    Status(u16),
    Body(u16, &'static str),
    RedirectTo(String),
    After(Duration, u16),
    /// Once it is told to.
    Once(Arc<Notify>, u16),
    Never,
}

#[derive(Clone)]
struct Desk {
    calls: watch::Sender<Vec<Received>>,
    /// By the number of calls before this one.
    replies: Arc<dyn Fn(usize) -> Reply + Send + Sync>,
}

pub(crate) struct Receiver {
    pub(crate) url: String,
    calls: watch::Sender<Vec<Received>>,
    server: JoinHandle<()>,
}

impl Receiver {
    pub(crate) async fn start(replies: impl Fn(usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let calls = watch::Sender::default();
        let desk = Desk {
            calls: calls.clone(),
            replies: Arc::new(replies),
        };
        let app = Router::new()
            .route("/hook", routing::post(take))
            .with_state(desk);
        let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { url, calls, server }
    }

    pub(crate) fn calls(&self) -> Vec<Received> {
        self.calls.borrow().clone()
    }

    /// The different event ids that arrived.
    pub(crate) fn events(&self) -> HashSet<String> {
        self.calls
            .borrow()
            .iter()
            .map(|call| call.header("webhook-id").to_owned())
            .collect()
    }

    /// Waits for this many calls, and returns all there are by then.
    pub(crate) async fn has_calls(&self, count: usize) -> Vec<Received> {
        self.becomes(|calls| calls.len() >= count).await
    }

    /// Waits for this many different events.
    pub(crate) async fn has_events(&self, count: usize) {
        self.becomes(|calls| {
            let ids = calls.iter().map(|call| call.header("webhook-id"));
            calls.len() >= count && ids.collect::<HashSet<_>>().len() >= count
        })
        .await;
    }

    /// Waits until the calls are as wanted.
    pub(crate) async fn becomes(&self, done: impl Fn(&Vec<Received>) -> bool) -> Vec<Received> {
        let mut calls = self.calls.subscribe();
        // What it answers holds the lock, which a call that comes now would wait for, and we for it.
        let waited = tokio::time::timeout(PATIENCE, calls.wait_for(done))
            .await
            .is_ok();
        assert!(waited, "only {} calls arrived", self.calls().len());
        self.calls()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn take(State(desk): State<Desk>, headers: HeaderMap, body: Bytes) -> Response {
    let mut before = 0;
    desk.calls.send_modify(|calls| {
        before = calls.len();
        calls.push(Received { headers, body });
    });
    let status = match (desk.replies)(before) {
        Reply::Status(status) => status,
        Reply::Body(status, body) => {
            return (StatusCode::from_u16(status).unwrap(), body).into_response();
        }
        Reply::RedirectTo(url) => return Redirect::temporary(&url).into_response(),
        Reply::Once(told, status) => {
            told.notified().await;
            status
        }
        Reply::After(pause, status) => {
            tokio::time::sleep(pause).await;
            status
        }
        Reply::Never => std::future::pending().await,
    };
    StatusCode::from_u16(status).unwrap().into_response()
}
