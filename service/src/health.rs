//! The three addresses that operators' machines ask: alive, ready, metrics.
//! Knows no role: what ready means is handed in as a list of checks.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;

use crate::metrics::{Metrics, TEXT_CONTENT_TYPE};

/// Longest time one check may take. Balancers ask every few seconds and do not wait longer.
const CHECK_PATIENCE: Duration = Duration::from_secs(2);

type Answer = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

/// One condition of readiness.
#[derive(Clone)]
pub struct Check {
    name: &'static str,
    probe: Arc<dyn Fn() -> Answer + Send + Sync>,
}

impl Check {
    /// A condition named `name`. `probe` answers `Err` with the reason, which is shown to
    /// whoever asks: no addresses, no secrets.
    pub fn new<P, F>(name: &'static str, probe: P) -> Self
    where
        P: Fn() -> F + Send + Sync + 'static,
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        Self {
            name,
            probe: Arc::new(move || Box::pin(probe())),
        }
    }

    async fn ask(&self) -> Result<(), String> {
        match tokio::time::timeout(CHECK_PATIENCE, (self.probe)()).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer within {} s", CHECK_PATIENCE.as_secs())),
        }
    }
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Check")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

#[derive(Clone)]
struct Health {
    metrics: Arc<Metrics>,
    checks: Arc<[Check]>,
}

/// `GET /healthz` (200 while the process runs), `/readyz` (200, or 503 and the failing checks)
/// and `/metrics`.
pub fn router(metrics: Arc<Metrics>, checks: Vec<Check>) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(render_metrics))
        .with_state(Health {
            metrics,
            checks: checks.into(),
        })
}

async fn ready(State(health): State<Health>) -> impl IntoResponse {
    let mut status = StatusCode::OK;
    let mut lines = String::new();
    for check in health.checks.iter() {
        let line = match check.ask().await {
            Ok(()) => format!("{}: ok\n", check.name),
            Err(reason) => {
                status = StatusCode::SERVICE_UNAVAILABLE;
                format!("{}: {reason}\n", check.name)
            }
        };
        lines.push_str(&line);
    }
    (status, lines)
}

async fn render_metrics(State(health): State<Health>) -> impl IntoResponse {
    (
        [(header::CONTENT_TYPE, TEXT_CONTENT_TYPE)],
        health.metrics.render(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use tower::ServiceExt;

    async fn ask(router: Router, path: &str) -> (StatusCode, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let answer = router.oneshot(request).await.unwrap();
        let status = answer.status();
        let body = to_bytes(answer.into_body(), 1 << 20).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    fn router_with(checks: Vec<Check>) -> Router {
        let metrics = Arc::new(Metrics::new());
        metrics.counter("sends_total", "Sends.").unwrap().inc();
        router(metrics, checks)
    }

    #[tokio::test]
    async fn alive_and_metrics_answer_whatever_the_checks_say() {
        let broken = || router_with(vec![Check::new("x", async || Err("down".to_owned()))]);
        assert_eq!(
            ask(broken(), "/healthz").await,
            (StatusCode::OK, "ok\n".to_owned())
        );
        let (status, text) = ask(broken(), "/metrics").await;
        assert_eq!(status, StatusCode::OK);
        assert!(text.contains("postrider_sends_total 1"), "{text}");
    }

    #[tokio::test]
    async fn ready_names_the_checks_that_fail() {
        let ok = Check::new("redis", async || Ok(()));
        let bad = Check::new("postgresql", async || Err("connection refused".to_owned()));
        assert_eq!(
            ask(router_with(vec![ok.clone()]), "/readyz").await.0,
            StatusCode::OK
        );
        let (status, text) = ask(router_with(vec![ok, bad]), "/readyz").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(text, "redis: ok\npostgresql: connection refused\n");
    }

    #[tokio::test]
    async fn a_check_that_hangs_is_not_ready() {
        let hangs = Check::new("postgresql", std::future::pending);
        let (status, text) = ask(router_with(vec![hangs]), "/readyz").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(text.contains("no answer within 2 s"), "{text}");
    }
}
