//! A benchmark program: all its comparisons, one after the other.

use std::error::Error;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::report::Report;
use crate::{Comparison, Line, Measure, Options, ProcessError, Target, compare_here, run_here};

/// Measures in this process what [`Options::here`] names.
///
/// # Errors
///
/// That there is no such benchmark; or of [`compare_here`] and [`run_here`].
pub fn measure_here(
    all: &[Comparison],
    name: &str,
    options: &Options,
) -> Result<(), Box<dyn Error>> {
    let Some(comparison) = all.iter().find(|one| one.name == name) else {
        return Err(format!("there is no benchmark {name}").into());
    };
    match options.repetitions {
        Some(repetitions) => compare_here(comparison, repetitions),
        None => run_here(comparison, options.contender, options.operations),
    }
}

/// Measures each of `benches`, by `compare`, and reports: the lines, and how they stand to the targets.
///
/// # Errors
///
/// Which benchmarks failed; what is missing on this machine is only skipped.
pub fn run_suite(
    benches: &[String],
    options: &Options,
    targets: &[Target],
    compare: impl Fn(&Measure, &str) -> Result<Vec<Line>, ProcessError>,
) -> Result<(), Box<dyn Error>> {
    let measure = Measure::new(options.effort())?;
    let mut report = Report::new(options, targets);
    let bar = progress_bar(benches.len())?;
    measure.say_round_trip();
    let mut failed = Vec::new();
    for bench in benches {
        bar.set_message(bench.clone());
        match compare(&measure, bench) {
            Ok(lines) => bar.suspend(|| report.add(lines))?,
            Err(ProcessError::Skipped(why)) => bar.suspend(|| report.skip(bench, &why)),
            Err(ProcessError::Failed(why)) => {
                bar.suspend(|| report.fail(bench, &why));
                failed.push(bench.as_str());
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    measure.say_round_trip();
    report.finish(|bench| options.wants(bench))?;
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
