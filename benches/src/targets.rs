//! How a ratio stands to what it should be.

use crate::Line;

/// What one line should come to.
pub struct Target {
    /// What is compared.
    pub bench: &'static str,
    /// With whom.
    pub peer: &'static str,
    /// The ratio's upper bound should be below this.
    pub target: f64,
    /// It would be splendid below this.
    pub moonshot: Option<f64>,
}

impl Target {
    /// The target of a line, if it has one.
    pub fn of<'t>(line: &Line, targets: &'t [Self]) -> Option<&'t Self> {
        targets
            .iter()
            .find(|target| target.bench == line.bench && target.peer == line.peer)
    }
}

/// How a line stands to a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The whole confidence interval is below.
    Met,
    /// The whole confidence interval is not below.
    Missed,
    /// The bound lies in the confidence interval.
    Undecided,
}

impl Verdict {
    /// Of a line's ratio; notifications must not be more than the peer's either.
    pub fn of(line: &Line, bound: f64) -> Self {
        if line.notifications.is_some_and(|rung| !rung.no_more()) || line.low >= bound {
            Self::Missed
        } else if line.high < bound {
            Self::Met
        } else {
            Self::Undecided
        }
    }

    /// As it is printed.
    pub fn word(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::Missed => "missed",
            Self::Undecided => "undecided",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Cost;

    #[test]
    fn the_whole_interval_decides() {
        let ns = |ns| Cost {
            ns,
            ..Cost::default()
        };
        let run = vec![(ns(1.0), ns(2.0)), (ns(1.0), ns(1.6))];
        let line = Line::new("bench", "peer", &[run]);
        assert!(line.low < line.high);
        assert_eq!(Verdict::of(&line, 0.7), Verdict::Met);
        assert_eq!(Verdict::of(&line, 0.5), Verdict::Missed);
        assert_eq!(Verdict::of(&line, 0.55), Verdict::Undecided);
    }

    #[test]
    fn more_notifications_miss_every_bound() {
        let cost = |ns, notifications| Cost {
            ns,
            notifications,
            ..Cost::default()
        };
        let line = Line::new("bench", "peer", &[vec![(cost(1.0, 0.2), cost(2.0, 0.1))]]);
        assert_eq!(Verdict::of(&line, 0.9), Verdict::Missed);
    }
}
