//! How a side that spins looks for what comes.

/// How many calls of `poll_spinning` in a row may answer 0 although something came.
pub const PATIENCE: u16 = 16;
