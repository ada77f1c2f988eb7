//! What the ratios should be.

use shmbus_benches::Line;

/// What one line should come to.
pub(crate) struct Target {
    pub(crate) bench: &'static str,
    pub(crate) peer: &'static str,
    /// The ratio's upper bound should be below this.
    pub(crate) target: f64,
    /// It would be splendid below this.
    pub(crate) moonshot: f64,
}

const fn target(bench: &'static str, peer: &'static str, target: f64, moonshot: f64) -> Target {
    Target {
        bench,
        peer,
        target,
        moonshot,
    }
}

/// All targets, in the order of the benchmarks.
pub(crate) const ALL: [Target; 21] = [
    target("split/device", "virtio-queue", 0.15, 0.08),
    target("split/device-chain4", "virtio-queue", 0.25, 0.15),
    target("split/device-indirect4", "virtio-queue", 0.25, 0.15),
    target("split/driver", "virtio-drivers", 0.8, 0.5),
    target("split/driver", "virtio-driver", 0.8, 0.5),
    target("packed/driver", "virtio-driver", 0.8, 0.5),
    target("split/ringtest", "virtio_ring_0_9", 0.25, 0.12),
    target("split/ringtest-shuffled", "virtio_ring_0_9", 0.5, 0.35),
    target("split-inorder/ringtest", "virtio_ring_inorder", 0.3, 0.18),
    target("packed/ringtest", "ring", 0.8, 0.45),
    target("tagged/ringtest", "ring", 0.7, 0.35),
    target("split/out1", "virtio_ring_0_9", 0.65, 0.5),
    target("packed/out1", "ring", 1.1, 1.0),
    target("tagged/out1", "ring", 1.2, 1.0),
    target("split/out16", "virtio_ring_0_9", 0.35, 0.25),
    target("packed/out16", "ring", 1.0, 0.8),
    target("split/sleep", "virtio_ring_0_9", 0.9, 0.6),
    target("packed/sleep", "ring", 0.9, 0.6),
    target("packed/batch32", "ring", 0.5, 0.28),
    target("tagged/batch32", "ring", 0.35, 0.2),
    target("split/batch32", "ring", 0.65, 0.35),
];

/// How a line stands to a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The whole confidence interval is below.
    Met,
    /// The whole confidence interval is not below.
    Missed,
    /// The bound lies in the confidence interval.
    Undecided,
}

impl Verdict {
    /// Of a line's ratio; notifications must not be more than the peer's either.
    pub(crate) fn of(line: &Line, bound: f64) -> Self {
        if line.notifications.is_some_and(|rung| !rung.no_more()) || line.low >= bound {
            Self::Missed
        } else if line.high < bound {
            Self::Met
        } else {
            Self::Undecided
        }
    }

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::Missed => "missed",
            Self::Undecided => "undecided",
        }
    }
}

/// The target of a line, if it has one.
pub(crate) fn of(line: &Line) -> Option<&'static Target> {
    ALL.iter()
        .find(|target| target.bench == line.bench && target.peer == line.peer)
}
