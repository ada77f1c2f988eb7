//! Builds tests in the copy of the sources, and runs them one by one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::catalogue::{Binary, TestName};
use super::tree::Tree;

/// How often a running test is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// Programs of tests, built from the copy as it was then.
pub(super) struct Programs {
    paths: BTreeMap<Binary, PathBuf>,
    directory: PathBuf,
    /// What the last one wrote.
    output: PathBuf,
}

/// What came of a test.
#[derive(Debug)]
pub(super) enum Verdict {
    Passed,
    /// Failed, or ended its program.
    Failed(String),
    /// Was still running after so long, and was ended.
    Hung(Duration),
}

/// What cargo says of a program that it built.
#[derive(Deserialize)]
struct Artifact {
    target: Target,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    kind: Vec<String>,
    name: String,
}

/// Builds the programs that have these tests of the crate in `directory`.
///
/// # Errors
///
/// What the compiler says.
pub(super) fn build<'n>(
    tree: &Tree,
    directory: &str,
    tests: impl IntoIterator<Item = &'n TestName>,
) -> Result<Programs, String> {
    let binaries: BTreeSet<_> = tests.into_iter().map(TestName::binary).collect();
    let choice = binaries.iter().flat_map(|binary| match binary {
        Binary::Library => vec!["--lib"],
        Binary::Integration(name) => vec!["--test", name],
    });
    let output = Command::new("cargo")
        .args(["test", "--no-run", "--locked", "--profile", "mutants"])
        .args(["--message-format", "json-render-diagnostics"])
        .args(["--package", &format!("shmbus-{directory}")])
        .args(choice)
        .current_dir(tree.root())
        .env("CARGO_TARGET_DIR", tree.target())
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cargo cannot run: {error}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let paths = String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<Artifact>(line).ok())
        .filter_map(|artifact| Some((artifact.target, artifact.executable?)))
        .map(|(target, path)| {
            let binary = if target.kind.iter().any(|kind| kind == "test") {
                Binary::Integration(target.name)
            } else {
                Binary::Library
            };
            (binary, path)
        })
        .collect();
    Ok(Programs {
        paths,
        directory: tree.root().join(directory),
        output: tree.target().join("output.txt"),
    })
}

impl Programs {
    /// Runs one test.
    ///
    /// # Errors
    ///
    /// Why it cannot be told whether the test passes.
    pub(super) fn run(&self, test: &TestName, limit: Duration) -> Result<Verdict, String> {
        let cannot = |error: io::Error| format!("{test} cannot run: {error}");
        let program = self
            .paths
            .get(&test.binary())
            .ok_or_else(|| format!("cargo built no program of {}", test.file()))?;
        let output = File::create(&self.output).map_err(cannot)?;
        let mut child = Command::new(program)
            .args(["--exact", &test.path()])
            .current_dir(&self.directory)
            .env("CARGO_MANIFEST_DIR", &self.directory)
            // A failure is enough: neither its trace nor the smallest input that leads to it is needed.
            .env("RUST_BACKTRACE", "0")
            .env("PROPTEST_MAX_SHRINK_ITERS", "0")
            .stdin(Stdio::null())
            .stdout(output.try_clone().map_err(cannot)?)
            .stderr(output)
            .spawn()
            .map_err(cannot)?;
        let start = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().map_err(cannot)? {
                break status;
            }
            if start.elapsed() > limit {
                child.kill().map_err(cannot)?;
                child.wait().map_err(cannot)?;
                return Ok(Verdict::Hung(limit));
            }
            thread::sleep(LOOK);
        };
        let output = fs::read(&self.output).map_err(cannot)?;
        judge(status, &String::from_utf8_lossy(&output))
            .ok_or_else(|| format!("there is no test {test}"))
    }
}

/// None if the program had no such test.
fn judge(status: ExitStatus, output: &str) -> Option<Verdict> {
    if !status.success() {
        return Some(Verdict::Failed(format!("{status}\n{output}")));
    }
    output.contains("1 passed").then_some(Verdict::Passed)
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed => f.write_str("passed"),
            Self::Failed(how) => write!(f, "failed: {how}"),
            Self::Hung(after) => write!(f, "still running after {} s", after.as_secs()),
        }
    }
}
