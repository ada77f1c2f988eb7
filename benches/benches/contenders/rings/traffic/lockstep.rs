//! Both sides on one thread, element by element: what ringtest's work takes without waiting.

use std::time::Instant;

use shmbus_benches::Contender;
use shmbus_ring::{DeviceFormat, DriverFormat};
use shmbus_shm::{Mapped, OffsetSpace};

use super::super::OURS;
use super::super::format::Format;
use super::bells::Polling;
use super::shapes::One;
use super::{Device, Driver, Sides, device, driver};

pub(super) const ABOUT: &str =
    "one thread: the driver adds a buffer, the device uses it, the driver gets it back";

/// Not inlined, so that callgrind can tell it from what is around it.
#[inline(never)]
fn timed_steps<D: DriverFormat, V: DeviceFormat>(
    driver: &mut Driver<D>,
    device: &mut Device<V>,
    space: &OffsetSpace<Mapped>,
    operations: u64,
) {
    for number in 0..operations {
        driver::add(driver, &One, &Polling, number);
        device::serve(device, space, &Polling, 1);
        assert!(driver::get(driver, &Polling), "it was used");
    }
}

pub(super) fn contender<F: Format>(sides: Sides<F>) -> Contender {
    let Sides {
        mut driver,
        mut device,
        space,
    } = sides;
    Contender::new(OURS, move |operations| {
        let start = Instant::now();
        timed_steps(&mut driver, &mut device, &space, operations);
        start.elapsed()
    })
}
