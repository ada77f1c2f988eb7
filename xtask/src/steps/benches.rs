use crate::command::Command;
use crate::project::Project;
use crate::step::Stop;
use crate::tally::Tally;

/// Without `--bench` among its arguments a benchmark runs everything once and measures nothing.
pub(super) fn run_once(project: &Project, tally: &mut Tally) -> Result<(), Stop> {
    Command::cargo(project)
        .args(["test", "--package", "shmbus-benches", "--benches"])
        .args(["--profile", "checked"])
        .run(tally)
}
