//! API keys as they are shown: everything but the secret, which is shown once.

use mail::ids::ApiKeyId;
use serde::Serialize;
use store::KeySummary;
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::timestamp::Timestamp;

/// An API key, without its secret.
#[derive(Serialize, ToSchema)]
#[schema(as = ApiKey)]
pub(crate) struct ApiKeyView {
    #[schema(value_type = String, example = "key_01kasxq2bke9qa1bz2t0zc6m4d")]
    pub(crate) id: ApiKeyId,
    #[schema(example = "Shop, production")]
    name: String,
    /// What the secret begins and ends with.
    #[schema(example = "pr_live_…x4k9")]
    hint: String,
    /// Whether it reaches the sandbox only.
    test: bool,
    #[schema(example = json!(["emails:send"]))]
    scopes: Vec<String>,
    /// The only domains it may send from; null: all of the account.
    domains: Option<Vec<String>>,
    /// The only networks it may be used from; null: all.
    networks: Option<Vec<String>>,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// To about a minute; null: never.
    #[schema(value_type = Option<String>, format = DateTime)]
    last_used_at: Option<Timestamp>,
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp>,
    /// The secret before the last rotation is good until then; null: it is not.
    #[schema(value_type = Option<String>, format = DateTime)]
    previous_valid_until: Option<Timestamp>,
    /// `active`, `expired` or `revoked`.
    #[schema(example = "active")]
    status: &'static str,
}

/// An API key with a new secret.
#[derive(Serialize, ToSchema)]
pub(crate) struct ApiKeyWithSecret {
    #[serde(flatten)]
    pub(crate) shown: ApiKeyView,
    /// What goes behind `Authorization: Bearer`. Shown now and never again.
    #[schema(example = "pr_live_06b3d…")]
    pub(crate) key: String,
}

impl ApiKeyView {
    /// The key as it stands now.
    pub(crate) fn of(summary: KeySummary, now: OffsetDateTime) -> Self {
        let status = status(&summary, now);
        let key = summary.key;
        let overlap = summary
            .previous_until
            .map(|until| key.expires_at.map_or(until, |end| until.min(end)))
            .filter(|until| *until > now && status == "active");
        let domains = key.domains;
        Self {
            id: key.id,
            name: summary.name,
            hint: summary.hint,
            test: key.test,
            scopes: key.scopes,
            domains: domains.map(|names| names.iter().map(ToString::to_string).collect()),
            networks: key.networks,
            created_at: summary.created_at.into(),
            last_used_at: summary.last_used_at.map(Into::into),
            expires_at: key.expires_at.map(Into::into),
            previous_valid_until: overlap.map(Into::into),
            status,
        }
    }
}

/// Whether the newest secret of the key is good.
pub(crate) fn status(summary: &KeySummary, now: OffsetDateTime) -> &'static str {
    if summary.revoked_at.is_some() {
        "revoked"
    } else if summary.key.expires_at.is_some_and(|end| end <= now) {
        "expired"
    } else {
        "active"
    }
}
