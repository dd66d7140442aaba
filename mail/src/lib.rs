//! The vocabulary and rules of mail: what an address, a message, an outcome and an event are.
//!
//! Everything here is pure: values in, values out. This crate does no I/O, reads no clock,
//! makes no randomness of its own, is not asynchronous and knows no SQL; whatever depends on the
//! time or on chance takes it as a parameter.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod address;
mod address_list;
pub mod attachments;
pub mod batch;
pub mod bounce_class;
pub mod compose;
pub mod content_parts;
pub mod content_source;
mod derived_text;
pub mod dkim;
pub mod dkim_canon;
pub mod dkim_key;
pub mod domain_name;
pub mod domain_records;
pub mod domain_watch;
pub mod envelope;
pub mod event;
pub mod handling;
pub mod header;
mod header_wire;
pub mod ids;
pub mod judge;
pub mod mailbox;
mod media_type;
pub mod message;
pub mod message_fields;
mod message_limits;
mod mime;
pub mod public_suffix;
pub mod raw;
mod raw_header;
pub mod readable;
mod record_rules;
pub mod reply;
pub mod restamp;
pub mod retry;
mod shared_files;
pub mod suppression;
pub mod template;
pub mod text;
pub mod variables;
pub mod verp;
