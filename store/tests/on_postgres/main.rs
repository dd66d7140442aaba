//! The store against a real PostgreSQL: what it promises to the roles, one promise a test.
//!
//! Starts a private cluster, or uses the server of `POSTRIDER_TEST_DATABASE_URL` (which must allow
//! CREATE DATABASE). Every test has a database of its own.

#![allow(clippy::unwrap_used)]

mod accepting;
mod bulk_commands;
mod command_filter;
mod commands;
mod configuration;
mod direct_cancel;
mod dispatching;
mod domains;
mod key_admin;
mod lost_connections;
mod operator;
mod ownership;
mod partitions;
mod rate_limit;
mod search_spans;
mod searching;
mod settling;
mod sharing;
mod suppression;
mod webhook_replays;
mod webhooks;
mod world;
