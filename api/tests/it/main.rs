//! The HTTP interface on a real PostgreSQL: one promise a test, one group of promises a file.

#![allow(clippy::unwrap_used)]

mod bodies;
mod commands;
#[path = "../../../tests/src/dns.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with other tests")]
mod dns;
mod document;
mod domains;
mod full_sends;
mod inbox;
mod keys;
mod large_answers;
mod lists;
mod platform;
mod raw;
mod reading;
mod sandbox;
mod sending;
mod server;
mod suppressions;
mod webhook_care;
mod webhooks;
