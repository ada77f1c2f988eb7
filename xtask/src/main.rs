//! `cargo xtask`: sets up what is missing, runs every check of the project, and says what passed, failed or could not
//! run, and why.

mod bench;
mod command;
mod junit;
mod packages;
mod project;
mod report;
mod ringtest;
mod step;
mod steps;
mod tally;
mod toolchain;
mod vm;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::bench::Bench;
use crate::project::Project;
use crate::report::Report;
use crate::step::{Step, Stop};
use crate::steps::{ALL, fuzz, interop, mutants, torture};

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about, version)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Run every check; the last line reads `N passed, N failed, N skipped`
    Test(Selection),
    /// Install the Debian packages, the nightly components and the targets that the checks use
    Setup,
    /// Fuzz every target, or one
    Fuzz(fuzz::Options),
    /// Apply the mutations in each crate's `mutants.toml`, one at a time, and show that each is caught by the tests it names
    Mutants(mutants::Options),
    /// Read tables from other processes, and kill their writers, very often: no value may be torn, too old or lost
    Torture(torture::Options),
    /// Run the tests in guests with every QEMU and kernel, and write the table in docs/interop.md
    Interop(interop::Options),
    /// Measure beside the peers
    #[command(subcommand)]
    Bench(Bench),
}

#[derive(Args)]
struct Selection {
    /// Run only this step; may be given several times
    #[arg(long, value_name = "STEP", value_parser = steps::names())]
    only: Vec<String>,
    /// Leave out what takes minutes: torture, mutations, Miri, ThreadSanitizer, fuzzing, benchmarks
    #[arg(long)]
    quick: bool,
    /// List the steps and stop
    #[arg(long)]
    list: bool,
}

impl Selection {
    fn steps(&self) -> Vec<Step> {
        ALL.iter()
            .filter(|step| match self.only.as_slice() {
                [] => !(self.quick && step.slow),
                only => only.iter().any(|name| name == step.name),
            })
            .copied()
            .collect()
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let project = match Project::find() {
        Ok(project) => project,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    let report = match arguments.task {
        Task::Test(selection) if selection.list => {
            for step in selection.steps() {
                println!("{:12} {}", step.name, step.about);
            }
            return ExitCode::SUCCESS;
        }
        Task::Test(selection) => run(&project, &selection.steps()),
        Task::Bench(what) => return bench::bench(project, &what),
        Task::Setup => run(&project, &[steps::SETUP]),
        Task::Fuzz(options) => {
            let mut report = Report::default();
            report.run(1, 1, &steps::FUZZ, |tally| {
                fuzz::fuzz(&project, &options, tally)
            });
            report
        }
        Task::Torture(options) => {
            let mut report = Report::default();
            report.run(1, 1, &steps::TORTURE, |tally| {
                torture::torture(&project, &options, tally)
            });
            report
        }
        Task::Interop(options) => {
            let mut report = Report::default();
            report.run(1, 1, &steps::INTEROP, |tally| {
                interop::interop(&project, &options, tally)
            });
            report
        }
        Task::Mutants(options) if options.list => {
            return match mutants::list(&project, &options) {
                Ok(()) => ExitCode::SUCCESS,
                Err(Stop::Failed(why) | Stop::Skipped(why)) => {
                    eprintln!("error: {why}");
                    ExitCode::FAILURE
                }
            };
        }
        Task::Mutants(options) => {
            let mut report = Report::default();
            report.run(1, 1, &steps::MUTANTS, |tally| {
                mutants::mutants(&project, &options, tally)
            });
            report
        }
    };
    report.print();
    if report.failed() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

fn run(project: &Project, steps: &[Step]) -> Report {
    let mut report = Report::default();
    for (index, step) in steps.iter().enumerate() {
        report.run(index + 1, steps.len(), step, |tally| {
            (step.run)(project, tally)
        });
    }
    report
}
