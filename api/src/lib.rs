//! The HTTP interface: takes sends in, tells what became of them, keeps webhook endpoints.
//!
//! Speaks no SQL and no SMTP, and never imports the other roles: everything durable goes through
//! `store`, every rule about mail comes from `mail`. All routes are in `router`.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod account_turns;
mod auth;
mod batch;
mod body_budget;
mod callers;
mod client_address;
mod commands;
mod config;
mod domains;
mod encoding;
mod endpoints;
mod extract;
mod grants;
mod idempotency;
mod inbox_access;
mod json;
mod key_uses;
pub mod keys;
mod limits;
mod metrics;
mod observe;
mod openapi;
mod outgoing;
mod page;
mod problem;
mod query_address;
mod random;
mod route;
mod router;
mod screened;
mod send;
mod server;
mod state;
mod timestamp;
mod web_page;
mod webhook_url;

pub use callers::Callers;
pub use config::{ApiConfig, RateLimits};
pub use domains::KeyMaker;
pub use metrics::ApiMetrics;
pub use openapi::{openapi_document, openapi_yaml};
pub use router::router;
pub use server::run;
pub use state::{AppParts, AppState};
