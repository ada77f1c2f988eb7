use crate::command::Command;
use crate::project::Project;
use crate::step::Stop;
use crate::tally::Tally;

pub(super) fn check(project: &Project, tally: &mut Tally) -> Result<(), Stop> {
    Command::cargo(project)
        .args(["fmt", "--all", "--check"])
        .run(tally)?;
    super::fuzz::check_format(project, tally)?;
    super::bare::check_format(project, tally)
}
