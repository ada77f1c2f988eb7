//! A split ring on the heap.

use shmbus_ring::split::{
    Areas, DeviceRing, DriverRing, InOrderDeviceRing, InOrderDriverRing, Layout,
};
use shmbus_ring::{Buffer, DeviceQueue, DeviceSlot, DriverQueue, DriverSlot};
use shmbus_shm::testing::{Probe, Probed};
use shmbus_shm::{Bytes, Field, Mapped, OffsetSpace, Window, Word, heap};
use shmbus_virtio::Features;

use std::sync::atomic::Ordering::Relaxed;

use super::IN_ORDER;

pub type Driver<T, W = Mapped> = DriverQueue<DriverRing<W>, T, Vec<DriverSlot<T>>>;
pub type Device<W = Mapped> = DeviceQueue<DeviceRing<W>, Vec<DeviceSlot>>;
pub type InOrderDriver<T, W = Mapped> = DriverQueue<InOrderDriverRing<W>, T, Vec<DriverSlot<T>>>;
pub type InOrderDevice<W = Mapped> = DeviceQueue<InOrderDeviceRing<W>, Vec<DeviceSlot>>;

/// The memory of a ring, to be looked at and written to as a peer would.
#[derive(Clone)]
pub struct Memory {
    pub layout: Layout,
    /// From its start on; the driver area lies behind it.
    pub descriptors: Mapped,
    pub available: Mapped,
    pub used: Mapped,
}

impl Memory {
    pub fn new(size: u16) -> Self {
        let layout = Layout::new(size).unwrap();
        let driver = heap(layout.driver_bytes());
        let used = heap(4 + layout.used_bytes());
        Self {
            layout,
            available: driver
                .narrow(layout.available_offset(), layout.available_bytes())
                .unwrap(),
            descriptors: driver,
            used: used.narrow(4, layout.used_bytes()).unwrap(),
        }
    }

    /// With a used ring whose elements are accessed as halves.
    pub fn with_halves(size: u16) -> Self {
        let memory = Self::new(size);
        let used = heap(memory.layout.used_bytes());
        Self { used, ..memory }
    }

    pub fn areas(&self) -> Areas<Mapped> {
        Areas::new(self.layout, &self.descriptors, &self.available, &self.used).unwrap()
    }

    /// The areas as one side sees them through probes: of what the driver writes, and of what the device writes. The
    /// descriptor area is probed at offsets from 0 on, the driver area behind it.
    pub fn probed<P: Probe>(&self, driver: P, device: P) -> Areas<Probed<Mapped, P>> {
        let descriptors = Probed::new(self.descriptors.clone(), driver);
        let available = descriptors
            .narrow(
                self.layout.available_offset(),
                self.layout.available_bytes(),
            )
            .unwrap();
        let used = Probed::new(self.used.clone(), device);
        Areas::new(self.layout, &descriptors, &available, &used).unwrap()
    }

    pub fn driver<T>(&self, features: Features) -> Driver<T> {
        DriverQueue::with_heap(DriverRing::new(self.areas(), features).unwrap())
    }

    pub fn device(&self, features: Features) -> Device {
        DeviceQueue::with_heap(DeviceRing::new(self.areas(), features).unwrap())
    }

    pub fn in_order_driver<T>(&self, features: Features) -> InOrderDriver<T> {
        let ring = InOrderDriverRing::new(self.areas(), features | IN_ORDER).unwrap();
        DriverQueue::with_heap(ring)
    }

    pub fn in_order_device(&self, features: Features) -> InOrderDevice {
        let ring = InOrderDeviceRing::new(self.areas(), features | IN_ORDER).unwrap();
        DeviceQueue::with_heap(ring)
    }

    /// Writes a descriptor as a driver that keeps to no rule.
    pub fn write_descriptor(&self, index: u16, buffer: Buffer, flags: u16, next: u16) {
        let at = 16 * usize::from(index);
        let words = u64::from(buffer.len) | u64::from(flags) << 32 | u64::from(next) << 48;
        set(&self.descriptors, at, buffer.address);
        set(&self.descriptors, at + 8, words);
    }

    /// Makes `head` available at `entry`, whatever was there.
    pub fn write_available(&self, entry: u16, head: u16) {
        let slot = usize::from(entry % self.layout.size());
        set(&self.available, 4 + 2 * slot, head);
        set(&self.available, 2, entry.wrapping_add(1));
    }

    /// Returns a chain as a device that keeps to no rule.
    pub fn write_used(&self, entry: u16, id: u32, len: u32) {
        let slot = usize::from(entry % self.layout.size());
        set(
            &self.used,
            4 + 8 * slot,
            u64::from(id) | u64::from(len) << 32,
        );
        set(&self.used, 2, entry.wrapping_add(1));
    }
}

/// Stores one word of shared memory.
pub fn set<T: Word>(window: &Mapped, offset: usize, value: T) {
    Field::<T, _>::new(window, offset)
        .unwrap()
        .store(value, Relaxed);
}

/// Loads one word of shared memory.
pub fn get<T: Word>(window: &Mapped, offset: usize) -> T {
    Field::<T, _>::new(window, offset).unwrap().load(Relaxed)
}

/// Where buffers lie.
pub fn space(bytes: usize) -> OffsetSpace<Mapped> {
    OffsetSpace::new(heap(bytes))
}

/// A buffer's bytes, as the driver sees them.
pub fn bytes(space: &OffsetSpace<Mapped>, buffer: Buffer) -> Bytes<'_, Mapped> {
    Bytes::new(space.window(), buffer.address as usize, buffer.len as usize).unwrap()
}
