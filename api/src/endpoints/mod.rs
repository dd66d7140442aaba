//! The handlers, one noun a file: typed values in, one call, a typed answer out.
//! No rule about mail and no SQL lives here.

pub(crate) mod batches;
pub(crate) mod email_request;
pub(crate) mod email_view;
pub(crate) mod emails;
pub(crate) mod sandbox;
pub(crate) mod webhooks;
