//! What is reported of a comparison with a peer.

use serde::Serialize;

use crate::{Pair, Run, Single, median, ratio};

/// A comparison with one peer. Below a ratio of 1 ours takes less time.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// What was compared.
    pub bench: String,
    /// Nanoseconds per operation of ours, the median.
    pub ours_ns: f64,
    /// With whom.
    pub peer: String,
    /// Nanoseconds per operation of the peer, the median.
    pub peer_ns: f64,
    /// The median of the ratios within each repetition.
    pub ratio: f64,
    /// Lower bound of its 95 % confidence interval.
    pub low: f64,
    /// Upper bound of its 95 % confidence interval.
    pub high: f64,
    /// Repetitions, over all processes.
    pub n: usize,
    /// Notifications per operation of ours and of the peer, where there are any.
    #[serde(flatten)]
    pub notifications: Option<Notifications>,
}

/// Notifications per operation, over all repetitions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Notifications {
    /// Ours.
    pub ours_notifications: f64,
    /// The peer's.
    pub peer_notifications: f64,
}

impl Notifications {
    /// Over all pairs of runs with so many operations each; none if nobody was notified.
    pub fn per_operation(pairs: &[(Single, Single)], operations: u64) -> Option<Self> {
        let all = operations as f64 * pairs.len() as f64;
        let sum = |side: fn(&(Single, Single)) -> u64| pairs.iter().map(side).sum::<u64>() as f64;
        let (ours, peer) = (
            sum(|pair| pair.0.notifications),
            sum(|pair| pair.1.notifications),
        );
        (ours + peer > 0.0).then(|| Self {
            ours_notifications: ours / all,
            peer_notifications: peer / all,
        })
    }

    /// Whether ours are no more than the peer's.
    pub fn no_more(self) -> bool {
        self.ours_notifications <= self.peer_notifications
    }
}

impl Line {
    /// What came of the `runs`, a list of repetitions for each process or pair of processes.
    pub fn new(bench: impl Into<String>, peer: impl Into<String>, runs: &[Vec<Pair>]) -> Self {
        let middle = |side: fn(&Pair) -> f64| {
            let mut all: Vec<f64> = runs.iter().flatten().map(side).collect();
            rounded(median(&mut all))
        };
        let ratio = ratio(runs);
        Self {
            bench: bench.into(),
            ours_ns: middle(|pair| pair.0),
            peer: peer.into(),
            peer_ns: middle(|pair| pair.1),
            ratio: rounded(ratio.median),
            low: rounded(ratio.low),
            high: rounded(ratio.high),
            n: ratio.repetitions,
            notifications: None,
        }
    }
}

impl Line {
    /// A line for each peer that the `runs` have, a run for each process.
    pub fn each(bench: &str, runs: &[Run]) -> Vec<Self> {
        let names = runs.first().map_or(&[][..], |run| &run.names);
        let peers = names.iter().enumerate().skip(1);
        peers
            .map(|(index, peer)| {
                let pairs = |run: &Run| run.rows.iter().map(|row| (row[0], row[index])).collect();
                let pairs: Vec<Vec<Pair>> = runs.iter().map(pairs).collect();
                Self::new(bench, peer, &pairs)
            })
            .collect()
    }
}

/// Three places: more would be noise.
pub(crate) fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_an_object_of_eight_fields() {
        let line = Line::new("split/device", "peer", &[vec![(1.0, 4.0); 10]]);
        let text = serde_json::to_string(&line).unwrap();
        assert_eq!(
            text,
            r#"{"bench":"split/device","ours_ns":1.0,"peer":"peer","peer_ns":4.0,"ratio":0.25,"low":0.25,"high":0.25,"n":10}"#
        );
    }
}
