//! The handlers, one noun a file: typed values in, one call, a typed answer out.
//! No rule about mail and no SQL lives here.

pub(crate) mod api_key_request;
pub(crate) mod api_key_view;
pub(crate) mod api_keys;
pub(crate) mod batches;
pub(crate) mod docs;
pub(crate) mod domain_view;
pub(crate) mod domains;
pub(crate) mod email_actions;
pub(crate) mod email_commands;
pub(crate) mod email_content;
pub(crate) mod email_list;
pub(crate) mod email_request;
pub(crate) mod email_resend;
pub(crate) mod email_view;
pub(crate) mod emails;
pub(crate) mod inbox;
pub(crate) mod raw_emails;
mod raw_parameters;
pub(crate) mod sandbox;
pub(crate) mod suppressions;
pub(crate) mod transcripts;
pub(crate) mod webhook_calls;
mod webhook_fields;
mod webhook_replay_request;
pub(crate) mod webhook_replays;
pub(crate) mod webhook_secrets;
pub(crate) mod webhooks;
