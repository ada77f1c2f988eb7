//! What rustup has to provide beside the toolchain that builds the project.

use crate::command::Command;
use crate::packages::is_installed;
use crate::project::Project;
use crate::step::Stop;
use crate::tally::Tally;

/// What the nightly toolchain is used for: Miri, and a standard library rebuilt under a sanitizer.
const NIGHTLY_COMPONENTS: [&str; 2] = ["miri", "rust-src"];

/// The targets that the code is checked for: a machine with a weaker memory order, and machines without an operating
/// system.
pub(crate) const LINUX_TARGET: &str = "aarch64-unknown-linux-gnu";
/// Targets without an operating system.
pub(crate) const BARE_METAL_TARGETS: [&str; 2] = ["x86_64-unknown-none", "aarch64-unknown-none"];

/// Sees to it that the nightly toolchain is there, with its components.
///
/// # Errors
///
/// [`Stop::Skipped`] when it is not and cannot be installed.
pub(crate) fn need_nightly(project: &Project, tally: &mut Tally) -> Result<(), Stop> {
    need_rustup()?;
    let installed = rustup(project)
        .args(["component", "list", "--installed", "--toolchain", "nightly"])
        .read()
        .unwrap_or_default();
    let has = |component: &str| installed.lines().any(|line| line.starts_with(component));
    if NIGHTLY_COMPONENTS.iter().all(|component| has(component)) {
        return Ok(());
    }
    // With components, rustup takes the newest nightly that has them all.
    rustup(project)
        .args(["toolchain", "install", "nightly", "--profile", "minimal"])
        .args([
            "--no-self-update",
            "--component",
            &NIGHTLY_COMPONENTS.join(","),
        ])
        .run(tally)
        .map_err(unavailable)
}

/// Sees to it that the standard library of `target` is there.
///
/// # Errors
///
/// [`Stop::Skipped`] when it is not and cannot be installed.
pub(crate) fn need_target(project: &Project, target: &str, tally: &mut Tally) -> Result<(), Stop> {
    need_rustup()?;
    let installed = rustup(project)
        .args(["target", "list", "--installed"])
        .read()
        .unwrap_or_default();
    if installed.lines().any(|line| line == target) {
        return Ok(());
    }
    rustup(project)
        .args(["target", "add", target])
        .run(tally)
        .map_err(unavailable)
}

/// The target that this machine builds for.
pub(crate) fn host(project: &Project) -> Option<String> {
    let version = Command::new(project, "rustc").args(["-vV"]).read()?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned)
}

fn rustup(project: &Project) -> Command {
    Command::new(project, "rustup")
}

fn need_rustup() -> Result<(), Stop> {
    if is_installed("rustup") {
        Ok(())
    } else {
        Err(Stop::Skipped("there is no rustup".to_owned()))
    }
}

fn unavailable(stop: Stop) -> Stop {
    match stop {
        Stop::Failed(what) => Stop::Skipped(what),
        skipped => skipped,
    }
}
