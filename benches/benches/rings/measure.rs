//! Measures a benchmark beside its peer.

use shmbus_benches::{Line, Measure, ProcessError};

use crate::peers::Peer;

/// A line for each peer.
pub(crate) fn compare(measure: &Measure, bench: &str) -> Result<Vec<Line>, ProcessError> {
    let ours = |operations| measure.contender(bench, 0, operations);
    match Peer::of(bench) {
        Some(Peer::Crates) => measure.in_one_process(bench),
        Some(Peer::Ringtest(program)) => {
            let theirs = |operations| program.command(operations);
            measure.in_pairs(bench, program.name, ours, theirs)
        }
        Some(Peer::Own(plain)) => {
            let theirs = |operations| Ok(measure.contender(&plain, 0, operations));
            measure.in_pairs(bench, "self", ours, theirs)
        }
        None => Ok(Vec::new()),
    }
}
