//! Clippy and rustdoc, warnings denied.

use crate::command::Command;
use crate::project::{NO_STD, Project};
use crate::step::Stop;
use crate::tally::Tally;

pub(super) fn clippy(project: &Project, tally: &mut Tally) -> Result<(), Stop> {
    let clippy = |args: &[&str]| {
        Command::cargo(project)
            .args(["clippy"])
            .args(args)
            .args(["--", "-D", "warnings"])
    };
    clippy(&["--workspace", "--all-targets"]).run(tally)?;
    clippy(&["--workspace", "--all-targets", "--all-features"]).run(tally)?;
    for package in NO_STD {
        clippy(&["--package", package, "--no-default-features"]).run(tally)?;
    }
    Ok(())
}

pub(super) fn documentation(project: &Project, tally: &mut Tally) -> Result<(), Stop> {
    Command::cargo(project)
        .args(["doc", "--workspace", "--no-deps", "--all-features"])
        .env("RUSTDOCFLAGS", "-D warnings")
        .run(tally)
}
