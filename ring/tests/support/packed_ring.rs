//! A packed ring on the heap.

use shmbus_ring::packed::{
    Areas, DeviceRing, DriverRing, InOrderDeviceRing, InOrderDriverRing, Layout,
};
use shmbus_ring::{Buffer, DeviceQueue, DeviceSlot, DriverQueue, DriverSlot};
use shmbus_shm::testing::{Probe, Probed};
use shmbus_shm::{Mapped, Window, heap};
use shmbus_virtio::Features;

use super::IN_ORDER;
use super::heap_ring::{get, set};

pub type Driver<T, W = Mapped> = DriverQueue<DriverRing<W>, T, Vec<DriverSlot<T>>>;
pub type Device<W = Mapped> = DeviceQueue<DeviceRing<W>, Vec<DeviceSlot>>;
pub type InOrderDriver<T, W = Mapped> = DriverQueue<InOrderDriverRing<W>, T, Vec<DriverSlot<T>>>;
pub type InOrderDevice<W = Mapped> = DeviceQueue<InOrderDeviceRing<W>, Vec<DeviceSlot>>;

pub const NEXT: u16 = 1;
pub const WRITE: u16 = 2;
pub const INDIRECT: u16 = 4;
pub const AVAILABLE: u16 = 1 << 7;
pub const USED: u16 = 1 << 15;

/// The memory of a ring, to be looked at and written to as a peer would.
#[derive(Clone)]
pub struct Memory {
    pub layout: Layout,
    pub window: Mapped,
}

impl Memory {
    pub fn new(size: u16) -> Self {
        let layout = Layout::new(size).unwrap();
        let window = heap(layout.bytes());
        Self { layout, window }
    }

    pub fn areas(&self) -> Areas<Mapped> {
        Areas::in_memory(self.layout, &self.window).unwrap()
    }

    /// The areas as one side sees them through probes.
    pub fn probed<P: Probe>(&self, ring: P, driver: P, device: P) -> Areas<Probed<Mapped, P>> {
        let area = |offset| self.window.narrow(offset, 4).unwrap();
        Areas::new(
            self.layout,
            &Probed::new(self.window.clone(), ring),
            &Probed::new(area(self.layout.driver_area_offset()), driver),
            &Probed::new(area(self.layout.device_area_offset()), device),
        )
        .unwrap()
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

    /// Writes a descriptor as a side that keeps to no rule.
    pub fn write(&self, index: u16, address: u64, len: u32, id: u16, flags: u16) {
        let at = 16 * usize::from(index);
        let state = u64::from(len) | u64::from(id) << 32 | u64::from(flags) << 48;
        set(&self.window, at, address);
        set(&self.window, at + 8, state);
    }

    /// A descriptor that is available in the first lap.
    pub fn write_available(&self, index: u16, buffer: Buffer, id: u16, flags: u16) {
        self.write(index, buffer.address, buffer.len, id, flags | AVAILABLE);
    }

    /// A descriptor that is used in the first lap.
    pub fn write_used(&self, index: u16, id: u16, len: u32) {
        self.write(index, 0, len, id, AVAILABLE | USED | WRITE);
    }

    /// A descriptor's length, id and flags.
    pub fn state(&self, index: u16) -> (u32, u16, u16) {
        let state: u64 = get(&self.window, 16 * usize::from(index) + 8);
        (state as u32, (state >> 32) as u16, (state >> 48) as u16)
    }

    /// Offset, wrap counter and flags of the driver's wish.
    pub fn set_driver_wish(&self, position: u16, flags: u16) {
        let at = self.layout.driver_area_offset();
        set(
            &self.window,
            at,
            u32::from(position) | u32::from(flags) << 16,
        );
    }

    /// Likewise, of the device's.
    pub fn set_device_wish(&self, position: u16, flags: u16) {
        let at = self.layout.device_area_offset();
        set(
            &self.window,
            at,
            u32::from(position) | u32::from(flags) << 16,
        );
    }
}
