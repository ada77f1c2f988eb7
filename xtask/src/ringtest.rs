//! Builds the programs of the Linux kernel's `tools/virtio/ringtest`, which rings are compared with: from Debian's
//! package of the kernel's source, below `target`. None of that code is part of this project.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::command::Command;
use crate::packages::{LINUX_SOURCE, is_installed};
use crate::project::Project;
use crate::step::Stop;
use crate::tally::Tally;

/// Those that are used.
const PROGRAMS: [&str; 3] = ["ring", "virtio_ring_0_9", "virtio_ring_inorder"];

/// As its Makefile has them.
const FLAGS: [&str; 6] = [
    "-Wall",
    "-pthread",
    "-O2",
    "-ggdb",
    "-flto",
    "-fwhole-program",
];

/// Where they are, built if need be.
///
/// # Errors
///
/// [`Stop::Skipped`] if something that they are made of is missing.
pub(crate) fn build(project: &Project, tally: &mut Tally) -> Result<PathBuf, Stop> {
    let directory = project.target.join("ringtest");
    let harness = project.root.join("benches/ringtest/harness.c");
    let programs = PROGRAMS.map(|program| directory.join(program));
    if programs
        .iter()
        .all(|program| is_newer(program, &harness).unwrap_or(false))
    {
        return Ok(directory);
    }
    if !Path::new(LINUX_SOURCE).is_file() {
        return Err(Stop::Skipped(format!(
            "ringtest is built from {LINUX_SOURCE}, of Debian's package linux-source-6.1, which is missing"
        )));
    }
    for program in ["cc", "tar", "xz"] {
        if !is_installed(program) {
            return Err(Stop::Skipped(format!("ringtest needs {program}")));
        }
    }
    let source = directory.join("source");
    fs::create_dir_all(&source)
        .map_err(|error| Stop::Failed(format!("cannot create {}: {error}", source.display())))?;
    if !source.join("main.c").is_file() {
        Command::new(project, "tar")
            .args(["--extract", "--file", LINUX_SOURCE, "--directory"])
            .args([&source])
            .args([
                "--strip-components=4",
                "--wildcards",
                "*/tools/virtio/ringtest/*",
            ])
            .run(tally)?;
    }
    for (name, program) in PROGRAMS.iter().zip(&programs) {
        Command::new(project, "cc")
            .args(FLAGS)
            // Our own `main` calls theirs, and counts what it writes.
            .args(["-Dmain=ringtest_main", "-Dwrite=counted_write"])
            .args([
                source.join("main.c"),
                source.join(format!("{name}.c")),
                harness.clone(),
            ])
            .args([Path::new("-o"), program])
            .run(tally)?;
    }
    Ok(directory)
}

/// Whether `built` is there, and was built after `source` was changed.
fn is_newer(built: &Path, source: &Path) -> io::Result<bool> {
    Ok(fs::metadata(built)?.modified()? > fs::metadata(source)?.modified()?)
}
