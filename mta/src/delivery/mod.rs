//! One attempt at one delivery: prepare, connect, converse, judge, settle. Each step takes a value
//! and gives a value; what they mean together is in `session`.

mod connect;
mod contents;
mod converse;
mod fill_in;
mod fresh;
mod outcome;
mod prepare;
mod silent_hosts;

pub(crate) use connect::NoLine;
pub(crate) use connect::{Line, connect};
pub(crate) use contents::{Contents, FetchRequest};
pub(crate) use converse::{Conversation, converse, is_worn_out};
pub(crate) use outcome::{Attempted, conclude, expired, suppressed, undecided};
pub(crate) use prepare::{NotPrepared, OwnFault, Prepared, prepare};
pub(crate) use silent_hosts::SilentHosts;
