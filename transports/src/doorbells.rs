//! The doorbells of a session: one eventfd for each priority class and direction.

use std::io;
use std::os::fd::OwnedFd;

use rustix::event::{EventfdFlags, eventfd};
use shmbus_shm::PRIORITY_CLASSES;

/// One eventfd per priority class and direction; index 0 is the highest priority. The default has none, so that they can be
/// taken out of a [`GuestLink`](crate::local::GuestLink).
#[derive(Debug, Default)]
pub struct Doorbells {
    /// The guest rings, the host waits.
    pub to_host: Vec<OwnedFd>,
    /// The host rings, the guest waits.
    pub to_guest: Vec<OwnedFd>,
}

impl Doorbells {
    /// Fresh, silent doorbells: `classes` of them each way, at most [`PRIORITY_CLASSES`].
    ///
    /// # Errors
    ///
    /// Of `eventfd(2)`; no descriptors left, most likely.
    pub fn create(classes: usize) -> io::Result<Self> {
        let bells = || -> io::Result<Vec<OwnedFd>> {
            (0..classes.min(PRIORITY_CLASSES.into()))
                .map(|_| Ok(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?))
                .collect()
        };
        Ok(Self {
            to_host: bells()?,
            to_guest: bells()?,
        })
    }

    /// The number of priority classes.
    pub fn classes(&self) -> usize {
        self.to_host.len()
    }
}
