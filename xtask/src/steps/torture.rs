//! Tables between processes, for long: how `table/tests/torture` is run with large numbers, and in both builds.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};

use crate::command::Command;
use crate::project::Project;
use crate::step::Stop;
use crate::tally::Tally;

/// What the tests' lines for this program start with.
const PREFIX: &str = "torture: ";

/// How often it is said how far it is where there is no bar.
const PROGRESS: Duration = Duration::from_secs(30);

#[derive(Args)]
pub(crate) struct Options {
    /// How many values are read in each build, over all sizes of slots
    #[arg(long, default_value_t = 1_000_000_000)]
    reads: u64,
    /// How many writers are killed in each build; half of them restart in their memory, half in new memory
    #[arg(long, default_value_t = 10_000)]
    kills: u64,
    /// Only this build of the copies
    #[arg(long, value_enum)]
    build: Option<Build>,
}

/// How payloads are copied.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Build {
    /// As usual: by assembler where there is one
    Assembler,
    /// By atomic accesses to words, as under Miri
    ForcedWords,
}

impl Build {
    const ALL: [Self; 2] = [Self::Assembler, Self::ForcedWords];

    fn name(self) -> &'static str {
        match self {
            Self::Assembler => "assembler",
            Self::ForcedWords => "forced words",
        }
    }

    /// `command` with what makes this build.
    fn of(self, project: &Project, command: Command) -> Command {
        match self {
            Self::Assembler => command,
            Self::ForcedWords => command
                .env("RUSTFLAGS", "--cfg shmbus_forced_words")
                .env("CARGO_TARGET_DIR", project.target.join("forced-words")),
        }
    }
}

pub(super) fn for_a_while(project: &Project, tally: &mut Tally) -> Result<(), Stop> {
    let options = Options {
        reads: 10_000_000,
        kills: 200,
        build: None,
    };
    torture(project, &options, tally)
}

pub(crate) fn torture(project: &Project, options: &Options, tally: &mut Tally) -> Result<(), Stop> {
    let chosen = Build::ALL
        .into_iter()
        .filter(|build| options.build.is_none_or(|only| only == *build));
    let mut totals = Vec::new();
    let mut first = Ok(());
    for build in chosen {
        let start = Instant::now();
        let mut seen = Seen::new(build);
        let command = Command::cargo(project)
            .args(["test", "--profile", "checked", "--package", "shmbus-table"])
            .args(["--test", "torture", "--", "--nocapture", "--test-threads=1"])
            .env("SHMBUS_READS", options.reads.to_string())
            .env("SHMBUS_KILLS", options.kills.to_string());
        let result = build
            .of(project, command)
            .run_reading(tally, |line| seen.read(line));
        first = first.and(result);
        totals.push((build, seen.end(), start.elapsed()));
    }
    for (build, total, took) in totals {
        let counts: Vec<_> = total
            .iter()
            .map(|(name, count)| format!("{count} {name}"))
            .collect();
        println!(
            "{}: {} in {:.0} s",
            build.name(),
            counts.join(", "),
            took.as_secs_f64()
        );
    }
    first
}

/// What a run has said so far.
struct Seen {
    build: Build,
    bar: ProgressBar,
    is_terminal: bool,
    /// When progress was printed last.
    printed: Instant,
    /// Sums over all sizes of slots.
    total: BTreeMap<String, u64>,
}

/// A line of a test for this program.
#[derive(Debug, PartialEq, Eq)]
enum Line<'l> {
    Progress { done: u64, of: u64, what: &'l str },
    Counts(Vec<(&'l str, u64)>),
}

impl Seen {
    fn new(build: Build) -> Self {
        let bar = ProgressBar::new(0);
        if let Ok(style) = ProgressStyle::with_template(
            "{prefix}: {wide_bar} {human_pos} of {human_len} {msg}, {eta} left",
        ) {
            bar.set_style(style);
        }
        bar.set_prefix(build.name());
        Self {
            build,
            bar,
            is_terminal: io::stderr().is_terminal(),
            printed: Instant::now(),
            total: BTreeMap::new(),
        }
    }

    /// Takes in a line; says whether it is shown as it is.
    fn read(&mut self, line: &str) -> bool {
        match parse(line) {
            None => true,
            Some(Line::Progress { done, of, what }) => {
                if self.bar.message() != what {
                    self.bar.reset();
                    self.bar.set_length(of);
                    self.bar.set_message(what.to_owned());
                }
                self.bar.set_position(done);
                if !self.is_terminal && self.printed.elapsed() >= PROGRESS {
                    self.printed = Instant::now();
                    println!("{}: {done} of {of} {what}", self.build.name());
                }
                false
            }
            Some(Line::Counts(counts)) => {
                for (name, count) in counts {
                    *self.total.entry(name.to_owned()).or_default() += count;
                }
                // What is printed beside the bar would be drawn over.
                self.bar.suspend(|| println!("{line}"));
                false
            }
        }
    }

    fn end(self) -> BTreeMap<String, u64> {
        self.bar.finish_and_clear();
        self.total
    }
}

/// `torture: DONE of OF WHAT`, or `torture: WHAT: NAME=COUNT NAME=COUNT`.
fn parse(line: &str) -> Option<Line<'_>> {
    let (_, said) = line.split_once(PREFIX)?;
    if let Some((_, counts)) = said.split_once(": ") {
        let counts = counts.split(' ').map(|word| {
            let (name, count) = word.split_once('=')?;
            Some((name, count.parse().ok()?))
        });
        return counts.collect::<Option<_>>().map(Line::Counts);
    }
    let (done, rest) = said.split_once(" of ")?;
    let (of, what) = rest.split_once(' ')?;
    Some(Line::Progress {
        done: done.parse().ok()?,
        of: of.parse().ok()?,
        what,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_tests_are_told_from_others() {
        assert_eq!(
            parse("test reads::no_value ... torture: 12 of 300 reads"),
            Some(Line::Progress {
                done: 12,
                of: 300,
                what: "reads"
            })
        );
        assert_eq!(
            parse("torture: 8 bytes, 4 copies, reads: values=12 torn=0"),
            Some(Line::Counts(vec![("values", 12), ("torn", 0)]))
        );
        for other in [
            "test result: ok. 1 passed",
            "torture: what",
            "torture: a: b=c",
        ] {
            assert_eq!(parse(other), None);
        }
    }
}
