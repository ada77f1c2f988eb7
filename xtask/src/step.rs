//! What a step is, and how it may end early.

use crate::project::Project;
use crate::tally::Tally;

/// One step of `cargo xtask test`.
#[derive(Clone, Copy)]
pub(crate) struct Step {
    /// What `--only` takes.
    pub(crate) name: &'static str,
    /// One line for `--list` and the heading.
    pub(crate) about: &'static str,
    /// Takes minutes; `--quick` leaves it out.
    pub(crate) slow: bool,
    /// Does it. Tests that ran are counted in the tally, also when the step stops early.
    pub(crate) run: fn(&Project, &mut Tally) -> Result<(), Stop>,
}

/// Why a step did not come to its end.
#[derive(Debug)]
pub(crate) enum Stop {
    /// Something that was checked is wrong.
    Failed(String),
    /// The machine lacks what the step needs.
    Skipped(String),
}
