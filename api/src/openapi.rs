//! The published document: what surrounds the routes, and the answers they share. The routes
//! themselves describe themselves where they are handled.

use std::collections::BTreeMap;

use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ComponentsBuilder, ObjectBuilder, Type};
use utoipa::openapi::{
    Content, ContentBuilder, HeaderBuilder, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder,
    Ref, RefOr, Response, ResponseBuilder, ServerBuilder,
};
use utoipa::{IntoResponses, PartialSchema, ToSchema};

use crate::problem::{FieldProblem, MEDIA_TYPE, ProblemBody};
use crate::router::routes;

/// The contract in YAML, as `openapi.yaml` holds it.
pub fn openapi_yaml() -> String {
    openapi_document()
        .to_yaml()
        .expect("a document of maps, lists and strings can be written")
}

/// The contract of every route, the inbox and the reference included.
pub fn openapi_document() -> OpenApi {
    routes(true, true).into_openapi()
}

/// The document before any route is in it.
pub(crate) fn frame() -> OpenApi {
    let info = InfoBuilder::new()
        .title("Postrider")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(DESCRIPTION))
        .license(Some(
            LicenseBuilder::new()
                .name("Apache-2.0")
                .identifier(Some("Apache-2.0"))
                .build(),
        ))
        .build();
    let api_key = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("An API key, `pr_live_…` or `pr_test_…`."));
    let components = ComponentsBuilder::new()
        .security_scheme("api_key", SecurityScheme::Http(api_key.build()))
        .schema(ProblemBody::name(), ProblemBody::schema())
        .schema(FieldProblem::name(), FieldProblem::schema())
        .build();
    let server = ServerBuilder::new()
        .url("/")
        .description(Some("The platform this document came from"));
    OpenApiBuilder::new()
        .info(info)
        .servers(Some([server.build()]))
        .components(Some(components))
        .build()
}

const DESCRIPTION: &str = "Send email through a platform of your own, and learn what became of \
    it.\n\nErrors are `application/problem+json` (RFC 9457); programs should look at `code`. Every \
    answer carries `X-Request-Id`. Times are RFC 3339 in UTC. Ids are a prefix and 26 characters. \
    Request bodies may be compressed with gzip or zstd; unknown fields are refused. Answers to a known \
    key carry `RateLimit-Limit` (requests at once after a rest), `RateLimit-Remaining` and \
    `RateLimit-Reset` (seconds until all of them are there again).";

/// Declares a set of problems that several routes share.
macro_rules! problem_sets {
    ($($(#[doc = $doc:literal])+ $name:ident { $($status:literal => $about:literal,)+ })+) => {$(
        $(#[doc = $doc])+
        pub(crate) struct $name;

        impl IntoResponses for $name {
            fn responses() -> BTreeMap<String, RefOr<Response>> {
                [$(($status, $about)),+]
                    .into_iter()
                    .map(|(status, about)| (status.to_owned(), RefOr::T(problem(status, about))))
                    .collect()
            }
        }
    )+};
}

problem_sets! {
    /// What can go wrong with any request.
    CommonProblems {
        "401" => "The API key is missing, unknown, revoked or expired",
        "403" => "The operator disabled the account, the API key lacks the scope or is a test key where only live ones serve, the sender's domain is not verified, or the key is restricted to other domains or networks",
        "429" => "Too many requests of the account, of the key, or with wrong keys",
        "500" => "A fault of the platform",
        "503" => "The platform cannot answer at the moment; nothing was half done",
    }
    /// What can go wrong with a request that has a body.
    BodyProblems {
        "400" => "The body is not JSON or cannot be read, or a header cannot be used",
        "408" => "The body did not arrive in time",
        "413" => "The body or the message is too large",
        "415" => "The body is not JSON, or its encoding is not known",
        "422" => "Fields are missing, unknown or not right: all of them in `errors`",
    }
    /// What can be in the way.
    ConflictProblem {
        "409" => "The request conflicts with an earlier one, or with a limit",
    }
    /// What can be under way already.
    BusyProblem {
        "429" => "The account has as much of this under way, or waiting, as it may have at once",
    }
    /// What can be missing.
    NotFoundProblem {
        "404" => "There is no such thing in this account",
    }
    /// What was there once.
    GoneProblem {
        "410" => "It was there and is not kept any more",
    }
    /// What can be wrong with the query.
    ParameterProblem {
        "422" => "A query parameter is not right",
    }
}

fn problem(status: &str, about: &str) -> Response {
    let content: Content = ContentBuilder::new()
        .schema(Some(Ref::from_schema_name(ProblemBody::name())))
        .build();
    let mut response = ResponseBuilder::new()
        .description(about)
        .content(MEDIA_TYPE, content);
    if status == "503" || status == "429" {
        let seconds = ObjectBuilder::new().schema_type(Type::Integer);
        let header = HeaderBuilder::new()
            .schema(Some(seconds))
            .description(Some("Seconds after which to try again"));
        response = response.header("Retry-After", header.build());
    }
    response.build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_in_the_document_leads_somewhere() {
        let document = serde_json::to_value(openapi_document()).unwrap();
        let text = document.to_string();
        let references = text.split(r##""$ref":"#"##).skip(1);
        let mut count = 0;
        for rest in references {
            let pointer = rest.split('"').next().unwrap();
            assert!(document.pointer(pointer).is_some(), "{pointer}");
            count += 1;
        }
        assert!(count > 10, "{count}");
    }
}
