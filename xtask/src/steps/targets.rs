//! The code compiles for machines other than this one.

use crate::command::Command;
use crate::project::{NO_STD, Project};
use crate::step::Stop;
use crate::tally::Tally;
use crate::toolchain::{BARE_METAL_TARGETS, LINUX_TARGET, need_target};

pub(super) fn check(project: &Project, tally: &mut Tally) -> Result<(), Stop> {
    need_target(project, LINUX_TARGET, tally)?;
    Command::cargo(project)
        .args(["check", "--workspace", "--target", LINUX_TARGET])
        .run(tally)?;
    for target in BARE_METAL_TARGETS {
        need_target(project, target, tally)?;
        // One at a time: built together, one crate's features would serve another.
        for package in NO_STD {
            Command::cargo(project)
                .args(["check", "--package", package, "--no-default-features"])
                .args(["--target", target])
                .run(tally)?;
        }
    }
    Ok(())
}
