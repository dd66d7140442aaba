//! The published document and the router say the same.

use std::collections::BTreeSet;

use axum::body::Body;
use axum::http::{Method, Request, StatusCode};

use crate::platform::Platform;

/// Answered without a key.
const REFERENCE: [&str; 3] = ["/docs", "/openapi.json", "/openapi.yaml"];

#[tokio::test]
async fn every_documented_operation_is_answered_and_no_other_method_is() {
    let change = |config: &mut api::ApiConfig| config.inbox_token = Some("token".to_owned());
    let Some(platform) = Platform::start_with(change).await else {
        return;
    };
    let document = api::openapi_document();
    for (path, item) in &document.paths.paths {
        let documented: BTreeSet<&str> = [
            ("GET", &item.get),
            ("POST", &item.post),
            ("PUT", &item.put),
            ("PATCH", &item.patch),
            ("DELETE", &item.delete),
        ]
        .into_iter()
        .filter_map(|(method, operation)| operation.as_ref().map(|_| method))
        .collect();
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let uri = path.replace("{id}", "msg_01kasxq2bke9qa1bz2t0zc6800");
            let request = Request::builder().method(method.clone()).uri(&uri);
            let answer = platform.send(request.body(Body::empty()).unwrap()).await;
            let expected = match documented.contains(method.as_str()) {
                // Without its token the inbox is not there.
                true if path.starts_with("/inbox") => StatusCode::NOT_FOUND,
                true if REFERENCE.contains(&path.as_str()) => StatusCode::OK,
                true => StatusCode::UNAUTHORIZED,
                false => StatusCode::METHOD_NOT_ALLOWED,
            };
            assert_eq!(answer.status, expected, "{method} {path}");
        }
    }
}

#[test]
fn the_router_has_no_route_but_the_documented_ones() {
    // `routes!` puts a handler into the router and its description into the document at once;
    // these are the other ways to add one.
    let source = include_str!("../../src/router.rs");
    for way in [
        ".route(",
        ".route_service(",
        ".nest(",
        ".nest_service(",
        ".fallback_service(",
    ] {
        assert!(!source.contains(way), "{way}");
    }
    assert_eq!(
        source.matches(".merge(").count(),
        1,
        "the operator's addresses only"
    );
}

#[test]
fn every_operation_tells_its_errors_and_its_name() {
    let document = api::openapi_document();
    let mut names = BTreeSet::new();
    assert!(document.paths.paths.len() >= 7);
    for (path, item) in &document.paths.paths {
        for operation in [&item.get, &item.post, &item.put, &item.patch, &item.delete]
            .into_iter()
            .flatten()
        {
            let name = operation.operation_id.clone().unwrap();
            assert!(names.insert(name.clone()), "{name} twice");
            assert!(operation.summary.is_some(), "{name} has no summary");
            let statuses: Vec<&str> = operation
                .responses
                .responses
                .keys()
                .map(String::as_str)
                .collect();
            assert!(
                statuses.iter().any(|status| status.starts_with('2')),
                "{name}"
            );
            if !path.starts_with("/inbox") && !REFERENCE.contains(&path.as_str()) {
                for status in ["401", "403", "503"] {
                    assert!(statuses.contains(&status), "{name} {status}");
                }
            }
        }
    }
    let text = api::openapi_yaml();
    for word in [
        "sendEmail",
        "application/problem+json",
        "bearer",
        "Idempotency-Key",
        "EmailRequest",
    ] {
        assert!(text.contains(word), "{word}");
    }
}

#[test]
fn the_published_file_is_the_document() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../openapi.yaml");
    let published = std::fs::read_to_string(file).unwrap();
    assert!(
        published == api::openapi_yaml(),
        "openapi.yaml is not what the routes say: write it again with `postrider openapi`"
    );
}
