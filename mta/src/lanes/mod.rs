//! Deliveries in memory between the queue and the wire: who is next, over which path.
//! Nothing here is the truth; it is rebuilt from the queue at any time.

mod fair_queue;
mod memory;
mod path;
mod paths;
mod surplus;

pub(crate) use fair_queue::FairQueue;
pub(crate) use memory::Memory;
pub(crate) use path::{Next, Path, PathKey, Waiting};
pub(crate) use paths::{Overflow, Paths};
pub(crate) use surplus::Surplus;
