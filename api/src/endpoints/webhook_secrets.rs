//! Signing secrets of webhooks: how they are made, shown once, and replaced. Signing is another
//! role's.

use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mail::ids::WebhookEndpointId;
use mail::message_fields::parse_duration;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::auth::{Allowed, ManageWebhooks};
use crate::extract::{JsonBody, PathId};
use crate::openapi::{BodyProblems, CommonProblems, NotFoundProblem};
use crate::problem::{FieldProblem, Problem};
use crate::random;
use crate::state::AppState;
use crate::timestamp::Timestamp;

/// Octets of a signing secret; Standard Webhooks asks for 24 to 64.
const SECRET_OCTETS: usize = 32;

/// How long a replaced secret signs unless the request says otherwise.
const OVERLAP_DEFAULT: Duration = Duration::from_secs(24 * 3_600);
/// Longest time that a replaced secret may sign.
const OVERLAP_MAX: Duration = Duration::from_secs(7 * 24 * 3_600);

/// How to replace a secret.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"overlap": "24h"}))]
pub(crate) struct RotationRequest {
    /// How long the present secret signs beside the new one, from 0s to 7d.
    #[schema(nullable = false, default = "24h")]
    overlap: Option<String>,
}

/// A new secret.
#[derive(Serialize, ToSchema)]
pub(crate) struct RotatedSecret {
    #[schema(value_type = String, example = "whk_01kasxq2bke9qa1bz2t0zc6m4d")]
    id: WebhookEndpointId,
    /// What calls are signed with from now on. Shown now and never again.
    #[schema(example = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo=")]
    secret: String,
    /// Until then calls carry a signature of the replaced secret too; absent when they do not.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, nullable = false, value_type = String, format = DateTime)]
    previous_secret_until: Option<Timestamp>,
}

/// A new secret.
pub(super) fn fresh() -> [u8; SECRET_OCTETS] {
    random::octets()
}

/// The form in which its owner keeps a secret (Standard Webhooks).
pub(super) fn text(secret: &[u8]) -> String {
    format!("whsec_{}", STANDARD.encode(secret))
}

/// Replace the secret of a webhook
///
/// Calls are signed with the new secret within seconds, and for the time of the overlap with the
/// present one too: the header then holds both signatures, and receivers take either. A secret
/// that was replaced before the present one signs no more. The body may be left out.
#[utoipa::path(
    post,
    path = "/v1/webhooks/{id}/rotate-secret",
    operation_id = "rotateWebhookSecret",
    tag = "webhooks",
    params(("id" = String, Path, description = "Id of the webhook")),
    request_body = Option<RotationRequest>,
    responses(
        (status = 200, description = "Replaced", body = RotatedSecret),
        CommonProblems,
        BodyProblems,
        NotFoundProblem,
    ),
    security(("api_key" = ["webhooks:*"])),
)]
pub(crate) async fn rotate(
    State(state): State<AppState>,
    Allowed { principal, .. }: Allowed<ManageWebhooks>,
    PathId(id): PathId<WebhookEndpointId>,
    body: Option<JsonBody<RotationRequest>>,
) -> Result<Response, Problem> {
    let overlap = body.and_then(|body| body.value.overlap);
    let overlap = match overlap.as_deref().map(parse_duration) {
        None => OVERLAP_DEFAULT,
        Some(Some(overlap)) if overlap <= OVERLAP_MAX => overlap,
        Some(_) => {
            let detail = "must be a whole number and s, m, h or d, from 0s to 7d";
            let error = FieldProblem::new("/overlap", "invalid_duration", detail);
            return Err(Problem::fields([error]));
        }
    };
    let until = (!overlap.is_zero()).then(|| state.clock.now() + overlap);
    let secret = fresh();
    let (account, sealer) = (principal.account, &state.sealer);
    let rotated = state
        .store
        .rotate_endpoint_secret(account, id, &secret, sealer, until)
        .await?;
    if !rotated {
        return Err(Problem::not_found());
    }
    let headers = [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    let rotated = RotatedSecret {
        id,
        secret: text(&secret),
        previous_secret_until: until.map(Timestamp::from),
    };
    Ok((headers, axum::Json(rotated)).into_response())
}
