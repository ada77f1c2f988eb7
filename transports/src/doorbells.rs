//! The doorbells of a session: one for each priority class and direction.

use std::io;
use std::os::fd::OwnedFd;

use shmbus_shm::PRIORITY_CLASSES;
use shmbus_signal::os::doorbell;

/// One side's ends of the doorbells, one per priority class and direction; index 0 is the highest priority. What they are
/// is `shmbus_signal`'s to say ([`doorbell`]). The default has none, so that they can be taken out of a
/// [`GuestLink`](crate::local::GuestLink).
#[derive(Debug, Default)]
pub struct Doorbells {
    /// The guest rings, the host waits.
    pub to_host: Vec<OwnedFd>,
    /// The host rings, the guest waits.
    pub to_guest: Vec<OwnedFd>,
}

impl Doorbells {
    /// Fresh, silent doorbells: the host's ends, and those to give to the guest. There are `classes` of them each way, at
    /// most [`PRIORITY_CLASSES`].
    ///
    /// # Errors
    ///
    /// Those of [`doorbell`]; no descriptors left, most likely.
    pub fn create(classes: usize) -> io::Result<(Self, Self)> {
        let (mut host, mut guest) = (Self::default(), Self::default());
        for _ in 0..classes.min(PRIORITY_CLASSES.into()) {
            let (notifier, waiter) = doorbell()?;
            guest.to_host.push(notifier.into());
            host.to_host.push(waiter.into());
            let (notifier, waiter) = doorbell()?;
            host.to_guest.push(notifier.into());
            guest.to_guest.push(waiter.into());
        }
        Ok((host, guest))
    }

    /// The number of priority classes.
    pub fn classes(&self) -> usize {
        self.to_host.len()
    }
}
