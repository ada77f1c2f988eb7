//! Transports of the bus: how memory and signals reach the other side.
//!
//! A session between a host and a guest is a few [`Memory`]s, one for each writing side, and [`Doorbells`], one for each
//! priority class and direction. A transport carries them across and says when the other side is gone; what lies in
//! the memories is not its business.
#![forbid(unsafe_code)]

#[cfg(feature = "local")]
mod doorbells;
#[cfg(feature = "local")]
pub mod local;
#[cfg(feature = "local")]
mod memory;

#[cfg(feature = "local")]
pub use doorbells::{Doorbells, MAX_CLASSES};
#[cfg(feature = "local")]
pub use memory::{Memory, MemoryRole};
