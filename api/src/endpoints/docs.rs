//! The reference of this interface: the published document, as JSON, as YAML, and as a page that
//! renders it. Describes exactly the routes this process answers.

use std::sync::Arc;

use axum::Extension;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use utoipa::openapi::OpenApi;

use crate::web_page::{WebPage, guarded};

const PAGE: WebPage = WebPage {
    document: include_str!("../pages/docs.html"),
    styles: [
        include_str!("../pages/common.css"),
        include_str!("../pages/docs.css"),
    ],
    script: include_str!("../pages/docs.js"),
};

/// The document in both spellings, written once.
#[derive(Clone)]
pub(crate) struct Reference {
    json: Arc<str>,
    yaml: Arc<str>,
}

impl Reference {
    pub(crate) fn new(document: &OpenApi) -> Self {
        let written = "a document of maps, lists and strings can be written";
        Self {
            json: document.to_json().expect(written).into(),
            yaml: document.to_yaml().expect(written).into(),
        }
    }
}

/// Read this reference
#[utoipa::path(
    get,
    path = "/docs",
    operation_id = "getReference",
    tag = "reference",
    responses((status = 200, description = "A page", content_type = "text/html", body = String)),
    security(()),
)]
pub(crate) async fn page() -> Response {
    PAGE.answer()
}

/// Get this reference as OpenAPI in JSON
#[utoipa::path(
    get,
    path = "/openapi.json",
    operation_id = "getOpenApiJson",
    tag = "reference",
    responses((status = 200, description = "OpenAPI 3.1", content_type = "application/json", body = String)),
    security(()),
)]
pub(crate) async fn json(Extension(reference): Extension<Reference>) -> Response {
    document("application/json", &reference.json)
}

/// Get this reference as OpenAPI in YAML
#[utoipa::path(
    get,
    path = "/openapi.yaml",
    operation_id = "getOpenApiYaml",
    tag = "reference",
    responses((status = 200, description = "OpenAPI 3.1", content_type = "application/yaml", body = String)),
    security(()),
)]
pub(crate) async fn yaml(Extension(reference): Extension<Reference>) -> Response {
    // RFC 9512.
    document("application/yaml", &reference.yaml)
}

fn document(media_type: &'static str, text: &str) -> Response {
    let headers = [(header::CONTENT_TYPE, HeaderValue::from_static(media_type))];
    (headers, guarded(), text.to_owned()).into_response()
}
