//! How much is measured.

use std::time::Duration;

/// For each benchmark.
#[derive(Clone, Copy)]
pub struct Effort {
    /// Processes that contenders share, one after the other.
    pub processes: usize,
    /// Repetitions in each.
    pub repetitions: usize,
    /// Pairs of runs in processes of their own.
    pub pairs: usize,
    /// How long the slower run of a pair takes, about.
    pub run: Duration,
}

impl Effort {
    /// For figures: all benchmarks in a few minutes.
    pub const FULL: Self = Self {
        processes: 5,
        repetitions: 60,
        pairs: 25,
        run: Duration::from_millis(50),
    };

    /// To see that all works, and roughly where it stands.
    pub const QUICK: Self = Self {
        processes: 2,
        repetitions: 10,
        pairs: 3,
        run: Duration::from_millis(10),
    };

    /// A test: everything runs, nothing is measured.
    pub const ONCE: Self = Self {
        processes: 1,
        repetitions: 1,
        pairs: 1,
        run: Duration::from_millis(1),
    };
}
