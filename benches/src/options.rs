//! What a benchmark program is asked for.

use clap::Args;

use crate::Effort;

/// What the benchmark programs of rings and of tables have in common.
#[derive(Args)]
pub struct Options {
    /// Print one JSON object a line
    #[arg(long)]
    pub json: bool,
    /// Print a table for docs/benchmarks.md
    #[arg(long, conflicts_with = "json")]
    pub markdown: bool,
    /// Only benchmarks whose name contains this; may be given several times
    #[arg(long, value_name = "NAME")]
    pub only: Vec<String>,
    /// Few and short repetitions: a smoke test, no figures
    #[arg(long)]
    pub quick: bool,
    /// Run with real-time priority, which others on the machine cannot interrupt; needs the right to
    #[arg(long)]
    pub realtime: bool,
    /// Measures one contender, or with `--repetitions` all of one benchmark, in this process
    #[arg(long, hide = true, value_name = "NAME")]
    pub here: Option<String>,
    /// Which one, by its index
    #[arg(long, hide = true, default_value_t = 0)]
    pub contender: usize,
    /// How many operations it does
    #[arg(long, hide = true, default_value_t = 0)]
    pub operations: u64,
    /// How often all contenders are measured in turn
    #[arg(long, hide = true)]
    pub repetitions: Option<usize>,
    /// What cargo says to a benchmark that it does not only test
    #[arg(long, hide = true)]
    pub bench: bool,
}

impl Options {
    /// Whether a benchmark of this name is to be run.
    pub fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| name.contains(only.as_str()))
    }

    /// How much is to be measured.
    pub fn effort(&self) -> Effort {
        match self {
            Self { bench: false, .. } => Effort::ONCE,
            Self { quick: true, .. } => Effort::QUICK,
            _ => Effort::FULL,
        }
    }
}
