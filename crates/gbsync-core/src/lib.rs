//! The pure core of `gbsync`: what a group is, how groups become batches, how a verdict is reached, what a message says.
//!
//! Nothing here does I/O, reads a clock, draws a random number, waits, or knows SQL. Client, server and simulator call the
//! same functions, so that a device and a server can never disagree about what a group means.

pub mod change;
pub mod clock;
pub mod decide;
pub mod depend;
pub mod digest;
pub mod fault;
pub mod group;
pub mod id;
pub mod json;
pub mod lay;
pub mod limits;
pub mod mutant;
pub mod plan;
pub mod retry;
mod rule;
pub mod schema;
pub mod scope;
pub mod squash;
pub mod time;
pub mod verdict;
pub mod wire;
