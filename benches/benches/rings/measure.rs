//! Measures a benchmark beside its peer.

use std::path::PathBuf;
use std::process::Command;

use shmbus_benches::{
    Line, Notifications, Pair, ProcessError, Single, compare_in_process, run_in_process,
};

use crate::effort::Effort;
use crate::peers::Peer;
use crate::{contender, this_program};

pub(crate) struct Measure {
    program: PathBuf,
    effort: Effort,
}

/// So many operations show how long one takes.
const TRIAL: u64 = 20_000;

impl Measure {
    pub(crate) fn new(effort: Effort) -> Result<Self, ProcessError> {
        Ok(Self {
            program: this_program()?,
            effort,
        })
    }

    /// Says on standard error how long a line takes between the two processors: the machine's share in all that uses
    /// both, which may change from one moment to the next.
    pub(crate) fn say_round_trip(&self) {
        let mut command = contender(&self.program, "line/round-trip", 0, TRIAL);
        match run_in_process(&mut command) {
            Ok(single) => eprintln!("a line there and back: {:.0} ns", single.ns / TRIAL as f64),
            Err(error) => eprintln!("a line there and back: {error}"),
        }
    }

    /// A line for each peer.
    ///
    /// # Errors
    ///
    /// [`ProcessError`].
    pub(crate) fn compare(&self, bench: &str, peer: &Peer) -> Result<Vec<Line>, ProcessError> {
        let ours = |operations| contender(&self.program, bench, 0, operations);
        match peer {
            Peer::Crates => self.in_one_process(bench),
            Peer::Ringtest(program) => {
                // Is it there?
                program.command(TRIAL)?;
                let theirs = |operations| program.command(operations);
                self.in_pairs(bench, program.name, ours, theirs)
            }
            Peer::Own(plain) => {
                let theirs = |operations| Ok(contender(&self.program, plain, 0, operations));
                self.in_pairs(bench, "self", ours, theirs)
            }
        }
        .map(|lines| lines.into_iter().collect())
    }

    fn in_one_process(&self, bench: &str) -> Result<Vec<Line>, ProcessError> {
        let mut runs = Vec::new();
        for _ in 0..self.effort.processes {
            let mut command = Command::new(&self.program);
            command.args(["--here", bench]);
            command.args(["--repetitions", &self.effort.repetitions.to_string()]);
            runs.push(compare_in_process(&mut command)?);
        }
        Ok(Line::each(bench, &runs))
    }

    /// Two processes a repetition, one after the other, by turns.
    fn in_pairs(
        &self,
        bench: &str,
        peer: &str,
        ours: impl Fn(u64) -> Command,
        theirs: impl Fn(u64) -> Result<Command, ProcessError>,
    ) -> Result<Vec<Line>, ProcessError> {
        let trial = [
            run_in_process(&mut ours(TRIAL))?,
            run_in_process(&mut theirs(TRIAL)?)?,
        ];
        let slower = trial[0].ns.max(trial[1].ns) / TRIAL as f64;
        let operations = (self.effort.run.as_nanos() as f64 / slower).ceil() as u64;

        let mut pairs: Vec<(Single, Single)> = Vec::new();
        for number in 0..self.effort.pairs {
            let (mut ours, mut theirs) = (ours(operations), theirs(operations)?);
            pairs.push(if number % 2 == 0 {
                let ours = run_in_process(&mut ours)?;
                (ours, run_in_process(&mut theirs)?)
            } else {
                let theirs = run_in_process(&mut theirs)?;
                (run_in_process(&mut ours)?, theirs)
            });
        }

        let per_operation = |single: &Single| single.ns / operations as f64;
        let runs: Vec<Vec<Pair>> = pairs
            .iter()
            .map(|(ours, theirs)| vec![(per_operation(ours), per_operation(theirs))])
            .collect();
        let mut line = Line::new(bench, peer, &runs);
        line.notifications = Notifications::per_operation(&pairs, operations);
        Ok(vec![line])
    }
}
