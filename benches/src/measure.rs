//! Measures a benchmark beside its peers, in processes of its own.

use std::env;
use std::path::PathBuf;
use std::process::Command;

use crate::round_trip::ROUND_TRIP;
use crate::{Cost, Effort, Line, ProcessError, compare_in_process, run_in_process};

/// Runs this program again and again, with one benchmark each time.
pub struct Measure {
    program: PathBuf,
    effort: Effort,
}

/// So many operations show how long one takes.
const TRIAL: u64 = 20_000;

impl Measure {
    /// Measures by this program.
    ///
    /// # Errors
    ///
    /// [`ProcessError::Failed`] if it is not known where that lies.
    pub fn new(effort: Effort) -> Result<Self, ProcessError> {
        let program =
            env::current_exe().map_err(|error| ProcessError::Failed(error.to_string()))?;
        Ok(Self { program, effort })
    }

    /// This program, to run one contender of a benchmark.
    pub fn contender(&self, bench: &str, contender: usize, operations: u64) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(["--here", bench, "--contender", &contender.to_string()])
            .args(["--operations", &operations.to_string()]);
        command
    }

    /// Says on standard error how long a line takes between the two processors: the machine's share in all that uses
    /// both, which may change from one moment to the next.
    pub fn say_round_trip(&self) {
        let mut command = self.contender(ROUND_TRIP, 0, TRIAL);
        match run_in_process(&mut command) {
            Ok(single) => eprintln!("a line there and back: {:.0} ns", single.ns / TRIAL as f64),
            Err(error) => eprintln!("a line there and back: {error}"),
        }
    }

    /// A line for each peer that shares a process with ours.
    ///
    /// # Errors
    ///
    /// [`ProcessError`].
    pub fn in_one_process(&self, bench: &str) -> Result<Vec<Line>, ProcessError> {
        let mut runs = Vec::new();
        for _ in 0..self.effort.processes {
            let mut command = Command::new(&self.program);
            command.args(["--here", bench]);
            command.args(["--repetitions", &self.effort.repetitions.to_string()]);
            runs.push(compare_in_process(&mut command)?);
        }
        Ok(Line::each(bench, &runs))
    }

    /// Two processes a repetition, one after the other, by turns: `ours` and `theirs` do so many operations and print as
    /// [`run_here`](crate::run_here) does.
    ///
    /// # Errors
    ///
    /// [`ProcessError`].
    pub fn in_pairs(
        &self,
        bench: &str,
        peer: &str,
        ours: impl Fn(u64) -> Command,
        theirs: impl Fn(u64) -> Result<Command, ProcessError>,
    ) -> Result<Vec<Line>, ProcessError> {
        // Is it there?
        let mut their_trial = theirs(TRIAL)?;
        let ours_took = run_in_process(&mut ours(TRIAL))?.ns;
        let slower = run_in_process(&mut their_trial)?.ns.max(ours_took) / TRIAL as f64;
        let operations = (self.effort.run.as_nanos() as f64 / slower).ceil() as u64;

        let mut runs: Vec<Vec<(Cost, Cost)>> = Vec::new();
        for number in 0..self.effort.pairs {
            let run = |mut command| Ok(run_in_process(&mut command)?.each_of(operations));
            let (ours, theirs) = (ours(operations), theirs(operations)?);
            let pair = if number % 2 == 0 {
                let ours = run(ours)?;
                (ours, run(theirs)?)
            } else {
                let theirs = run(theirs)?;
                (run(ours)?, theirs)
            };
            runs.push(vec![pair]);
        }
        Ok(vec![Line::new(bench, peer, &runs)])
    }
}
