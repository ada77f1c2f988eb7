//! The tests proper, in the `checked` profile: optimised, as stress tests and loom need, with assertions on.

use std::fs;
use std::io;

use crate::command::Command;
use crate::junit;
use crate::project::Project;
use crate::step::Stop;
use crate::tally::Tally;
use crate::vm;

/// Where nextest's profile writes its report, from the workspace's root: `CARGO_TARGET_DIR` does not move it.
const REPORT: &str = "target/nextest/xtask/junit.xml";

pub(super) fn tests(project: &Project, tally: &mut Tally) -> Result<(), Stop> {
    vm::build_programs(project, tally)?;
    if has_nextest(project) {
        return nextest(project, "not binary(/^loom_/)", tally);
    }
    let targets = test_targets(project)?;
    let plain = targets.iter().filter(|name| !is_loom(name));
    cargo_test(project)
        .args(["--lib", "--bins"])
        .args(plain.flat_map(|name| ["--test", name]))
        .args(["--", "--show-output"])
        .run(tally)
}

pub(super) fn loom(project: &Project, tally: &mut Tally) -> Result<(), Stop> {
    if has_nextest(project) {
        return nextest(project, "binary(/^loom_/)", tally);
    }
    let targets = test_targets(project)?;
    let loom = targets.iter().filter(|name| is_loom(name));
    cargo_test(project)
        .args(loom.flat_map(|name| ["--test", name]))
        .run(tally)
}

pub(super) fn doctests(project: &Project, tally: &mut Tally) -> Result<(), Stop> {
    cargo_test(project).args(["--doc"]).run(tally)
}

fn cargo_test(project: &Project) -> Command {
    vm::with_parts(project, Command::cargo(project)).args([
        "test",
        "--workspace",
        "--all-features",
        "--no-fail-fast",
        "--profile",
        "checked",
    ])
}

pub(super) fn has_nextest(project: &Project) -> bool {
    Command::cargo(project)
        .args(["nextest", "--version"])
        .read()
        .is_some()
}

fn nextest(project: &Project, filter: &str, tally: &mut Tally) -> Result<(), Stop> {
    let report = project.root.join(REPORT);
    let _ = fs::remove_file(&report); // of an earlier run
    let result = vm::with_parts(project, Command::cargo(project))
        .args([
            "nextest",
            "run",
            "--workspace",
            "--all-features",
            "--cargo-profile",
            "checked",
        ])
        .args(["--profile", "xtask", "--filterset", filter])
        .run(tally);
    if let Ok(report) = fs::read_to_string(&report) {
        junit::read(&report, tally);
    }
    result
}

fn test_targets(project: &Project) -> Result<Vec<String>, Stop> {
    let names = project
        .test_targets()
        .map_err(|error: io::Error| Stop::Failed(format!("cannot look for tests: {error}")))?;
    Ok(names.into_iter().collect())
}

fn is_loom(target: &str) -> bool {
    target.starts_with("loom_")
}
