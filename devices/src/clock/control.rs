//! What a VMM tells a clock device while it runs.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shmbus_signal::os::{Notifier, Waiter};

use super::transform::CounterTransform;
use crate::device::SessionId;

/// A guest whose counter was disrupted, or all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Disruption {
    pub(super) session: Option<SessionId>,
    pub(super) transform: CounterTransform,
}

/// Speaks to a clock device that a bus runs, from any thread.
#[derive(Clone, Debug)]
pub struct ClockControl {
    orders: Arc<Mutex<VecDeque<Disruption>>>,
    bell: Arc<Notifier>,
}

impl ClockControl {
    /// A guest was restored or migrated, or its counter was set: the host's now follows from it by `transform`, or is
    /// [unknown](CounterTransform::unknown). Before the guest runs again: what it reads then has another disruption
    /// marker, and a guest that waits for it is woken.
    ///
    /// # Errors
    ///
    /// If the device cannot be woken.
    pub fn disrupt(&self, session: SessionId, transform: CounterTransform) -> io::Result<()> {
        self.order(Some(session), transform)
    }

    /// The same for every guest there is: the *host's* counter was disrupted.
    ///
    /// # Errors
    ///
    /// If the device cannot be woken.
    pub fn disrupt_all(&self, transform: CounterTransform) -> io::Result<()> {
        self.order(None, transform)
    }

    fn order(&self, session: Option<SessionId>, transform: CounterTransform) -> io::Result<()> {
        lock(&self.orders).push_back(Disruption { session, transform });
        self.bell.notify()
    }
}

/// Nothing is left half done under the lock.
fn lock(orders: &Mutex<VecDeque<Disruption>>) -> MutexGuard<'_, VecDeque<Disruption>> {
    orders.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The device's end.
#[derive(Debug)]
pub(super) struct Orders {
    orders: Arc<Mutex<VecDeque<Disruption>>>,
    bell: Waiter,
}

impl Orders {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            orders: Arc::default(),
            bell: Waiter::new()?,
        })
    }

    pub(super) fn control(&self) -> io::Result<ClockControl> {
        Ok(ClockControl {
            orders: Arc::clone(&self.orders),
            bell: Arc::new(self.bell.notifier()?),
        })
    }

    /// Takes what was ordered. The bell is silenced first: what comes after that rings it again.
    pub(super) fn take(&self) -> VecDeque<Disruption> {
        if let Err(error) = self.bell.drain() {
            tracing::error!(%error, "the clock's bell cannot be silenced");
        }
        std::mem::take(&mut lock(&self.orders))
    }
}

impl AsFd for Orders {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}
