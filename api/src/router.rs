//! Every route on one screen, and the layers around them. No handler lives here, and no route
//! is added in any other way: what is not in the published document is not answered.

use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::{Extension, Router};
use service::health::{self, Check};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::decompression::RequestDecompressionLayer;
use tower_http::limit::RequestBodyLimitLayer;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::account_turns::AccountTurns;
use crate::body_budget::{AnswerBudget, BodyBudget};
use crate::endpoints::docs::Reference;
use crate::endpoints::{
    api_keys, batches, docs, domains, email_actions, email_commands, email_content, email_list,
    email_resend, emails, inbox, raw_emails, sandbox, suppressions, transcripts, webhook_calls,
    webhook_replays, webhook_secrets, webhooks,
};
use crate::state::AppState;
use crate::{encoding, limits, observe, openapi};

/// The routes of the API, described by themselves.
pub(crate) fn routes(with_inbox: bool, with_docs: bool) -> OpenApiRouter<AppState> {
    let api = OpenApiRouter::with_openapi(openapi::frame())
        .routes(routes!(emails::send, email_list::list))
        .routes(routes!(batches::send))
        .routes(routes!(emails::get, email_commands::change))
        .routes(routes!(email_content::get))
        .routes(routes!(transcripts::get))
        .routes(routes!(email_commands::cancel))
        .routes(routes!(email_resend::resend))
        .routes(routes!(email_actions::act))
        .routes(routes!(raw_emails::send_raw))
        .routes(routes!(webhooks::create, webhooks::list))
        .routes(routes!(webhooks::get, webhooks::delete, webhooks::update))
        .routes(routes!(suppressions::create, suppressions::list))
        .routes(routes!(suppressions::get, suppressions::delete))
        .routes(routes!(domains::create, domains::list))
        .routes(routes!(domains::get, domains::delete))
        .routes(routes!(domains::verify))
        .routes(routes!(domains::rotate_dkim))
        .routes(routes!(webhook_secrets::rotate))
        .routes(routes!(webhook_calls::test))
        .routes(routes!(webhook_calls::list))
        .routes(routes!(webhook_replays::create))
        .routes(routes!(webhook_replays::list))
        .routes(routes!(webhook_replays::get, webhook_replays::cancel))
        .routes(routes!(api_keys::create, api_keys::list))
        .routes(routes!(api_keys::get, api_keys::revoke))
        .routes(routes!(api_keys::rotate))
        .routes(routes!(sandbox::list))
        .routes(routes!(sandbox::get))
        .routes(routes!(sandbox::get_raw));
    let api = if with_docs {
        api.routes(routes!(docs::page))
            .routes(routes!(docs::json))
            .routes(routes!(docs::yaml))
    } else {
        api
    };
    if with_inbox {
        api.routes(routes!(inbox::list))
            .routes(routes!(inbox::get))
            .routes(routes!(inbox::get_html))
            .routes(routes!(inbox::get_raw))
            .routes(routes!(inbox::get_attachment))
    } else {
        api
    }
}

/// The whole interface: the API, the operator's addresses if wanted, and an answer to the rest.
pub fn router(state: AppState) -> Router {
    let config = &state.config;
    let (api, document) = routes(config.inbox_token.is_some(), config.docs).split_for_parts();
    let api = api.layer(Extension(Reference::new(&document)));
    let mut all = api.with_state(state.clone());
    if state.config.operator_routes {
        all = all.merge(health::router(
            state.registry.clone(),
            vec![database_check(&state)],
        ));
    }
    let all = all
        .fallback(observe::no_route)
        .method_not_allowed_fallback(observe::no_method);
    layered(all, &state)
}

/// The layers every request passes, the innermost first.
pub(crate) fn layered(router: Router, state: &AppState) -> Router {
    let body_max_octets = state.config.body_max_octets;
    router
        .layer(Extension(BodyBudget::new(&state.config)))
        .layer(Extension(AnswerBudget::new(&state.config)))
        .layer(Extension(AccountTurns::default()))
        // Counts what comes out of decompression.
        .layer(DefaultBodyLimit::max(body_max_octets))
        .layer(RequestDecompressionLayer::new())
        // Counts what goes into it, for bodies that do not say how long they are.
        .layer(RequestBodyLimitLayer::new(body_max_octets))
        .layer(from_fn_with_state(state.clone(), encoding::check))
        .layer(from_fn_with_state(state.clone(), observe::limit_time))
        .layer(CatchPanicLayer::custom(observe::panicked))
        .layer(from_fn(limits::show_standing))
        .layer(from_fn_with_state(state.clone(), observe::observe))
}

fn database_check(state: &AppState) -> Check {
    let store = state.store.clone();
    Check::new("postgresql", move || {
        let store = store.clone();
        async move { store.ping().await.map_err(|error| error.to_string()) }
    })
}
