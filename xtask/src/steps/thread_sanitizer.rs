//! ThreadSanitizer over the two-thread tests, with a standard library built under it too.

use crate::command::{Command, run_all};
use crate::project::{LOCK_FREE, Project};
use crate::step::Stop;
use crate::tally::Tally;
use crate::toolchain::{host, need_nightly};

/// Where Rust supports the sanitizer, of the machines that the project runs on.
const SUPPORTED: [&str; 2] = ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"];

pub(super) fn thread_sanitizer(project: &Project, tally: &mut Tally) -> Result<(), Stop> {
    need_nightly(project, tally)?;
    let host = host(project).unwrap_or_default();
    if !SUPPORTED.contains(&host.as_str()) {
        return Err(Stop::Skipped(format!(
            "no ThreadSanitizer for target {host:?}"
        )));
    }
    let tests = LOCK_FREE.iter().map(|directory| {
        Command::nightly_cargo(project)
            .args(["test", "-Zbuild-std", "--target", &host])
            .args(["--package", &format!("shmbus-{directory}")])
            .args(["--test", "threads"])
            // Its copies in assembler are invisible to the sanitizer.
            .env("RUSTFLAGS", "-Zsanitizer=thread --cfg shmbus_forced_words")
            .env("CARGO_TARGET_DIR", project.target.join("tsan"))
    });
    run_all(tests, tally)
}
