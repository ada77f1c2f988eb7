//! The driver side, over any ring format.

mod batch;
mod format;
mod queue;
mod slot;

pub(crate) use batch::Batch;
pub use format::DriverFormat;
pub(crate) use format::sealed;
pub use queue::{DriverQueue, Used};
pub use slot::DriverSlot;
