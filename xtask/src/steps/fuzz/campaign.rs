//! Runs fuzz targets, several at a time. What libFuzzer prints is kept back and shown only where it found something.

use std::io;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use crate::command::Command;
use crate::project::Project;
use crate::step::Stop;
use crate::tally::Tally;

/// How often it is said what still runs.
const PROGRESS: Duration = Duration::from_secs(30);

/// A target that was built.
pub(super) struct Target {
    pub(super) name: String,
    pub(super) program: PathBuf,
    /// Inputs that reach different code, from earlier runs too.
    pub(super) corpus: PathBuf,
    /// Where inputs go that make it fail.
    pub(super) artifacts: PathBuf,
}

enum Event<'t> {
    Begins(&'t Target),
    Ends(&'t Target, io::Result<Outcome>),
}

/// Runs all of them for so long, `jobs` at a time, also after one has failed.
///
/// # Errors
///
/// [`Stop::Failed`], naming the targets that failed.
pub(super) fn run(
    project: &Project,
    targets: &[Target],
    seconds: u32,
    jobs: usize,
    tally: &mut Tally,
) -> Result<(), Stop> {
    let waiting = Mutex::new(targets.iter());
    let next = || waiting.lock().ok()?.next();
    let (sender, events) = mpsc::channel();
    let mut failed = Vec::new();
    thread::scope(|scope| {
        for _ in 0..jobs.clamp(1, targets.len()) {
            let sender = sender.clone();
            scope.spawn(move || {
                while let Some(target) = next() {
                    // Nobody listens any more only if the program ends.
                    let _ = sender.send(Event::Begins(target));
                    let result = Outcome::of(target.command(project, seconds));
                    let _ = sender.send(Event::Ends(target, result));
                }
            });
        }
        drop(sender);
        let mut running: Vec<(&str, Instant)> = Vec::new();
        let mut done = 0;
        loop {
            match events.recv_timeout(PROGRESS) {
                Ok(Event::Begins(target)) => {
                    println!("{}: {seconds} s from now on", target.name);
                    running.push((&target.name, Instant::now()));
                }
                Ok(Event::Ends(target, result)) => {
                    running.retain(|(name, _)| *name != target.name);
                    done += 1;
                    let (said, passed) = match &result {
                        Ok(outcome) => (outcome.describe(target), outcome.passed),
                        Err(error) => (format!("cannot run: {error}"), false),
                    };
                    println!("[{done}/{}] {}: {said}", targets.len(), target.name);
                    if passed {
                        tally.passed += 1;
                    } else {
                        tally.failed += 1;
                        failed.push(format!("{}: {}", target.name, last_line(&said)));
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    let running: Vec<_> = running
                        .iter()
                        .map(|(name, since)| format!("{name} for {} s", since.elapsed().as_secs()))
                        .collect();
                    println!("  running: {}", running.join(", "));
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
    });
    if failed.is_empty() {
        Ok(())
    } else {
        Err(Stop::Failed(failed.join("; ")))
    }
}

impl Target {
    fn command(&self, project: &Project, seconds: u32) -> Command {
        Command::new(project, &self.program.to_string_lossy())
            .args([format!("-max_total_time={seconds}")])
            .args([format!("-artifact_prefix={}/", self.artifacts.display())])
            // Short runs have no time for inputs to grow bit by bit.
            .args(["-len_control=0"])
            // It is there to end endless loops. Work is bounded by counting, and a busy machine must not fail a target.
            .args(["-timeout=120"])
            .args([
                "-rss_limit_mb=2048",
                "-print_final_stats=1",
                "-verbosity=0",
                "-print_funcs=0",
            ])
            .args([&self.corpus])
    }
}

/// What came of one run.
struct Outcome {
    passed: bool,
    output: String,
}

impl Outcome {
    fn of(command: Command) -> io::Result<Self> {
        let (status, output) = command.output()?;
        Ok(Self {
            passed: status.success(),
            output,
        })
    }

    /// What follows `name` in its line.
    fn value(&self, name: &str) -> Option<&str> {
        let (_, value) = self.output.lines().find_map(|line| line.split_once(name))?;
        Some(value.trim())
    }

    /// How much was tried; or what failed, and how to see it again.
    fn describe(&self, target: &Target) -> String {
        if self.passed {
            let count = |name| self.value(name).unwrap_or("?");
            return format!(
                "{} runs, {} inputs kept",
                count("stat::number_of_executed_units:"),
                count("stat::new_units_added:")
            );
        }
        let mut said = String::from("FAILED\n");
        for line in self.output.lines().filter(|line| !is_dictionary(line)) {
            said.push_str(&format!("    {line}\n"));
        }
        match self.value("Test unit written to ") {
            Some(input) => said.push_str(&format!(
                "found {input}; replay it: {} {input}",
                target.program.display()
            )),
            None => said.push_str("no input was written"),
        }
        said
    }
}

/// Of the dictionary that libFuzzer recommends.
fn is_dictionary(line: &str) -> bool {
    line.starts_with('"') || line.starts_with("######")
}

fn last_line(text: &str) -> &str {
    text.lines().next_back().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target() -> Target {
        Target {
            name: "ring".to_owned(),
            program: "/build/ring".into(),
            corpus: PathBuf::new(),
            artifacts: PathBuf::new(),
        }
    }

    #[test]
    fn a_run_is_summed_up() {
        let outcome = Outcome {
            passed: true,
            output: "stat::number_of_executed_units: 571973\nstat::new_units_added:          21\n"
                .to_owned(),
        };
        assert_eq!(outcome.describe(&target()), "571973 runs, 21 inputs kept");
    }

    #[test]
    fn a_failure_says_how_to_see_it_again() {
        let outcome = Outcome {
            passed: false,
            output: "thread panicked\n\"\\001\" # Uses: 2\n\
                artifact_prefix='/a/'; Test unit written to /a/crash-1\nBase64: AA=="
                .to_owned(),
        };
        let said = outcome.describe(&target());
        assert!(said.contains("thread panicked") && !said.contains("Uses"));
        assert_eq!(
            last_line(&said),
            "found /a/crash-1; replay it: /build/ring /a/crash-1"
        );
    }
}
