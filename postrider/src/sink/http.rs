//! The sink's HTTP side: `GET /stats` and `GET /series`, `POST /behaviour` to switch it while it
//! runs, and `POST /webhooks` for a platform that is to tell somebody of its events.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use super::latency::{Latency, wait};
use super::reply_mix::ReplyMix;
use super::shared::Shared;
use super::stats::StatsSnapshot;

/// A change of behaviour; what is not named stays as it is.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BehaviourChange {
    /// Towards this domain and all below it only.
    pub(crate) domain: Option<String>,
    /// As `--latency`.
    pub(crate) latency: Option<String>,
    /// As `--replies`.
    pub(crate) replies: Option<String>,
    /// As `--tarpit`.
    pub(crate) tarpit: Option<String>,
    /// Take content, but send no final reply until this is false again. Towards everybody.
    pub(crate) hang: Option<bool>,
}

/// The behaviour now in force towards those that were named.
#[derive(Debug, Serialize)]
struct BehaviourBody {
    latency: String,
    tarpit_ms: u64,
    hang: bool,
}

impl BehaviourChange {
    /// Applies the change, all of it or nothing.
    ///
    /// # Errors
    /// When a field cannot be read, with the reason.
    pub(crate) fn apply(&self, shared: &Shared) -> anyhow::Result<()> {
        let latency = read(&self.latency, str::parse::<Latency>)?;
        let replies = read(&self.replies, str::parse::<ReplyMix>)?;
        let tarpit: Option<Duration> = read(&self.tarpit, wait)?;
        shared.behaviours.send_modify(|now| {
            let now = Arc::make_mut(now);
            now.hang = self.hang.unwrap_or(now.hang);
            let behaviour = match &self.domain {
                Some(domain) => now.of_domain(domain),
                None => &mut now.others,
            };
            behaviour.latency = latency.unwrap_or(behaviour.latency);
            behaviour.tarpit = tarpit.unwrap_or(behaviour.tarpit);
            if let Some(replies) = replies {
                behaviour.replies = replies;
            }
        });
        Ok(())
    }
}

fn read<T>(
    text: &Option<String>,
    parse: impl Fn(&str) -> anyhow::Result<T>,
) -> anyhow::Result<Option<T>> {
    text.as_deref().map(parse).transpose()
}

/// Serves until the sink shuts down.
pub(super) async fn serve(listener: TcpListener, shared: Arc<Shared>) -> std::io::Result<()> {
    let stop = shared.shutdown.clone();
    let router = Router::new()
        .route("/stats", get(stats))
        .route("/series", get(series))
        .route("/behaviour", post(change_behaviour))
        .route("/webhooks", post(take_webhook))
        .with_state(shared);
    axum::serve(listener, router)
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
}

/// What is counted is in the record when it is shown.
async fn stats(State(shared): State<Arc<Shared>>) -> Result<Json<StatsSnapshot>, StatusCode> {
    let snapshot = shared.stats.snapshot();
    let flushed = shared.flush_record();
    flushed.map_err(|_incomplete| StatusCode::INTERNAL_SERVER_ERROR)?;
    Ok(Json(snapshot))
}

async fn series(State(shared): State<Arc<Shared>>) -> Result<Json<serde_json::Value>, StatusCode> {
    let series = shared.stats.series();
    series
        .map(Json)
        .map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)
}

/// Counts the call; what it tells is not read.
async fn take_webhook(State(shared): State<Arc<Shared>>, _body: Bytes) -> StatusCode {
    shared.stats.webhook_called();
    StatusCode::NO_CONTENT
}

async fn change_behaviour(
    State(shared): State<Arc<Shared>>,
    Json(change): Json<BehaviourChange>,
) -> Result<Json<BehaviourBody>, (StatusCode, String)> {
    change
        .apply(&shared)
        .map_err(|error| (StatusCode::UNPROCESSABLE_ENTITY, format!("{error:#}\n")))?;
    let now = shared.behaviours.borrow();
    let domain = change.domain.unwrap_or_default();
    let behaviour = now.towards(&format!("@{domain}"));
    Ok(Json(BehaviourBody {
        latency: behaviour.latency.to_string(),
        tarpit_ms: u64::try_from(behaviour.tarpit.as_millis()).unwrap_or(u64::MAX),
        hang: now.hang,
    }))
}
