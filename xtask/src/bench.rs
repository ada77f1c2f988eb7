//! `cargo xtask bench`: benchmarks with more to set up than `cargo bench` has.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{fs, io};

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
    /// Tables, signals and the clock beside their peers, in the same way; then the ages
    Tables(Options),
    /// The age of the deadline that a host acts on: a timer over tables beside its twins over rings, over the load
    Ages(Options),
    /// What a device costs on a bus with 1 to 10,000 of them
    Scale(Scale),
    /// A page of plots and figures of tables and ages: target/report/index.html
    Report(Report),
}

#[derive(Args)]
pub(crate) struct Scale {
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    /// Few rounds: a smoke test, no figures
    #[arg(long)]
    quick: bool,
}

#[derive(Args)]
pub(crate) struct Report {
    /// JSON lines of an earlier run of `tables --json`, `ages --json` or both, in place of a run; may be given several times
    #[arg(long, value_name = "FILE")]
    from: Vec<PathBuf>,
    /// Few and short repetitions: a smoke test, no figures
    #[arg(long)]
    quick: bool,
    /// With real-time priority, for figures on a machine that others use; needs root
    #[arg(long)]
    realtime: bool,
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
    /// Of the two programs whose lines `bench tables` prints, whether the second has any to print.
    fn wants_ages(&self) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| name.contains("age"))
    }

    fn arguments(&self) -> Vec<String> {
        let flags = [
            (self.json, "--json"),
            (self.markdown, "--markdown"),
            (self.quick, "--quick"),
            (self.realtime, "--realtime"),
        ];
        let flags = chosen(flags).map(str::to_owned);
        let only = self
            .only
            .iter()
            .flat_map(|name| ["--only".to_owned(), name.clone()]);
        flags.chain(only).collect()
    }
}

/// The flags that are set.
fn chosen<const N: usize>(flags: [(bool, &'static str); N]) -> impl Iterator<Item = &'static str> {
    flags
        .into_iter()
        .filter_map(|(is_set, flag)| is_set.then_some(flag))
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
        Bench::Tables(options) => {
            let tables = run(benchmark(project, "tables").args(options.arguments()));
            if tables != ExitCode::SUCCESS || !options.wants_ages() {
                return tables;
            }
            run(benchmark(project, "ages").args(options.arguments()))
        }
        Bench::Ages(options) => run(benchmark(project, "ages").args(options.arguments())),
        Bench::Scale(scale) => {
            let flags = [(scale.json, "--json"), (scale.quick, "--quick")];
            run(benchmark(project, "scale").args(chosen(flags)))
        }
        Bench::Report(report) => match write_report(project, report) {
            Ok(code) => code,
            Err(error) => {
                eprintln!("error: {error}");
                ExitCode::FAILURE
            }
        },
    }
}

/// Measures what no file tells of, and writes the page.
fn write_report(project: &Project, report: &Report) -> io::Result<ExitCode> {
    let directory = project.target.join("report");
    fs::create_dir_all(&directory)?;
    let mut from = report.from.clone();
    let has_ages =
        |path: &PathBuf| fs::read_to_string(path).is_ok_and(|text| text.contains("\"age-"));
    let is_told = |name| match name {
        "ages" => report.from.iter().any(has_ages),
        _ => !report.from.is_empty(),
    };
    for name in ["tables", "ages"] {
        if is_told(name) {
            continue;
        }
        let flags = [(report.quick, "--quick"), (report.realtime, "--realtime")];
        let lines = directory.join(name).with_extension("jsonl");
        let command = benchmark(project, name)
            .args(["--json"])
            .args(chosen(flags));
        // What failed or was skipped is told of on standard error, and missing on the page.
        command.hand_over_to(fs::File::create(&lines)?)?;
        from.push(lines);
    }
    let page = directory.join("index.html");
    let mut command = Command::cargo(project)
        .args([
            "run",
            "--quiet",
            "--package",
            "shmbus-benches",
            "--bin",
            "report",
            "--",
        ])
        .args([Path::new("--out"), &page]);
    for path in &from {
        command = command.args([Path::new("--from"), path]);
    }
    Ok(run(command))
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
