//! What every role needs in order to run: configuration, time, shutdown, logs, metrics, health,
//! background loops, and the private PostgreSQL and Redis of development and tests.
//!
//! Knows nothing of mail and speaks no SQL. Nothing here is a static: whoever starts a role makes
//! these values and passes them in, so that a test can run several roles in one process.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod background;
pub mod clock;
pub mod config;
pub mod health;
pub mod metrics;
pub mod pg_cluster;
mod process;
mod process_metrics;
pub mod redis_server;
pub mod resolver;
pub mod shutdown;
pub mod telemetry;
