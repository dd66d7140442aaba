//! What may come in before anything is decompressed: known encodings, and no body that is too
//! large already. Decompresses nothing itself.

use axum::extract::{Request, State};
use axum::http::header;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::extract::body_too_large;
use crate::problem::{Code, Problem};
use crate::state::AppState;

/// Refuses bodies by their header alone.
pub(crate) async fn check(State(state): State<AppState>, request: Request, next: Next) -> Response {
    match refusal(&request, state.config.body_max_octets) {
        Some(problem) => problem.into_response(),
        None => next.run(request).await,
    }
}

fn refusal(request: &Request, body_max_octets: usize) -> Option<Problem> {
    let mut encodings = request.headers().get_all(header::CONTENT_ENCODING).iter();
    let known = match (encodings.next(), encodings.next()) {
        (None, _) => true,
        (Some(only), None) => ["identity", "gzip", "zstd"]
            .iter()
            .any(|known| only.as_bytes() == known.as_bytes()),
        _ => false,
    };
    if !known {
        let detail = "send the body plain, or with `Content-Encoding: gzip` or `zstd`";
        let accepted = header::HeaderValue::from_static("gzip, zstd");
        // RFC 9110 section 12.5.3: the answer says what would be taken.
        return Some(
            Problem::new(Code::UnsupportedEncoding, detail)
                .with_header(header::ACCEPT_ENCODING, accepted),
        );
    }
    let announced = request
        .headers()
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?;
    let announced: u64 = announced.parse().ok()?;
    (announced > body_max_octets as u64).then(|| body_too_large(body_max_octets))
}
