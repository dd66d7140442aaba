//! The sink's HTTP side: `GET /stats`, and `POST /behaviour` to switch it while it runs.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use super::behaviour::{Latency, ReplyMix};
use super::handler::{Behaviour, Shared};
use super::stats::StatsSnapshot;

/// A change of behaviour; what is not named stays as it is.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BehaviourChange {
    /// As `--latency`.
    pub(crate) latency: Option<String>,
    /// As `--replies`.
    pub(crate) replies: Option<String>,
    /// Take content, but send no final reply until this is false again.
    pub(crate) hang: Option<bool>,
}

/// The behaviour now in force.
#[derive(Debug, Serialize)]
struct BehaviourBody {
    latency: String,
    hang: bool,
}

impl BehaviourChange {
    /// Applies the change, all of it or nothing.
    ///
    /// # Errors
    /// When a field cannot be read, with the reason.
    pub(crate) fn apply(self, shared: &Shared) -> anyhow::Result<()> {
        let latency = self
            .latency
            .map(|text| text.parse::<Latency>())
            .transpose()?;
        let replies = self
            .replies
            .map(|text| text.parse::<ReplyMix>())
            .transpose()?;
        shared.behaviour.send_modify(|behaviour| {
            behaviour.latency = latency.unwrap_or(behaviour.latency);
            behaviour.hang = self.hang.unwrap_or(behaviour.hang);
            if let Some(replies) = replies {
                behaviour.replies = Arc::new(replies);
            }
        });
        Ok(())
    }
}

/// Serves until the sink shuts down.
pub(crate) async fn serve(listener: TcpListener, shared: Arc<Shared>) -> std::io::Result<()> {
    let stop = shared.shutdown.clone();
    let router = Router::new()
        .route("/stats", get(stats))
        .route("/behaviour", post(change_behaviour))
        .with_state(shared);
    axum::serve(listener, router)
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
}

async fn stats(State(shared): State<Arc<Shared>>) -> Json<StatsSnapshot> {
    Json(shared.stats.snapshot())
}

async fn change_behaviour(
    State(shared): State<Arc<Shared>>,
    Json(change): Json<BehaviourChange>,
) -> Result<Json<BehaviourBody>, (StatusCode, String)> {
    change
        .apply(&shared)
        .map_err(|error| (StatusCode::UNPROCESSABLE_ENTITY, format!("{error:#}\n")))?;
    let Behaviour { latency, hang, .. } = shared.behaviour.borrow().clone();
    Ok(Json(BehaviourBody {
        latency: latency.to_string(),
        hang,
    }))
}
