//! What is reported of a comparison with a peer.

use serde::{Deserialize, Serialize};

use crate::statistics::Pair;
use crate::{Cost, Run, median, ratio};

/// A comparison with one peer. Below a ratio of 1 ours takes less time.
#[derive(Clone, Debug, Deserialize, Serialize)]
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
    /// Reads without a value, for each that had one, where there are any.
    #[serde(flatten)]
    pub misses: Option<Misses>,
}

/// Notifications per operation, over all repetitions.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
pub struct Notifications {
    /// Ours.
    pub ours_notifications: f64,
    /// The peer's.
    pub peer_notifications: f64,
}

/// Reads that gave no value, for each that gave one, over all repetitions.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
pub struct Misses {
    /// Ours.
    pub ours_misses: f64,
    /// The peer's.
    pub peer_misses: f64,
}

impl Notifications {
    /// Whether ours are no more than the peer's.
    pub fn no_more(self) -> bool {
        self.ours_notifications <= self.peer_notifications
    }
}

impl Line {
    /// What came of the `runs` of ours and of the peer, a list of repetitions for each process or pair of processes.
    pub fn new(
        bench: impl Into<String>,
        peer: impl Into<String>,
        runs: &[Vec<(Cost, Cost)>],
    ) -> Self {
        let all = || runs.iter().flatten();
        let middle = |side: fn(&(Cost, Cost)) -> Cost| {
            let mut all: Vec<f64> = all().map(|pair| side(pair).ns).collect();
            rounded(median(&mut all))
        };
        let mean =
            |count: fn(&(Cost, Cost)) -> f64| all().map(count).sum::<f64>() / all().count() as f64;
        let rung = Notifications {
            ours_notifications: mean(|pair| pair.0.notifications),
            peer_notifications: mean(|pair| pair.1.notifications),
        };
        let misses = Misses {
            ours_misses: mean(|pair| pair.0.misses),
            peer_misses: mean(|pair| pair.1.misses),
        };
        let times =
            |run: &Vec<(Cost, Cost)>| run.iter().map(|pair| (pair.0.ns, pair.1.ns)).collect();
        let times: Vec<Vec<Pair>> = runs.iter().map(times).collect();
        let ratio = ratio(&times);
        Self {
            bench: bench.into(),
            ours_ns: middle(|pair| pair.0),
            peer: peer.into(),
            peer_ns: middle(|pair| pair.1),
            ratio: rounded(ratio.median),
            low: rounded(ratio.low),
            high: rounded(ratio.high),
            n: ratio.repetitions,
            notifications: (rung.ours_notifications + rung.peer_notifications > 0.0)
                .then_some(rung),
            misses: (misses.ours_misses + misses.peer_misses > 0.0).then_some(misses),
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
                let pairs: Vec<Vec<(Cost, Cost)>> = runs.iter().map(pairs).collect();
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
        let ns = |ns| Cost {
            ns,
            ..Cost::default()
        };
        let line = Line::new("split/device", "peer", &[vec![(ns(1.0), ns(4.0)); 10]]);
        let text = serde_json::to_string(&line).unwrap();
        assert_eq!(
            text,
            r#"{"bench":"split/device","ours_ns":1.0,"peer":"peer","peer_ns":4.0,"ratio":0.25,"low":0.25,"high":0.25,"n":10}"#
        );
    }
}
