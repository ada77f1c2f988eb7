//! The device side, over any ring format.

mod chain;
mod format;
mod queue;
mod slices;
mod slot;
mod table;

pub use chain::{Chain, ChainHead};
pub(crate) use chain::{ChainBuilder, ChainShape, Completed, FoundChain};
pub use format::DeviceFormat;
pub(crate) use format::sealed;
pub use queue::DeviceQueue;
pub use slices::Slices;
pub(crate) use slot::Completion;
pub use slot::DeviceSlot;
pub(crate) use table::{IndirectTable, check_table_place, walk_rows};
