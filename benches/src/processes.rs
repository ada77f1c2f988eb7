//! Comparisons in processes of their own: how the pages of a process happen to lie, and which mode its threads fall
//! into, is then part of what is measured.

use std::io::{self, Write};
use std::process::Command;
use std::sync::atomic::Ordering::Relaxed;

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{Comparison, Cost, SetUpError, TooFewProcessors, interleave};

/// What one process measured.
#[derive(Debug)]
pub struct Run {
    /// The contenders' names, ours first.
    pub names: Vec<String>,
    /// The cost of an operation of each contender, a row for each repetition.
    pub rows: Vec<Vec<Cost>>,
}

/// What one contender measured by itself.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub struct Single {
    /// Nanoseconds, over all operations.
    pub ns: f64,
    /// How often its sides notified each other.
    pub notifications: u64,
    /// How many of its reads gave no value.
    #[serde(default)]
    pub misses: u64,
}

impl Single {
    /// The cost of each of so many operations.
    pub fn each_of(self, operations: u64) -> Cost {
        let operations = operations as f64;
        Cost {
            ns: self.ns / operations,
            notifications: self.notifications as f64 / operations,
            misses: self.misses as f64 / operations,
        }
    }
}

/// Why a process has measured nothing.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The machine lacks something.
    #[error("{0}")]
    Skipped(String),
    /// Something went wrong.
    #[error("{0}")]
    Failed(String),
}

/// In the process: runs all contenders in turn, and prints for [`compare_in_process`].
///
/// # Errors
///
/// Why a contender could not be set up, or the output not be written.
pub fn compare_here(comparison: &Comparison, repetitions: usize) -> Result<(), SetUpError> {
    let mut contenders = match (comparison.set_up)() {
        Ok(contenders) => contenders,
        Err(error) => return skipped(error),
    };
    let names: Vec<_> = contenders.iter().map(|one| one.name).collect();
    let mut out = io::stdout().lock();
    writeln!(out, "{}", json!(names))?;
    for row in interleave(&mut contenders, repetitions) {
        writeln!(out, "{}", json!(row))?;
    }
    Ok(())
}

/// In the process: runs one of the contenders once, by its index, and prints for [`run_in_process`].
///
/// # Errors
///
/// As for [`compare_here`]; and if there is no such contender.
pub fn run_here(
    comparison: &Comparison,
    contender: usize,
    operations: u64,
) -> Result<(), SetUpError> {
    let contenders = match (comparison.set_up)() {
        Ok(contenders) => contenders,
        Err(error) => return skipped(error),
    };
    let Some(mut contender) = contenders.into_iter().nth(contender) else {
        return Err("there is no such contender".into());
    };
    let single = Single {
        ns: (contender.run)(operations).as_nanos() as f64,
        notifications: contender.notifications.load(Relaxed),
        misses: contender.misses.load(Relaxed),
    };
    writeln!(io::stdout(), "{}", json!(single))?;
    Ok(())
}

/// Runs a program that ends in [`compare_here`].
///
/// # Errors
///
/// [`ProcessError`].
pub fn compare_in_process(program: &mut Command) -> Result<Run, ProcessError> {
    let output = output(program)?;
    let mut lines = output.lines();
    let names: Vec<String> = parse(lines.next().unwrap_or_default())?;
    let rows: Vec<Vec<Cost>> = lines.map(parse).collect::<Result<_, _>>()?;
    if rows.iter().any(|row| row.len() != names.len()) {
        let what = "a row has another length than the names";
        return Err(ProcessError::Failed(what.to_owned()));
    }
    Ok(Run { names, rows })
}

/// Runs a program that ends in [`run_here`], or prints what that prints.
///
/// # Errors
///
/// [`ProcessError`].
pub fn run_in_process(program: &mut Command) -> Result<Single, ProcessError> {
    parse(output(program)?.trim())
}

/// A machine with a single processor is no failure.
fn skipped(error: SetUpError) -> Result<(), SetUpError> {
    if error.is::<TooFewProcessors>() {
        eprintln!("{SKIPPED}{error}");
        return Ok(());
    }
    Err(error)
}

const SKIPPED: &str = "SKIPPED: ";

fn output(program: &mut Command) -> Result<String, ProcessError> {
    let output = program.output();
    let failed = |what: String| ProcessError::Failed(format!("{program:?}: {what}"));
    let output = output.map_err(|error| failed(error.to_string()))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        // A panic's message, without its backtrace.
        let what: Vec<_> = errors.trim().lines().take(2).collect();
        return Err(failed(format!("{}: {}", output.status, what.join(" "))));
    }
    if let Some(why) = errors.lines().find_map(|line| line.strip_prefix(SKIPPED)) {
        return Err(ProcessError::Skipped(why.to_owned()));
    }
    String::from_utf8(output.stdout).map_err(|error| failed(error.to_string()))
}

fn parse<'l, T: Deserialize<'l>>(line: &'l str) -> Result<T, ProcessError> {
    serde_json::from_str(line)
        .map_err(|error| ProcessError::Failed(format!("unexpected output {line:?}: {error}")))
}
