//! How a side publishes an element, and how it waits for the next.

use std::cell::Cell;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use rustix::event::{EventfdFlags, eventfd};
use shmbus_benches::SetUpError;
use shmbus_ring::{DeviceFormat, DriverFormat};
use shmbus_shm::Notify;

use super::super::HONEST;
use super::{Device, Driver, Rung};

/// Between the two sides.
pub(super) trait Bell {
    /// Makes what was placed available.
    fn publish_available<D: DriverFormat>(&self, driver: &mut Driver<D>);

    /// Looks whether a chain is used.
    fn is_used<D: DriverFormat>(&self, driver: &mut Driver<D>) -> bool;

    /// Comes back when a chain is used.
    fn await_used<D: DriverFormat>(&self, driver: &mut Driver<D>);

    /// Shows what was completed.
    fn publish_used<V: DeviceFormat>(&self, device: &mut Device<V>);

    /// Comes back when a chain is available.
    fn await_available<V: DeviceFormat>(&self, device: &mut Device<V>);

    /// The device has used the last element.
    #[inline(always)]
    fn end<V: DeviceFormat>(&self, _: &mut Device<V>) {}
}

/// Both sides look all the time, and none is notified.
#[derive(Clone, Copy)]
pub(super) struct Polling;

impl Bell for Polling {
    #[inline(always)]
    fn publish_available<D: DriverFormat>(&self, driver: &mut Driver<D>) {
        driver.expose();
    }

    #[inline(always)]
    fn is_used<D: DriverFormat>(&self, driver: &mut Driver<D>) -> bool {
        driver.poll_spinning().expect(HONEST) > 0
    }

    #[inline(always)]
    fn await_used<D: DriverFormat>(&self, driver: &mut Driver<D>) {
        while driver.poll_spinning().expect(HONEST) == 0 {}
    }

    #[inline(always)]
    fn publish_used<V: DeviceFormat>(&self, device: &mut Device<V>) {
        device.expose();
    }

    #[inline(always)]
    fn await_available<V: DeviceFormat>(&self, device: &mut Device<V>) {
        while device.poll_spinning().expect(HONEST) == 0 {}
    }
}

/// The same, but each decides whether to notify, and does not.
#[derive(Clone, Copy)]
pub(super) struct Deciding;

impl Bell for Deciding {
    #[inline(always)]
    fn publish_available<D: DriverFormat>(&self, driver: &mut Driver<D>) {
        let _ = std::hint::black_box(driver.publish());
    }

    #[inline(always)]
    fn is_used<D: DriverFormat>(&self, driver: &mut Driver<D>) -> bool {
        Polling.is_used(driver)
    }

    #[inline(always)]
    fn await_used<D: DriverFormat>(&self, driver: &mut Driver<D>) {
        Polling.await_used(driver);
    }

    #[inline(always)]
    fn publish_used<V: DeviceFormat>(&self, device: &mut Device<V>) {
        let _ = std::hint::black_box(device.publish());
    }

    #[inline(always)]
    fn await_available<V: DeviceFormat>(&self, device: &mut Device<V>) {
        Polling.await_available(device);
    }
}

/// Both sides sleep when there is nothing to do, and are notified then.
#[derive(Clone)]
pub(super) struct Sleeping {
    decision: Decision,
    /// Each side has a bell of its own, and its own bursts.
    in_burst: Cell<bool>,
    /// From the driver to the device.
    kick: Arc<OwnedFd>,
    /// From the device to the driver.
    call: Arc<OwnedFd>,
    rung: Rung,
}

/// When a side that sleeps at times decides whether to notify the other.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    /// For each element, as ringtest.
    Each,
    /// For the first element of a burst, so that the other side wakes up meanwhile, and when there is nothing more to
    /// do. All elements are published one by one all the same.
    Burst,
}

impl Sleeping {
    pub(super) fn new(decision: Decision) -> Result<Self, SetUpError> {
        let new = || eventfd(0, EventfdFlags::CLOEXEC).map(Arc::new);
        Ok(Self {
            decision,
            in_burst: Cell::new(false),
            kick: new()?,
            call: new()?,
            rung: Rung::default(),
        })
    }

    /// Counts both sides' notifications.
    pub(super) fn rung(&self) -> Rung {
        self.rung.clone()
    }

    #[inline(always)]
    fn ring(&self, bell: &OwnedFd, notify: Notify) {
        if notify.is_needed() {
            rustix::io::write(bell, &1_u64.to_ne_bytes()).expect("an eventfd takes a one");
            self.rung.fetch_add(1, Relaxed);
        }
    }

    /// Whether a decision is due with the element that is published.
    #[inline(always)]
    fn decides(&self) -> bool {
        self.decision == Decision::Each || !self.in_burst.replace(true)
    }

    fn wait(bell: &OwnedFd) {
        rustix::io::read(bell, &mut [0; 8]).expect("an eventfd is read by eight bytes");
    }
}

impl Bell for Sleeping {
    #[inline(always)]
    fn publish_available<D: DriverFormat>(&self, driver: &mut Driver<D>) {
        if self.decides() {
            self.ring(&self.kick, driver.publish());
        } else {
            driver.expose();
        }
    }

    #[inline(always)]
    fn is_used<D: DriverFormat>(&self, driver: &mut Driver<D>) -> bool {
        driver.poll().expect(HONEST) > 0
    }

    #[inline(always)]
    fn await_used<D: DriverFormat>(&self, driver: &mut Driver<D>) {
        self.in_burst.set(false);
        self.ring(&self.kick, driver.publish());
        while driver.poll().expect(HONEST) == 0 {
            if driver.enable_notifications().is_empty() {
                Self::wait(&self.call);
            }
        }
    }

    #[inline(always)]
    fn publish_used<V: DeviceFormat>(&self, device: &mut Device<V>) {
        if self.decides() {
            self.ring(&self.call, device.publish());
        } else {
            device.expose();
        }
    }

    #[inline(always)]
    fn await_available<V: DeviceFormat>(&self, device: &mut Device<V>) {
        self.in_burst.set(false);
        self.ring(&self.call, device.publish());
        while device.poll().expect(HONEST) == 0 {
            if device.enable_notifications().is_empty() {
                Self::wait(&self.kick);
            }
        }
    }

    #[inline(always)]
    fn end<V: DeviceFormat>(&self, device: &mut Device<V>) {
        self.in_burst.set(false);
        self.ring(&self.call, device.publish());
    }
}
