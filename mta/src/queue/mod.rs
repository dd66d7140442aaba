//! The node's side of the queue: owning shards, reading them forward, the gate before the final
//! dot, settling outcomes, and what a take-over finds undecided. docs/decisions/0001-queue.md.

mod ambiguity;
mod gate;
mod ownership;
mod parking;
mod reader;
mod settler;

pub(crate) use ambiguity::{Ambiguity, settle_handed_in, take_over};
pub(crate) use gate::{Gate, Intent, Permit};
pub use ownership::CLOCK_SKEW_MAX;
pub(crate) use ownership::{Changes, Ownership};
pub(crate) use parking::park;
pub(crate) use reader::{Reader, dispatch};
pub(crate) use settler::{Settler, Unsettled, patiently, settle_all};
