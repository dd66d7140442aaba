//! The HTTP interface on a real PostgreSQL: one promise a test, one group of promises a file.

#![allow(clippy::unwrap_used)]

mod api_keys;
mod batch;
mod batch_handling;
mod batch_refusals;
mod bodies;
mod commands;
mod database;
#[path = "../../../tests/src/dns.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with other tests")]
mod dns;
mod document;
mod domain_keys;
mod domain_proof;
mod domains;
mod email_actions;
mod every_operation;
mod full_sends;
mod inbox;
mod key_restrictions;
mod keys;
mod large_answers;
mod limits_apart;
mod lists;
mod owner;
mod platform;
mod rate_limits;
mod raw;
mod reading;
mod resend;
mod sandbox;
mod sending;
mod server;
mod suppressions;
mod webhook_care;
mod webhook_replays;
mod webhooks;
