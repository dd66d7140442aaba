//! The HTTP interface on a real PostgreSQL: one promise a test, one group of promises a file.

#![allow(clippy::unwrap_used)]

mod batch;
mod batch_refusals;
mod bodies;
mod document;
mod keys;
mod platform;
mod reading;
mod sandbox;
mod sending;
mod server;
mod webhooks;
