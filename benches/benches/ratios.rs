//! Ratios to the peers, with their bounds: one JSON object a line.
//!
//! Each comparison runs in several processes, one after the other: how the pages of a process happen to lie, and which
//! mode its threads fall into, is then part of the bounds.

mod contenders;

use std::env;
use std::process::{Command, ExitCode};

use serde::Serialize;
use serde_json::json;
use shmbus_benches::{Comparison, Contender, SetUpError, interleave, median, ratio};

/// Processes for each comparison, and repetitions in each.
const PROCESSES: usize = 5;
const REPETITIONS: usize = 60;

/// What one process measured: the contenders' names, and a row of nanoseconds for each repetition.
struct Run {
    names: Vec<String>,
    rows: Vec<Vec<f64>>,
}

/// What is printed of a peer. Below a ratio of 1 ours takes less time; `low` and `high` bound it with 95 % confidence.
#[derive(Serialize)]
struct Line<'a> {
    bench: &'a str,
    ours_ns: f64,
    peer: &'a str,
    peer_ns: f64,
    ratio: f64,
    low: f64,
    high: f64,
    /// Repetitions over all processes.
    n: usize,
    processes: usize,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if let [flag, name] = arguments.as_slice()
        && flag == "--one-process"
    {
        return one_process(name);
    }
    // `cargo bench` passes `--bench`; `cargo test` does not, and wants everything run once.
    let (processes, repetitions) = if arguments.iter().any(|argument| argument == "--bench") {
        (PROCESSES, REPETITIONS)
    } else {
        (1, 2)
    };
    let wanted = arguments
        .iter()
        .find(|argument| !argument.starts_with("--"));
    let mut result = ExitCode::SUCCESS;
    for comparison in contenders::ALL {
        if wanted.is_some_and(|wanted| !comparison.name.contains(wanted.as_str())) {
            continue;
        }
        eprintln!("{}: {}", comparison.name, comparison.about);
        if let Err(error) = compare(&comparison, processes, repetitions) {
            eprintln!("{} failed: {error}", comparison.name);
            result = ExitCode::FAILURE;
        }
    }
    result
}

fn compare(
    comparison: &Comparison,
    processes: usize,
    repetitions: usize,
) -> Result<(), SetUpError> {
    let mut runs = Vec::new();
    for _ in 0..processes {
        let output = Command::new(env::current_exe()?)
            .args(["--one-process", comparison.name])
            .env("REPETITIONS", repetitions.to_string())
            .output()?;
        let errors = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            return Err(errors.trim().into());
        }
        if let Some(skipped) = errors.lines().find(|line| line.starts_with("SKIPPED: ")) {
            eprintln!("{skipped}");
            return Ok(());
        }
        runs.push(parse(&String::from_utf8(output.stdout)?)?);
    }
    let Some(Run { names, .. }) = runs.first() else {
        return Ok(());
    };
    for (index, peer) in names.iter().enumerate().skip(1) {
        let column = |column: usize| {
            let rows = runs.iter().flat_map(|run| &run.rows);
            median(&mut rows.map(|row| row[column]).collect::<Vec<_>>())
        };
        let pairs: Vec<_> = runs
            .iter()
            .map(|run| run.rows.iter().map(|row| (row[0], row[index])).collect())
            .collect();
        let ratio = ratio(&pairs);
        let round = |value: f64| (value * 1000.0).round() / 1000.0;
        let line = Line {
            bench: comparison.name,
            ours_ns: round(column(0)),
            peer,
            peer_ns: round(column(index)),
            ratio: round(ratio.median),
            low: round(ratio.low),
            high: round(ratio.high),
            n: ratio.repetitions,
            processes,
        };
        println!("{}", serde_json::to_string(&line)?);
    }
    Ok(())
}

/// Runs a comparison here and prints the names, then a line for each repetition.
fn one_process(name: &str) -> ExitCode {
    let repetitions = env::var("REPETITIONS")
        .ok()
        .and_then(|count| count.parse().ok())
        .unwrap_or(REPETITIONS);
    let Some(comparison) = contenders::ALL.into_iter().find(|one| one.name == name) else {
        eprintln!("there is no comparison {name}");
        return ExitCode::FAILURE;
    };
    let mut contenders: Vec<Contender> = match (comparison.set_up)() {
        Ok(contenders) => contenders,
        Err(error) if error.is::<shmbus_benches::TooFewProcessors>() => {
            eprintln!("SKIPPED: {error}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let names: Vec<_> = contenders.iter().map(|one| one.name).collect();
    println!("{}", json!(names));
    for row in interleave(&mut contenders, repetitions) {
        println!("{}", json!(row));
    }
    ExitCode::SUCCESS
}

fn parse(output: &str) -> Result<Run, SetUpError> {
    let mut lines = output.lines();
    let names: Vec<String> = serde_json::from_str(lines.next().unwrap_or_default())?;
    let rows: Vec<Vec<f64>> = lines.map(serde_json::from_str).collect::<Result<_, _>>()?;
    if rows.iter().any(|row| row.len() != names.len()) {
        return Err("a row has another length than the names".into());
    }
    Ok(Run { names, rows })
}
