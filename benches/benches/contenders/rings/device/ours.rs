//! Our device side, of any format.

use std::hint::black_box;

use shmbus_benches::Contender;
use shmbus_ring::{Buffer, DeviceFormat, DeviceQueue, DeviceSlot};
use shmbus_shm::{GuestSpace, SharedBytes};

use super::super::format::Format;
use super::super::memory::Memory;
use super::super::{HONEST, OURS};
use super::{Device, Driver, SetUp, Shape, alone, ring};

struct Ours<V> {
    queue: DeviceQueue<V, Vec<DeviceSlot>>,
    space: GuestSpace<Memory>,
}

impl<V: DeviceFormat> Device for Ours<V> {
    fn pass(&mut self) -> u64 {
        let mut segments = [Buffer::default(); 4];
        let mut done = 0;
        self.queue.poll().expect(HONEST);
        while let Some(chain) = self.queue.take(&self.space, &mut segments).expect(HONEST) {
            for slice in chain.readable_slices(&self.space) {
                black_box(slice.expect(HONEST).len());
            }
            for slice in chain.writable_slices(&self.space) {
                black_box(slice.expect(HONEST).len());
            }
            let written = chain.writable_bytes() as u32;
            self.queue.complete(chain, written).expect(HONEST);
            self.queue.expose();
            done += 1;
        }
        let _ = black_box(self.queue.publish());
        done
    }
}

pub(super) fn set_up<F: Format>(shape: Shape) -> SetUp<Contender> {
    let (driver, device, space) = ring::<F>()?;
    let driver = Driver::new(driver, space.clone(), shape);
    let queue = DeviceQueue::with_heap(device);
    Ok(alone(OURS, driver, Ours { queue, space }))
}
