//! Miri: undefined behaviour, data races and weak-memory outcomes, on the forced-word build over heap windows.

use crate::command::{Command, run_two_at_a_time};
use crate::project::{LOCK_FREE, Project};
use crate::step::Stop;
use crate::tally::Tally;
use crate::toolchain::need_nightly;

/// Two-thread tests run once for each of these seeds: other schedules, other stale values.
const SEEDS: &str = "-Zmiri-many-seeds=1..5";

pub(super) fn miri(project: &Project, tally: &mut Tally) -> Result<(), Stop> {
    need_nightly(project, tally)?;
    // Not the examples in the documentation: they create real shared memory.
    let miri = |directory: &str| {
        Command::nightly_cargo(project)
            .args(["miri", "test", "--no-fail-fast"])
            .args(["--package", &format!("shmbus-{directory}")])
    };
    let all = LOCK_FREE
        .iter()
        .map(|directory| miri(directory).args(["--lib", "--tests"]));
    let seeded = LOCK_FREE.iter().map(|directory| {
        miri(directory)
            .args(["--test", "threads"])
            .env("MIRIFLAGS", SEEDS)
    });
    run_two_at_a_time(all.chain(seeded), tally)
}
