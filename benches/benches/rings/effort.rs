//! How much is measured.

use std::time::Duration;

/// For each benchmark.
#[derive(Clone, Copy)]
pub(crate) struct Effort {
    /// Processes that contenders share, one after the other.
    pub(crate) processes: usize,
    /// Repetitions in each.
    pub(crate) repetitions: usize,
    /// Pairs of runs in processes of their own.
    pub(crate) pairs: usize,
    /// How long the slower run of a pair takes, about.
    pub(crate) run: Duration,
}

impl Effort {
    /// For figures: all benchmarks in a few minutes.
    pub(crate) const FULL: Self = Self {
        processes: 5,
        repetitions: 60,
        pairs: 25,
        run: Duration::from_millis(50),
    };

    /// To see that all works, and roughly where it stands.
    pub(crate) const QUICK: Self = Self {
        processes: 2,
        repetitions: 10,
        pairs: 3,
        run: Duration::from_millis(10),
    };

    /// A test: everything runs, nothing is measured.
    pub(crate) const ONCE: Self = Self {
        processes: 1,
        repetitions: 1,
        pairs: 1,
        run: Duration::from_millis(1),
    };
}
