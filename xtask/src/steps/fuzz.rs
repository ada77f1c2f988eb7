//! Fuzzing. The targets are a workspace of their own and link libFuzzer; they are built here as cargo-fuzz would build
//! them, so that nothing but the nightly toolchain and a C++ compiler need be installed.

mod campaign;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::command::Command;
use crate::packages::is_installed;
use crate::project::Project;
use crate::step::Stop;
use crate::tally::Tally;
use crate::toolchain::{host, need_nightly};

use campaign::Target;

/// Edge and comparison coverage for libFuzzer, addresses checked, overflows and debug assertions caught.
const FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
     -Cllvm-args=-sanitizer-coverage-trace-compares -Zsanitizer=address -Cdebug-assertions \
     -Coverflow-checks -Ccodegen-units=1";

#[derive(Args)]
pub(crate) struct Options {
    /// How long each target runs
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// How many targets run at a time
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Only this target
    target: Option<String>,
}

pub(super) fn fuzz_for_a_while(project: &Project, tally: &mut Tally) -> Result<(), Stop> {
    let options = Options {
        seconds: 20,
        jobs: 2,
        target: None,
    };
    fuzz(project, &options, tally)
}

pub(crate) fn fuzz(project: &Project, options: &Options, tally: &mut Tally) -> Result<(), Stop> {
    let host = host(project).unwrap_or_default();
    if !is_installed("c++") {
        return Err(Stop::Skipped("libFuzzer needs a C++ compiler".to_owned()));
    }
    need_nightly(project, tally)?;
    let targets = targets(project)?;
    let chosen: Vec<_> = targets
        .iter()
        .filter(|name| options.target.as_ref().is_none_or(|only| only == *name))
        .collect();
    if chosen.is_empty() {
        return Err(Stop::Failed(format!(
            "no such fuzz target; there are: {}",
            targets.join(", ")
        )));
    }

    let build = project.target.join("fuzz");
    Command::nightly_cargo(project)
        .args(["build", "--release", "--target", &host, "--manifest-path"])
        .args([manifest(project)])
        .args(chosen.iter().flat_map(|name| ["--bin", name.as_str()]))
        .env("RUSTFLAGS", FLAGS)
        .env("CARGO_TARGET_DIR", &build)
        .run(tally)?;
    let programs = build.join(&host).join("release");
    let targets = chosen
        .into_iter()
        .map(|name| target(project, &programs, name))
        .collect::<Result<Vec<_>, Stop>>()?;
    campaign::run(project, &targets, options.seconds, options.jobs, tally)
}

/// The workspace's own `cargo fmt` does not reach the fuzz targets.
pub(super) fn check_format(project: &Project, tally: &mut Tally) -> Result<(), Stop> {
    Command::cargo(project)
        .args(["fmt", "--check", "--manifest-path"])
        .args([manifest(project)])
        .run(tally)
}

fn directory(project: &Project) -> PathBuf {
    project.root.join("fuzz")
}

fn manifest(project: &Project) -> PathBuf {
    directory(project).join("Cargo.toml")
}

fn target(project: &Project, programs: &Path, name: &str) -> Result<Target, Stop> {
    let corpus = directory(project).join("corpus").join(name);
    let artifacts = directory(project).join("artifacts").join(name);
    for directory in [&corpus, &artifacts] {
        fs::create_dir_all(directory).map_err(|error| {
            Stop::Failed(format!("cannot create {}: {error}", directory.display()))
        })?;
    }
    Ok(Target {
        name: name.to_owned(),
        program: programs.join(name),
        corpus,
        artifacts,
    })
}

/// A file each in `fuzz/fuzz_targets`.
fn targets(project: &Project) -> Result<Vec<String>, Stop> {
    let list = || -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(directory(project).join("fuzz_targets"))? {
            let path = entry?.path();
            if let Some(name) = path.file_stem().and_then(|stem| stem.to_str()) {
                names.push(name.to_owned());
            }
        }
        names.sort();
        Ok(names)
    };
    list().map_err(|error| Stop::Failed(format!("cannot look for fuzz targets: {error}")))
}
