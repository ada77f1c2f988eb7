//! The device side, over any ring format.

mod chain;
mod format;
mod queue;
mod slices;
mod slot;

pub use chain::{Chain, ChainHead};
pub(crate) use chain::{ChainBuilder, ChainShape};
pub use format::DeviceFormat;
pub(crate) use format::sealed;
pub use queue::DeviceQueue;
pub use slices::Slices;
pub(crate) use slices::next_piece;
pub use slot::DeviceSlot;
