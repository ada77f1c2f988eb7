//! `cargo xtask bench`: benchmarks with more to set up than `cargo bench` has.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::command::Command;
use crate::packages;
use crate::project::Project;
use crate::ringtest;
use crate::step::Stop;
use crate::tally::Tally;

#[derive(Subcommand)]
pub(crate) enum Bench {
    /// Rings beside their peers: ratios, and how they stand to their targets
    Rings(Rings),
    /// Tables and signals beside their peers, in the same way
    Tables(Options),
}

#[derive(Args)]
pub(crate) struct Rings {
    #[command(flatten)]
    options: Options,
    /// Instructions per element, counted by callgrind, instead of times
    #[arg(long, conflicts_with = "markdown")]
    callgrind: bool,
}

#[derive(Args)]
pub(crate) struct Options {
    /// One JSON object a line on standard output; the targets go to standard error
    #[arg(long)]
    json: bool,
    /// The table of docs/benchmarks.md
    #[arg(long, conflicts_with = "json")]
    markdown: bool,
    /// Only benchmarks whose name contains this, such as `packed/` or `oneway`; may be given several times
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Few and short repetitions: a smoke test, no figures
    #[arg(long)]
    quick: bool,
    /// With real-time priority, for figures on a machine that others use; needs root
    #[arg(long)]
    realtime: bool,
}

impl Options {
    fn arguments(&self) -> Vec<String> {
        let flags = [
            (self.json, "--json"),
            (self.markdown, "--markdown"),
            (self.quick, "--quick"),
            (self.realtime, "--realtime"),
        ];
        let flags = flags
            .into_iter()
            .filter(|(is_set, _)| *is_set)
            .map(|(_, flag)| flag.to_owned());
        let only = self
            .only
            .iter()
            .flat_map(|name| ["--only".to_owned(), name.clone()]);
        flags.chain(only).collect()
    }
}

/// Standard output is the benchmark's alone.
pub(crate) fn bench(project: Project, bench: &Bench) -> ExitCode {
    let project = &Project {
        prints_figures: true,
        ..project
    };
    match bench {
        Bench::Rings(rings) => {
            let mut tally = Tally::default();
            let set_up = packages::install_missing(project, &mut tally);
            let ringtest = ringtest::build(project, &mut tally);
            for stop in [set_up.as_ref().err(), ringtest.as_ref().err()] {
                if let Some(Stop::Failed(why) | Stop::Skipped(why)) = stop {
                    eprintln!("SKIPPED: {why}");
                }
            }
            let mut command = benchmark(project, "rings").args(rings.options.arguments());
            if rings.callgrind {
                command = command.args(["--callgrind"]);
            }
            if let Ok(directory) = ringtest {
                command = command.env("RINGTEST", directory);
            }
            run(command)
        }
        Bench::Tables(options) => run(benchmark(project, "tables").args(options.arguments())),
    }
}

/// One of the programs in `benches/benches`, its arguments to follow.
fn benchmark(project: &Project, name: &str) -> Command {
    Command::cargo(project)
        .args(["bench", "--quiet", "--package", "shmbus-benches"])
        .args(["--bench", name, "--"])
}

fn run(command: Command) -> ExitCode {
    match command.hand_over() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: cargo cannot run: {error}");
            ExitCode::FAILURE
        }
    }
}
