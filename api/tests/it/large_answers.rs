//! Content in memory is bounded, as long as it takes the client to read it, and whoever reads it keeps
//! nobody from sending.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::Method;

use crate::platform::{Platform, email, with_key};

#[tokio::test]
async fn content_has_room_until_it_was_sent() {
    let change = |config: &mut api::ApiConfig| {
        config.bodies_max_octets = 400_000;
        config.body_room_timeout = Duration::from_millis(50);
    };
    let Some(platform) = Platform::start_with(change).await else {
        return;
    };
    let key = &platform.live_key;
    let mut body = email();
    body["text"] = "All work and no play.\r\n".repeat(7_000).into();
    let id = platform.accepted(key, &body).await.id().to_owned();
    let ask = |format: &str| {
        let path = format!("/v1/emails/{id}/content?format={format}");
        let request = with_key(key, Method::GET, &path).body(Body::empty());
        platform.respond(request.unwrap())
    };
    for format in ["raw", "json"] {
        let unread = ask(format).await;
        assert_eq!(unread.status(), 200);
        let path = format!("/v1/emails/{id}/content");
        let refused = platform.get(key, &path).await;
        refused.refused(503, "unavailable");
        assert!(refused.headers.contains_key("retry-after"));
        platform.accepted(key, &email()).await;

        // The octets themselves hold the room: a server may have taken them out of the body.
        let octets = to_bytes(unread.into_body(), 1 << 20).await.unwrap();
        assert!(octets.len() > 150_000);
        platform.get(key, &path).await.refused(503, "unavailable");
        drop(octets);
        assert_eq!(platform.get(key, &path).await.status, 200);
    }
}
