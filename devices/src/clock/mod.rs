//! clock
mod counter;
mod discipline;
mod host;
mod sample;
mod timeline;
mod transform;
pub use counter::{Counter, CounterDomain, Ticks};
pub use discipline::*;
pub use host::*;
pub use sample::*;
pub use timeline::TimelineError;
pub use transform::*;
