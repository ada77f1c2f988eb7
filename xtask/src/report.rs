//! What came of every step, and the summary at the end.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::step::{Step, Stop};
use crate::tally::Tally;

struct Line {
    name: &'static str,
    took: Duration,
    tally: Tally,
    result: Result<(), Stop>,
}

impl Line {
    /// Passed, failed and skipped checks: the step's tests, or the step itself where it has none.
    fn counts(&self) -> (usize, usize, usize) {
        let Tally {
            passed,
            failed,
            ref skipped,
        } = self.tally;
        let skipped = skipped.len();
        match self.result {
            Ok(()) if passed + failed + skipped == 0 => (1, 0, 0),
            Ok(()) => (passed, failed, skipped),
            Err(Stop::Failed(_)) => (passed, failed.max(1), skipped),
            Err(Stop::Skipped(_)) => (passed, failed, skipped + 1),
        }
    }
}

/// The steps that were run.
#[derive(Default)]
pub(crate) struct Report {
    lines: Vec<Line>,
}

impl Report {
    /// Runs a step under its heading and keeps what came of it.
    pub(crate) fn run(
        &mut self,
        number: usize,
        of: usize,
        step: &Step,
        run: impl FnOnce(&mut Tally) -> Result<(), Stop>,
    ) {
        println!("\n=== [{number}/{of}] {}: {}", step.name, step.about);
        let start = Instant::now();
        let mut tally = Tally::default();
        let result = run(&mut tally);
        let took = start.elapsed();
        let seconds = took.as_secs_f64();
        match &result {
            Ok(()) => println!("--- {} passed in {seconds:.1} s", step.name),
            Err(Stop::Failed(what)) => {
                println!("--- {} FAILED in {seconds:.1} s: {what}", step.name);
            }
            Err(Stop::Skipped(why)) => println!("--- {} skipped: {why}", step.name),
        }
        self.lines.push(Line {
            name: step.name,
            took,
            tally,
            result,
        });
    }

    /// Whether anything failed.
    pub(crate) fn failed(&self) -> bool {
        self.lines.iter().any(|line| line.counts().1 > 0)
    }

    /// Prints the summary; the counts are its last line.
    pub(crate) fn print(&self) {
        println!("\n=== summary");
        println!(
            "{:12} {:8} {:>7} {:>7} {:>7} {:>9}",
            "step", "result", "passed", "failed", "skipped", "seconds"
        );
        let mut total = (0, 0, 0);
        for line in &self.lines {
            let (passed, failed, skipped) = line.counts();
            let result = match line.result {
                Ok(()) => "passed",
                Err(Stop::Failed(_)) => "FAILED",
                Err(Stop::Skipped(_)) => "skipped",
            };
            println!(
                "{:12} {result:8} {passed:7} {failed:7} {skipped:7} {:9.1}",
                line.name,
                line.took.as_secs_f64()
            );
            total = (total.0 + passed, total.1 + failed, total.2 + skipped);
        }
        for line in &self.lines {
            if let Err(Stop::Failed(what)) = &line.result {
                println!("FAILED {}: {what}", line.name);
            }
        }
        for line in &self.lines {
            if let Err(Stop::Skipped(why)) = &line.result {
                println!("SKIPPED {}: {why}", line.name);
            }
            let mut reasons = BTreeMap::<&str, usize>::new();
            for why in &line.tally.skipped {
                *reasons.entry(why).or_default() += 1;
            }
            for (why, tests) in reasons {
                println!("SKIPPED {} ({tests}): {why}", line.name);
            }
        }
        println!(
            "{} passed, {} failed, {} skipped",
            total.0, total.1, total.2
        );
    }
}
