//! The Debian packages that some tests and benchmarks use. Without them those are skipped, with their reason.

use std::env;
use std::path::Path;

use crate::command::Command;
use crate::project::Project;
use crate::step::Stop;
use crate::tally::Tally;

/// Where Debian puts the Linux kernel's source, part of which benchmarks are compared with.
pub(crate) const LINUX_SOURCE: &str = "/usr/src/linux-source-6.1.tar.xz";

/// A program or a file, and the package that it comes from.
const NEEDED: [(&str, &str); 11] = [
    ("c++", "g++"), // libFuzzer
    ("cc", "gcc"),  // the benchmarks' peers
    ("objcopy", "binutils"),
    (LINUX_SOURCE, "linux-source-6.1"),
    ("xz", "xz-utils"),
    ("zstd", "zstd"),
    ("valgrind", "valgrind"),
    ("curl", "curl"),
    ("ip", "iproute2"),
    ("ping", "iputils-ping"),
    ("unshare", "util-linux"),
];

/// Installs what is missing.
///
/// # Errors
///
/// [`Stop::Skipped`] when something stays missing.
pub(crate) fn install_missing(project: &Project, tally: &mut Tally) -> Result<(), Stop> {
    let missing: Vec<_> = NEEDED
        .iter()
        .filter(|(what, _)| !is_there(what))
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    if !is_installed("apt-get") {
        return Err(Stop::Skipped(format!(
            "this is no Debian; it lacks: {list}"
        )));
    }
    if !is_root(project) {
        return Err(Stop::Skipped(format!(
            "only root can install Debian packages; missing: {list}"
        )));
    }
    let apt = |args: &[&str]| {
        Command::new(project, "apt-get")
            .args(args)
            .env("DEBIAN_FRONTEND", "noninteractive")
    };
    let unreachable = |stop| match stop {
        Stop::Failed(what) => Stop::Skipped(format!("cannot install {list}: {what}")),
        skipped => skipped,
    };
    apt(&["update", "--quiet"])
        .run(tally)
        .map_err(unreachable)?;
    apt(&["install", "--quiet", "--yes", "--no-install-recommends"])
        .args(&missing)
        .run(tally)
        .map_err(unreachable)
}

fn is_there(what: &str) -> bool {
    if what.starts_with('/') {
        Path::new(what).is_file()
    } else {
        is_installed(what)
    }
}

/// Whether `program` is found in `PATH`, or where only root's `PATH` leads.
pub(crate) fn is_installed(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|directory| directory.join(program).is_file())
}

fn is_root(project: &Project) -> bool {
    Command::new(project, "id")
        .args(["-u"])
        .read()
        .is_some_and(|id| id.trim() == "0")
}
