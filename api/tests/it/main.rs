//! The HTTP interface on a real PostgreSQL: one promise a test, one group of promises a file.

#![allow(clippy::unwrap_used)]

mod api_keys;
mod bodies;
mod document;
mod key_restrictions;
mod keys;
mod platform;
mod rate_limits;
mod reading;
mod sandbox;
mod sending;
mod server;
mod webhooks;
