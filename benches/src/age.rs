//! What is reported of the age of what a host acts on.

use serde::{Deserialize, Serialize};

use crate::{Cost, Line, median};

/// What a carrier did under one load; counts are for each second.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub struct AgePoint {
    /// Age of the deadlines acted on, in nanoseconds: the median.
    pub p50_ns: f64,
    /// The same that 99 of 100 did not exceed.
    pub p99_ns: f64,
    /// Deadlines offered.
    pub offered: f64,
    /// Deadlines set.
    pub set: f64,
    /// Deadlines acted on.
    pub acted: f64,
    /// Deadlines that a later one took the place of before they were acted on, or that were on their way at the end.
    pub superseded: f64,
    /// Deadlines that the guest did not set in time, as a full ring held it back.
    pub held_back: f64,
    /// Signals from the guest to the host.
    pub signals_to_host: f64,
    /// Signals back.
    pub signals_to_guest: f64,
    /// The host's part of a processor.
    pub host_cpu: f64,
    /// The guest's part of a processor, in the driver and in signalling.
    pub guest_cpu: f64,
}

impl AgePoint {
    /// Signals both ways.
    pub fn signals(&self) -> f64 {
        self.signals_to_host + self.signals_to_guest
    }

    /// The median of each figure.
    fn middle(points: &[Self]) -> Self {
        let of = |figure: fn(&Self) -> f64| {
            let mut all: Vec<f64> = points.iter().map(figure).collect();
            (median(&mut all) * 1000.0).round() / 1000.0
        };
        Self {
            p50_ns: of(|point| point.p50_ns),
            p99_ns: of(|point| point.p99_ns),
            offered: of(|point| point.offered),
            set: of(|point| point.set),
            acted: of(|point| point.acted),
            superseded: of(|point| point.superseded),
            held_back: of(|point| point.held_back),
            signals_to_host: of(|point| point.signals_to_host),
            signals_to_guest: of(|point| point.signals_to_guest),
            host_cpu: of(|point| point.host_cpu),
            guest_cpu: of(|point| point.guest_cpu),
        }
    }
}

/// The table beside a twin, under one load: the ratio is that of the median ages.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct AgeLine {
    /// The benchmark is `age-` and the entries of the twin's ring.
    #[serde(flatten)]
    pub line: Line,
    /// Deadlines offered, in those that the host can serve.
    pub load: f64,
    /// The table's.
    pub ours: AgePoint,
    /// The twin's.
    pub theirs: AgePoint,
}

impl AgeLine {
    /// What people read above [`row`](Self::row)s.
    pub const HEADING: &str = "bench     load  peer       table p50 us     p99 us   ring p50 us     p99 us | signals/s table      ring | host's processor table  ring | held back/s";

    /// The head of a table of [`markdown`](Self::markdown) rows.
    pub const MARKDOWN: &str = "| bench | load | peer | table: p50, p99, us | ring: p50, p99, us | table, ring: signals/s | table, ring: host's processor | held back/s |\n|---|---|---|---|---|---|---|---|";

    /// Of runs that were interleaved.
    pub fn new(bench: &str, peer: &str, load: f64, ours: &[AgePoint], theirs: &[AgePoint]) -> Self {
        let cost = |point: &AgePoint| Cost {
            ns: point.p50_ns.max(1.0),
            ..Cost::default()
        };
        let pairs = ours.iter().zip(theirs);
        let pairs = pairs.map(|(ours, theirs)| (cost(ours), cost(theirs)));
        Self {
            line: Line::new(bench, peer, &[pairs.collect()]),
            load,
            ours: AgePoint::middle(ours),
            theirs: AgePoint::middle(theirs),
        }
    }

    /// A row for docs/benchmarks.md.
    pub fn markdown(&self) -> String {
        let Self {
            line, ours, theirs, ..
        } = self;
        let us = |point: &AgePoint| format!("{:.1}, {:.1}", point.p50_ns / 1e3, point.p99_ns / 1e3);
        format!(
            "| {} | {} | {} | {} | {} | {:.0}, {:.0} | {:.2}, {:.2} | {:.0} |",
            line.bench,
            self.load,
            line.peer,
            us(ours),
            us(theirs),
            ours.signals(),
            theirs.signals(),
            ours.host_cpu,
            theirs.host_cpu,
            theirs.held_back,
        )
    }

    /// As people read it.
    pub fn row(&self) -> String {
        let Self {
            line, ours, theirs, ..
        } = self;
        format!(
            "{:8} {:5.2}  {:10} {:12.1} {:10.1} {:13.1} {:10.1} | {:15.0} {:9.0} | {:22.2} {:5.2} | {:11.0}",
            line.bench,
            self.load,
            line.peer,
            ours.p50_ns / 1e3,
            ours.p99_ns / 1e3,
            theirs.p50_ns / 1e3,
            theirs.p99_ns / 1e3,
            ours.signals(),
            theirs.signals(),
            ours.host_cpu,
            theirs.host_cpu,
            theirs.held_back,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_as_it_was_written() {
        let point = |p50_ns| AgePoint {
            p50_ns,
            p99_ns: 9.0,
            offered: 3.0,
            set: 3.0,
            acted: 2.0,
            superseded: 1.0,
            held_back: 0.0,
            signals_to_host: 4.0,
            signals_to_guest: 1.0,
            host_cpu: 0.5,
            guest_cpu: 0.25,
        };
        let theirs = [point(20.0), point(40.0), point(30.0)];
        let line = AgeLine::new("age-16", "ring-last", 2.0, &[point(10.0); 3], &theirs);
        assert_eq!((line.theirs.p50_ns, line.theirs.signals()), (30.0, 5.0));
        let text = serde_json::to_string(&line).unwrap();
        let again: AgeLine = serde_json::from_str(&text).unwrap();
        assert_eq!(again.row(), line.row());
        assert_eq!(again.line.ratio, line.line.ratio);
        assert!(serde_json::from_str::<AgeLine>(r#"{"bench":"age-1"}"#).is_err());
    }
}
