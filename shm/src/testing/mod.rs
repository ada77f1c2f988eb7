//! Windows for tests: the same algorithms on a model of memory, under a hostile peer, and with a writer that dies.

mod loom_window;
mod probe;

pub use loom_window::{LoomWindow, LoomWindowBuilder, Weakening};
pub use probe::{Counting, Dying, Hostile, Probe, Probed};
