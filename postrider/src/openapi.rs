//! `postrider openapi`: prints the HTTP contract as the routes themselves state it.

use anyhow::Context;

/// Prints the document as YAML.
///
/// # Errors
/// Standard output cannot be written.
pub(crate) fn run() -> anyhow::Result<()> {
    let document = api::openapi_yaml();
    crate::output::line(document.trim_end()).context("could not print the document")
}
