//! What the tests of a step came to, read off their output.

/// The tests that a step ran.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Tests that ran and passed.
    pub(crate) passed: usize,
    /// Tests that ran and failed.
    pub(crate) failed: usize,
    /// Why a test could not run, one entry for each.
    pub(crate) skipped: Vec<String>,
}

impl Tally {
    /// Adds a test that found something missing on this machine: it printed `SKIPPED: why` and returned.
    pub(crate) fn skip(&mut self, why: &str) {
        self.skipped.push(why.trim().to_owned());
    }

    /// Takes in one line of what the standard test harness prints.
    pub(crate) fn read_line(&mut self, line: &str) {
        let line = line.trim();
        if let Some((passed, failed)) = test_result(line) {
            self.passed += passed;
            self.failed += failed;
        } else if let Some(why) = skip_reason(line) {
            // The harness counts it as passed.
            self.passed = self.passed.saturating_sub(1);
            self.skip(why);
        } else if let Some(reason) = line
            .strip_prefix("test ")
            .and_then(|line| line.split_once(" ... ignored, "))
            .map(|(_, reason)| reason)
        {
            self.skip(reason);
        }
    }
}

/// The reason in a line `SKIPPED: why`.
pub(crate) fn skip_reason(line: &str) -> Option<&str> {
    line.trim().strip_prefix("SKIPPED: ")
}

/// The passed and failed tests of a line `test result: ok. 3 passed; 1 failed; 0 ignored; ...`.
fn test_result(line: &str) -> Option<(usize, usize)> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let mut passed = 0;
    let mut failed = 0;
    for part in counts.split("; ") {
        match part.split_once(' ') {
            Some((count, "passed")) => passed = count.parse().ok()?,
            Some((count, "failed")) => failed = count.parse().ok()?,
            _ => {}
        }
    }
    Some((passed, failed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_harness_output_is_counted() {
        let mut tally = Tally::default();
        for line in [
            "running 4 tests",
            "test maps ... ok",
            "test resumes ... ignored, needs memfd",
            "SKIPPED: /dev/kvm is missing",
            "test result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s",
            "test result: ok. 5 passed; 0 failed; 0 ignored; 0 measured; 7 filtered out; finished in 0.00s",
        ] {
            tally.read_line(line);
        }
        assert_eq!(
            tally,
            Tally {
                passed: 7,
                failed: 1,
                skipped: vec!["needs memfd".to_owned(), "/dev/kvm is missing".to_owned()],
            }
        );
    }
}
