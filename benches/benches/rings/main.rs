//! Rings beside their peers: `cargo xtask bench rings`.
//!
//! What shares a process with its peers is interleaved there, in several processes; what runs against a program is
//! started anew for each repetition, and so is the program. `docs/benchmarks.md` says what each line compares.

#[path = "../contenders/rings/mod.rs"]
mod contenders;

mod callgrind;
mod effort;
mod measure;
mod peers;
mod realtime;
mod report;
mod ringtest;
mod targets;

use std::env;
use std::error::Error;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use shmbus_benches::{Comparison, ProcessError, compare_here, run_here};

use effort::Effort;
use measure::Measure;
use peers::Peer;
use report::Report;

/// Set where the priority has been raised.
const REALTIME: &str = "RINGS_IN_REAL_TIME";

#[derive(Parser)]
#[command(about = "Rings beside their peers")]
struct Arguments {
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
    /// Print a table for docs/benchmarks.md
    #[arg(long, conflicts_with = "json")]
    markdown: bool,
    /// Only benchmarks whose name contains this; may be given several times
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Few and short repetitions: a smoke test, no figures
    #[arg(long)]
    quick: bool,
    /// Run with real-time priority, which others on the machine cannot interrupt; needs the right to
    #[arg(long)]
    realtime: bool,
    /// Count instructions per element instead
    #[arg(long, conflicts_with = "markdown")]
    callgrind: bool,
    /// Measures one contender, or with `--repetitions` all of one benchmark, in this process
    #[arg(long, hide = true, value_name = "NAME")]
    here: Option<String>,
    #[arg(long, hide = true, default_value_t = 0)]
    contender: usize,
    #[arg(long, hide = true, default_value_t = 0)]
    operations: u64,
    #[arg(long, hide = true)]
    repetitions: Option<usize>,
    /// What cargo says to a benchmark that it does not only test
    #[arg(long, hide = true)]
    bench: bool,
}

impl Arguments {
    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| name.contains(only.as_str()))
    }

    fn effort(&self) -> Effort {
        match self {
            Self { bench: false, .. } => Effort::ONCE,
            Self { quick: true, .. } => Effort::QUICK,
            _ => Effort::FULL,
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.realtime && env::var_os(REALTIME).is_none() {
        return realtime::run_again();
    }
    let mut all = contenders::all();
    let result = match &arguments.here {
        Some(name) => here(&all, name, &arguments),
        None => {
            all.retain(|one| arguments.wants(&one.name));
            if arguments.callgrind {
                callgrind::count(&all, arguments.json)
            } else {
                compare(&all, &arguments)
            }
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn here(all: &[Comparison], name: &str, arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let Some(comparison) = all.iter().find(|one| one.name == name) else {
        return Err(format!("there is no benchmark {name}").into());
    };
    match arguments.repetitions {
        Some(repetitions) => compare_here(comparison, repetitions),
        None => run_here(comparison, arguments.contender, arguments.operations),
    }
}

fn compare(all: &[Comparison], arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let measure = Measure::new(arguments.effort())?;
    let mut report = Report::new(arguments.json, arguments.markdown);
    let compared: Vec<(&Comparison, Peer)> = all
        .iter()
        .filter_map(|one| Some((one, Peer::of(&one.name)?)))
        .collect();
    let bar = progress_bar(compared.len())?;
    measure.say_round_trip();
    let mut failed = Vec::new();
    for (comparison, peer) in &compared {
        bar.set_message(comparison.name.clone());
        match measure.compare(&comparison.name, peer) {
            Ok(lines) => bar.suspend(|| report.add(lines))?,
            Err(ProcessError::Skipped(why)) => {
                bar.suspend(|| report.skip(&comparison.name, &why));
            }
            Err(ProcessError::Failed(why)) => {
                bar.suspend(|| report.fail(&comparison.name, &why));
                failed.push(comparison.name.as_str());
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    measure.say_round_trip();
    report.finish(|bench| arguments.wants(bench))?;
    if failed.is_empty() {
        Ok(())
    } else {
        Err(format!("failed: {}", failed.join(", ")).into())
    }
}

/// On standard error; nothing is drawn where that is no terminal.
fn progress_bar(steps: usize) -> Result<ProgressBar, Box<dyn Error>> {
    let bar = ProgressBar::new(steps as u64);
    bar.set_style(ProgressStyle::with_template(
        "{bar:30} {pos}/{len} {elapsed} {msg}",
    )?);
    bar.enable_steady_tick(Duration::from_millis(250));
    Ok(bar)
}

/// This program.
fn this_program() -> Result<PathBuf, ProcessError> {
    env::current_exe().map_err(|error| ProcessError::Failed(error.to_string()))
}

/// This program, to run one contender of a benchmark.
fn contender(program: &PathBuf, name: &str, contender: usize, operations: u64) -> Command {
    let mut command = Command::new(program);
    command
        .args(["--here", name, "--contender", &contender.to_string()])
        .args(["--operations", &operations.to_string()]);
    command
}
