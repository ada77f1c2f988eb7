//! One line, as its guest sees it: the controller's rules without tables.

use super::{Control, LinePriority, Wire};

/// A line's state at its guest. In the terms of Arm's GICv3 it is inactive, pending, active, or active and pending.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Line {
    pub(super) enabled: bool,
    pub(super) priority: LinePriority,
    pub(super) in_service: bool,
    /// What the host says of it.
    pub(super) wire: Wire,
    /// The last edge that was delivered.
    claimed: u64,
    /// The last edge whose service has ended.
    ended: u64,
    /// Edges of a host that is gone, which were not delivered.
    carried: u64,
    deliveries: u64,
}

/// What a delivery stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cause {
    pub(super) edges: u64,
    pub(super) asserted: bool,
    pub(super) raised_ns: u64,
}

impl Line {
    /// How many edges there were that were not delivered.
    pub(super) fn undelivered(&self) -> u64 {
        let seen = self.wire.edges.wrapping_sub(self.claimed);
        seen.saturating_add(self.carried)
    }

    /// Whether it has cause to be delivered, were it neither masked nor in service.
    pub(super) fn is_pending(&self) -> bool {
        self.wire.asserted || self.undelivered() > 0
    }

    /// Whether it may be delivered.
    pub(super) fn is_ready(&self) -> bool {
        self.enabled && !self.in_service && self.is_pending()
    }

    /// Takes in what the host says now. Edges are never taken back: false if some were.
    pub(super) fn adopt(&mut self, wire: Wire) -> bool {
        // Modulo 2^64, so that a count which goes on for ever stays right.
        let is_forward = wire.edges.wrapping_sub(self.wire.edges) <= u64::MAX / 2;
        if is_forward {
            self.wire = wire;
        }
        is_forward
    }

    /// Delivers it, with all edges up to the last one seen: one that comes later has a higher number, and is delivered
    /// again.
    pub(super) fn claim(&mut self) -> Cause {
        let cause = Cause {
            edges: self.undelivered(),
            asserted: self.wire.asserted,
            raised_ns: self.wire.raised_ns,
        };
        self.claimed = self.wire.edges;
        self.carried = 0;
        self.deliveries = self.deliveries.wrapping_add(1);
        self.in_service = true;
        cause
    }

    /// Ends its service. A level that is still asserted, and edges that came meanwhile, are cause for the next.
    pub(super) fn end(&mut self) {
        self.in_service = false;
        self.ended = self.claimed;
    }

    /// Goes on with a host that counts anew. What the one before had raised is still to be delivered; its levels are
    /// gone with it.
    pub(super) fn change_hosts(&mut self) {
        self.carried = self.undelivered();
        (self.wire, self.claimed, self.ended) = (Wire::default(), 0, 0);
    }

    /// What the host is told of it.
    pub(super) fn control(&self) -> Control {
        Control {
            enabled: self.enabled,
            in_service: self.in_service,
            priority: self.priority,
            claimed: self.claimed,
            ended: self.ended,
            deliveries: self.deliveries,
        }
    }
}
