//! Instructions per element, counted by callgrind: the same each time, whatever else the machine does.
//!
//! Counted is what the functions do whose names begin with `timed_`, in two runs of different lengths; their difference
//! is free of what happens once.

use std::error::Error;
use std::process::Command;

use serde_json::json;
use shmbus_benches::{Comparison, Effort, Measure, ProcessError};

/// Whole rings.
const FEW: u64 = 256 * 8;
const MANY: u64 = 256 * 40;

/// Counts for every contender on one thread.
pub(crate) fn count(all: &[Comparison], json: bool) -> Result<(), Box<dyn Error>> {
    for comparison in all {
        if !comparison.about.starts_with("one thread") {
            continue;
        }
        for (index, one) in (comparison.set_up)()?.iter().enumerate() {
            let [few, many] =
                [FEW, MANY].map(|operations| instructions(&comparison.name, index, operations));
            let each = (many? - few?) as f64 / (MANY - FEW) as f64;
            let each = (each * 10.0).round() / 10.0;
            if json {
                let name = &comparison.name;
                println!(
                    "{}",
                    json!({"bench": name, "contender": one.name, "instructions": each})
                );
            } else {
                println!("{:24} {:20} {each:8.1}", comparison.name, one.name);
            }
        }
    }
    Ok(())
}

fn instructions(name: &str, index: usize, operations: u64) -> Result<u64, ProcessError> {
    let inner = Measure::new(Effort::ONCE)?.contender(name, index, operations);
    let mut command = Command::new("valgrind");
    command
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg("--toggle-collect=*timed_*")
        .arg(inner.get_program())
        .args(inner.get_args());
    let output = command
        .output()
        .map_err(|error| ProcessError::Skipped(format!("valgrind cannot run: {error}")))?;
    let text = String::from_utf8_lossy(&output.stderr);
    let collected = text.lines().find_map(|line| {
        let (_, count) = line.split_once("Collected : ")?;
        count.trim().parse().ok()
    });
    match collected {
        Some(count) if output.status.success() => Ok(count),
        _ => Err(ProcessError::Failed(format!(
            "{command:?}: {}",
            text.trim()
        ))),
    }
}
