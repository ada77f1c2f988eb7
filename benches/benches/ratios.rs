//! Ratios to the peers, with their bounds: one JSON object a line. Rings have a benchmark of their own, `rings`.

#[path = "contenders/positions.rs"]
mod positions;
#[path = "contenders/tables.rs"]
mod tables;

use std::env;
use std::error::Error;
use std::process::{Command, ExitCode};

use shmbus_benches::{Comparison, Line, ProcessError, compare_here, compare_in_process};

/// Processes for each comparison, one after the other, and repetitions in each.
const PROCESSES: usize = 5;
const REPETITIONS: usize = 60;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let all: Vec<_> = [tables::all(), positions::all()]
        .into_iter()
        .flatten()
        .collect();
    let result = if let [flag, name, repetitions] = arguments.as_slice()
        && flag == "--one-process"
    {
        one_process(&all, name, repetitions)
    } else {
        compare_all(&all, &arguments)
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn one_process(all: &[Comparison], name: &str, repetitions: &str) -> Result<(), Box<dyn Error>> {
    match all.iter().find(|one| one.name == name) {
        Some(comparison) => compare_here(comparison, repetitions.parse()?),
        None => Err(format!("there is no comparison {name}").into()),
    }
}

fn compare_all(all: &[Comparison], arguments: &[String]) -> Result<(), Box<dyn Error>> {
    // `cargo bench` passes `--bench`; `cargo test` does not, and wants everything run once.
    let (processes, repetitions) = if arguments.iter().any(|argument| argument == "--bench") {
        (PROCESSES, REPETITIONS)
    } else {
        (1, 2)
    };
    let wanted = arguments
        .iter()
        .find(|argument| !argument.starts_with("--"));
    for comparison in all {
        if wanted.is_some_and(|wanted| !comparison.name.contains(wanted.as_str())) {
            continue;
        }
        eprintln!("{}: {}", comparison.name, comparison.about);
        match compare(&comparison.name, processes, repetitions) {
            Err(ProcessError::Skipped(why)) => eprintln!("SKIPPED: {why}"),
            result => result?,
        }
    }
    Ok(())
}

fn compare(name: &str, processes: usize, repetitions: usize) -> Result<(), ProcessError> {
    let failed = |error: &dyn Error| ProcessError::Failed(error.to_string());
    let program = env::current_exe().map_err(|error| failed(&error))?;
    let mut runs = Vec::new();
    for _ in 0..processes {
        let repetitions = repetitions.to_string();
        let mut command = Command::new(&program);
        runs.push(compare_in_process(command.args([
            "--one-process",
            name,
            &repetitions,
        ]))?);
    }
    for line in Line::each(name, &runs) {
        let text = serde_json::to_string(&line).map_err(|error| failed(&error))?;
        println!("{text}");
    }
    Ok(())
}
