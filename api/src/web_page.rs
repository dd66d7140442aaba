//! Pages of our own for browsers: one document each, its style and script inside it and named by
//! hash in the policy, so that nothing else on it can run and nothing is asked of other hosts.

use aws_lc_rs::digest::{SHA256, digest};
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Where the style goes in a page's document.
const STYLE_MARK: &str = "{{style}}";
/// Where the script goes.
const SCRIPT_MARK: &str = "{{script}}";

/// What a page is made of, as it stands in its files.
pub(crate) struct WebPage {
    pub(crate) document: &'static str,
    /// Of all pages, then of this one.
    pub(crate) styles: [&'static str; 2],
    pub(crate) script: &'static str,
}

impl WebPage {
    /// The page as an answer. Content of other origins is neither loaded nor may it frame this.
    pub(crate) fn answer(&self) -> Response {
        let style = self.styles.concat();
        let policy = format!(
            "default-src 'none'; style-src '{}'; script-src '{}'; connect-src 'self'; \
             img-src 'self' data:; frame-src 'self'; base-uri 'none'; form-action 'none'; \
             frame-ancestors 'none'",
            source_hash(&style),
            source_hash(self.script),
        );
        let document =
            self.document
                .replacen(STYLE_MARK, &style, 1)
                .replacen(SCRIPT_MARK, self.script, 1);
        let policy = HeaderValue::from_str(&policy).expect("hashes and words are ASCII");
        let headers = [
            (header::CONTENT_TYPE, HTML),
            (header::CONTENT_SECURITY_POLICY, policy),
        ];
        (headers, guarded(), document).into_response()
    }
}

/// Our media type for HTML.
pub(crate) const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");

/// What every answer that a browser may show says beside its own headers.
pub(crate) fn guarded() -> [(HeaderName, HeaderValue); 6] {
    let words = |name: &'static str, value: &'static str| {
        let name = HeaderName::from_static(name);
        (name, HeaderValue::from_static(value))
    };
    [
        words("cache-control", "no-store"),
        words("vary", "Accept, Cookie"),
        words("x-content-type-options", "nosniff"),
        words("referrer-policy", "no-referrer"),
        words("cross-origin-resource-policy", "same-origin"),
        words("x-dns-prefetch-control", "off"),
    ]
}

/// Of a script or style inside a document (Content Security Policy Level 3, section 2.3.1).
fn source_hash(text: &str) -> String {
    let hash = digest(&SHA256, text.as_bytes());
    format!("sha256-{}", STANDARD.encode(hash))
}
