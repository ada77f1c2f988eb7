//! Every benchmark runs once, so that it is known to work. Without `--bench` among its arguments it measures nothing.

use crate::command::Command;
use crate::project::Project;
use crate::ringtest;
use crate::step::Stop;
use crate::tally::Tally;

pub(super) fn run_once(project: &Project, tally: &mut Tally) -> Result<(), Stop> {
    let mut command = Command::cargo(project)
        .args(["test", "--package", "shmbus-benches", "--benches"])
        .args(["--profile", "checked"]);
    // Without these programs the benchmark says itself what it skips.
    match ringtest::build(project, tally) {
        Ok(directory) => command = command.env("RINGTEST", directory),
        Err(Stop::Skipped(_)) => {}
        Err(failed) => return Err(failed),
    }
    command.run(tally)?;
    tally.passed += 1;
    Ok(())
}
