//! What attackers put into a send API: each value is refused as a whole, or arrives as the literal
//! text of the one field it was given for. Nothing of it becomes a header, a recipient or a fault of
//! the platform. Every value of the corpus is tried; one that no test knows a place for fails it.

#![allow(clippy::unwrap_used)]

mod addresses;
mod attempts;
mod corpus;
mod values;
mod wire;
