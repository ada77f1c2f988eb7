//! The driver side, over any ring format.

mod format;
mod queue;
mod slot;

pub use format::DriverFormat;
pub(crate) use format::sealed;
pub use queue::{DriverQueue, Used};
pub use slot::DriverSlot;
