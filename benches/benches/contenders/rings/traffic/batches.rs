//! Both sides publish many elements at a time.

use std::hint::black_box;

use shmbus_ring::{Buffer, DeviceFormat, DriverFormat};
use shmbus_shm::{Mapped, OffsetSpace};

use super::super::HONEST;
use super::bells::{Bell, Polling};
use super::device::look_at;
use super::shapes::{One, Shape};
use super::{Device, Driver};

const BATCH: u64 = 32;

/// Adds `operations` elements, batch by batch, and gets them back.
pub(super) fn drive<D: DriverFormat>(driver: &mut Driver<D>, operations: u64) {
    let (mut started, mut completed) = (0, 0);
    loop {
        let mut next = BATCH.min(operations - started);
        while next > 0 && u64::from(driver.free()) >= next {
            for number in started..started + next {
                assert!(One.place(driver, number), "there is room");
            }
            Polling.publish_available(driver);
            started += next;
            next = BATCH.min(operations - started);
        }
        Polling.await_used(driver);
        while let Some(used) = driver.take().expect(HONEST) {
            black_box(used);
            completed += 1;
        }
        if completed == operations {
            return;
        }
    }
}

/// Uses `operations` elements, in batches as they come, of at most [`BATCH`].
pub(super) fn serve<V: DeviceFormat>(
    device: &mut Device<V>,
    space: &OffsetSpace<Mapped>,
    operations: u64,
) {
    let mut segments = [Buffer::default(); 1];
    let mut done = 0;
    while done < operations {
        Polling.await_available(device);
        let before = done;
        while done - before < BATCH
            && let Some(chain) = device.take(space, &mut segments).expect(HONEST)
        {
            let written = look_at(&chain);
            device.complete(chain, written).expect(HONEST);
            done += 1;
        }
        Polling.publish_used(device);
    }
}
