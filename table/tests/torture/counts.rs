//! What readers counted, in words that a process can print and another add up.

use std::fmt;
use std::ops::AddAssign;
use std::str::FromStr;

/// What was seen. The last ones are violations of what a table promises.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Reads that gave a value, and how many of the values were news.
    pub(crate) values: u64,
    pub(crate) newer: u64,
    /// Reads that gave none: the writer was too fast, or had restarted.
    pub(crate) lapped: u64,
    pub(crate) restarts: u64,
    /// Slots that a change scan reported.
    pub(crate) reports: u64,
    /// Writers killed, and copies that they left half written.
    pub(crate) kills: u64,
    pub(crate) half_written: u64,
    /// Values with words of different publications.
    pub(crate) torn: u64,
    /// Values older than one read before.
    pub(crate) backwards: u64,
    /// Values, or reports, older than what was complete when the call began.
    pub(crate) too_old: u64,
    /// Values under a generation that is not theirs, or not the one reported.
    pub(crate) misnamed: u64,
}

impl Counts {
    /// Nothing was counted yet.
    pub(crate) const NONE: Self = Self {
        values: 0,
        newer: 0,
        lapped: 0,
        restarts: 0,
        reports: 0,
        kills: 0,
        half_written: 0,
        torn: 0,
        backwards: 0,
        too_old: 0,
        misnamed: 0,
    };

    fn fields(&mut self) -> [(&'static str, &mut u64); 11] {
        [
            ("values", &mut self.values),
            ("newer", &mut self.newer),
            ("lapped", &mut self.lapped),
            ("restarts", &mut self.restarts),
            ("reports", &mut self.reports),
            ("kills", &mut self.kills),
            ("half-written", &mut self.half_written),
            ("torn", &mut self.torn),
            ("backwards", &mut self.backwards),
            ("too-old", &mut self.too_old),
            ("misnamed", &mut self.misnamed),
        ]
    }

    pub(crate) fn violations(&self) -> u64 {
        self.torn + self.backwards + self.too_old + self.misnamed
    }

    /// Says what was counted; `cargo xtask torture` reads these lines.
    pub(crate) fn print(&self, what: &str) {
        println!("torture: {what}: {self}");
    }
}

/// Says how far a test has come, for the bar of `cargo xtask torture`.
pub(crate) fn print_progress(done: u64, of: u64, what: &str) {
    println!("torture: {} of {of} {what}", done.min(of));
}

impl AddAssign<&Self> for Counts {
    fn add_assign(&mut self, other: &Self) {
        let mut other = other.clone();
        for ((_, sum), (_, count)) in self.fields().into_iter().zip(other.fields()) {
            *sum += *count;
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut counts = self.clone();
        let words: Vec<_> = counts
            .fields()
            .into_iter()
            .map(|(name, count)| format!("{name}={count}"))
            .collect();
        f.write_str(&words.join(" "))
    }
}

impl FromStr for Counts {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut counts = Self::NONE;
        for (word, (name, count)) in text.split(' ').zip(counts.fields()) {
            let number = word
                .strip_prefix(name)
                .and_then(|word| word.strip_prefix('='));
            *count = number
                .and_then(|number| number.parse().ok())
                .ok_or_else(|| format!("{word:?} is no count of {name}"))?;
        }
        Ok(counts)
    }
}

#[test]
fn counts_survive_their_way_through_a_pipe() {
    let counts = Counts {
        values: 7,
        half_written: 3,
        misnamed: 1,
        ..Counts::NONE
    };
    assert_eq!(counts.to_string().parse(), Ok(counts));
}
