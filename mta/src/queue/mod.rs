//! The node's side of the queue: owning shards, reading them forward, the gate before the final
//! dot, settling outcomes, and what a take-over finds undecided. docs/decisions/0001-queue.md.

mod ambiguity;
mod barrier;
mod commands;
mod dispatch;
mod gate;
mod ownership;
mod parking;
mod reader;
mod settler;

pub(crate) use ambiguity::{Ambiguity, Suspicion, decide_undecided, settle_handed_in, take_over};
pub(crate) use commands::{Commands, carry_out_first};
pub(crate) use dispatch::{dispatch, expire, suppress};
pub(crate) use gate::{Door, Gate, Intent, Permit};
pub use ownership::CLOCK_SKEW_MAX;
pub(crate) use ownership::Ownership;
pub(crate) use parking::park;
pub(crate) use reader::Reader;
pub(crate) use settler::{Settler, Unsettled, patiently, settle_all};
