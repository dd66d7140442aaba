//! The outermost layers: every answer gets the id of its request, is counted, and is a problem
//! when it is an error; a panic and a request without end become answers too.
//! Logs no header, no body, no address: route, status, duration and id.

use std::any::Any;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use mail::ids::{encode_base32, uuid_v7};
use tracing::Instrument;

use crate::problem::{Code, Problem};
use crate::random;
use crate::state::AppState;

/// Says which request an answer belongs to.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Gives the request its id, and the answer too.
pub(crate) async fn observe(
    State(state): State<AppState>,
    request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    let route = route_label(&request);
    let id = request_id(&state);
    let span = tracing::info_span!("request", id);
    let mut response = next.run(request).instrument(span.clone()).await;
    if let Some(problem) = response.extensions().get::<Problem>() {
        let mut rendered = problem.render(Some(&id));
        // What the layers in between added, such as the methods a 405 allows.
        for (name, value) in response.headers() {
            if !rendered.headers().contains_key(name) && name != header::CONTENT_LENGTH {
                rendered.headers_mut().append(name, value.clone());
            }
        }
        response = rendered;
    }
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    let status = response.status();
    state
        .metrics
        .requests
        .with_label_values(&[route.as_str(), status.as_str()])
        .inc();
    let elapsed_ms = started.elapsed().as_millis();
    span.in_scope(|| tracing::debug!(route, status = status.as_u16(), elapsed_ms, "answered"));
    response
}

fn request_id(state: &AppState) -> String {
    let unix_ms = u64::try_from(state.clock.unix_ms()).unwrap_or_default();
    format!(
        "req_{}",
        encode_base32(uuid_v7(unix_ms, random::octets()).as_u128())
    )
}

/// A label from a closed list: neither paths nor methods of the client's invention get in.
fn route_label(request: &Request) -> String {
    let known = [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
    ];
    let method = known.iter().find(|known| *known == request.method());
    let method = method.map_or("other", Method::as_str);
    match request.extensions().get::<MatchedPath>() {
        Some(path) => format!("{method} {}", path.as_str()),
        None => "unmatched".to_owned(),
    }
}

/// Ends a request that takes too long.
pub(crate) async fn limit_time(
    State(state): State<AppState>,
    request: Request,
    next: Next,
) -> Response {
    match tokio::time::timeout(state.config.request_timeout, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let detail = "no answer in time; it may still take effect: repeat it with the same \
                          Idempotency-Key";
            Problem::new(Code::Timeout, detail)
                .with_header(header::RETRY_AFTER, HeaderValue::from_static("5"))
                .into_response()
        }
    }
}

/// The answer to a request whose handler panicked.
pub(crate) fn panicked(payload: Box<dyn Any + Send + 'static>) -> Response {
    let words = payload
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| payload.downcast_ref::<&str>().copied())
        .unwrap_or("no words");
    tracing::error!(panic = words, "a handler panicked");
    let detail = "the cause was logged under the id of this request";
    Problem::new(Code::Internal, detail).into_response()
}

/// The answer where no route is.
pub(crate) async fn no_route() -> Problem {
    Problem::new(
        Code::NotFound,
        "there is no such path; the paths are in openapi.yaml, and all begin with /v1/",
    )
}

/// The answer where the route is but not for this method; the router adds the methods it knows.
pub(crate) async fn no_method(method: Method) -> Problem {
    let shown: String = method.as_str().chars().take(20).collect();
    Problem::new(
        Code::MethodNotAllowed,
        format!("{shown} is not known here; see the header Allow"),
    )
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::{Body, to_bytes};
    use axum::routing::get;
    use tower::ServiceExt;
    use tower_http::catch_panic::CatchPanicLayer;

    use super::*;

    #[tokio::test]
    async fn a_panic_becomes_an_answer_without_its_words() {
        let panics = get(async || -> &'static str { panic!("secret words") });
        let router = Router::new()
            .route("/", panics)
            .layer(CatchPanicLayer::custom(panicked));
        let request = Request::get("/").body(Body::empty()).unwrap();
        let response = router.oneshot(request).await.unwrap();
        assert_eq!(response.status(), 500);
        assert!(response.extensions().get::<Problem>().is_some());
        let body = to_bytes(response.into_body(), 10_000).await.unwrap();
        let text = String::from_utf8(body.to_vec()).unwrap();
        assert!(
            text.contains("\"internal\"") && !text.contains("secret"),
            "{text}"
        );
    }
}
