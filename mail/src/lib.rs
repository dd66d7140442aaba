//! The vocabulary and rules of mail: what an address, a message, an outcome and an event are.
//!
//! Everything here is pure: values in, values out. This crate does no I/O, reads no clock,
//! makes no randomness of its own, is not asynchronous and knows no SQL; whatever depends on the
//! time or on chance takes it as a parameter.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod address;
pub mod bounce_class;
pub mod compose;
pub mod content_parts;
pub mod dkim;
pub mod dkim_canon;
pub mod dkim_key;
pub mod domain_name;
pub mod domain_records;
pub mod domain_watch;
pub mod envelope;
pub mod event;
pub mod header;
mod header_wire;
pub mod ids;
pub mod judge;
pub mod mailbox;
pub mod message;
pub mod message_fields;
mod message_limits;
pub mod public_suffix;
mod record_rules;
pub mod reply;
pub mod restamp;
pub mod retry;
pub mod suppression;
pub mod text;
pub mod verp;
