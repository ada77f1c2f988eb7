//! The device side, over any ring format.

mod chain;
mod format;
mod queue;
mod slices;
mod slot;
mod table;

pub use chain::{Chain, ChainHead};
pub(crate) use chain::{ChainBuilder, ChainShape, FoundChain};
pub use format::DeviceFormat;
pub(crate) use format::sealed;
pub use queue::DeviceQueue;
pub use slices::Slices;
pub use slot::DeviceSlot;
pub(crate) use table::IndirectTable;
