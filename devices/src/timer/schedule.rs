//! Which deadline comes next: the device's core, without tables and without a clock.

use std::collections::BTreeSet;

use crate::SessionId;

/// Whose timers: each virtual CPU of a guest has its own, in memory that no other virtual CPU writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimerOwner {
    /// The guest.
    pub session: SessionId,
    /// Its virtual CPU, counted from 0.
    pub vcpu: u16,
}

/// One timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct TimerId {
    pub(super) owner: TimerOwner,
    pub(super) slot: u32,
}

/// Armed timers in the order in which they are due. A timer is in it at most once, so that its size is bounded by the
/// number of timers, however often they are set.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    order: BTreeSet<(u64, TimerId)>,
}

impl Schedule {
    /// Arms `timer`, which is not armed.
    pub(super) fn insert(&mut self, due_ns: u64, timer: TimerId) {
        self.order.insert((due_ns, timer));
    }

    /// Disarms `timer`, which is armed for `due_ns`.
    pub(super) fn remove(&mut self, due_ns: u64, timer: TimerId) {
        self.order.remove(&(due_ns, timer));
    }

    /// The earliest timer, with when it is due.
    pub(super) fn first(&self) -> Option<(u64, TimerId)> {
        self.order.first().copied()
    }

    /// Takes out the earliest timer if it is due at `now_ns`.
    pub(super) fn pop_due(&mut self, now_ns: u64) -> Option<(u64, TimerId)> {
        let (due_ns, _) = self.first()?;
        (due_ns <= now_ns).then(|| self.order.pop_first()).flatten()
    }

    /// How many timers are armed.
    pub(super) fn len(&self) -> usize {
        self.order.len()
    }
}
