//! A tagged ring on the heap.

use shmbus_ring::tagged::{Areas, DeviceRing, DriverRing, Layout};
use shmbus_ring::{Buffer, DeviceQueue, DeviceSlot, DriverQueue, DriverSlot};
use shmbus_shm::testing::{Probe, Probed};
use shmbus_shm::{Mapped, Window, heap};
use shmbus_virtio::Features;

use super::heap_ring::{get, set};

pub type Driver<T, W = Mapped> = DriverQueue<DriverRing<W>, T, Vec<DriverSlot<T>>>;
pub type Device<W = Mapped> = DeviceQueue<DeviceRing<W>, Vec<DeviceSlot>>;

pub const NEXT: u16 = 1;
pub const WRITE: u16 = 2;
pub const INDIRECT: u16 = 4;
pub const WALL: u16 = 0;
pub const AVAILABLE: u16 = 1 << 14;
pub const USED: u16 = 2 << 14;
/// What the device has taken and is about to show.
pub const CLAIMED: u16 = 3 << 14;

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

    /// Writes an entry as a side that keeps to no rule.
    pub fn write(&self, index: u16, address: u64, len: u32, tag: u16, flags: u16) {
        let at = 16 * usize::from(index);
        let label = u64::from(len) | u64::from(tag) << 32 | u64::from(flags) << 48;
        set(&self.window, at, address);
        set(&self.window, at + 8, label);
    }

    pub fn write_available(&self, index: u16, buffer: Buffer, tag: u16, flags: u16) {
        self.write(index, buffer.address, buffer.len, tag, flags | AVAILABLE);
    }

    pub fn write_used(&self, index: u16, tag: u16, len: u32) {
        self.write(index, 0, len, tag, USED);
    }

    /// An entry's length, tag, and flags with the state.
    pub fn label(&self, index: u16) -> (u32, u16, u16) {
        let label: u64 = get(&self.window, 16 * usize::from(index) + 8);
        (label as u32, (label >> 32) as u16, (label >> 48) as u16)
    }

    /// The state of each entry.
    pub fn states(&self) -> Vec<u16> {
        let entries = 0..self.layout.size();
        entries.map(|index| self.label(index).2 & CLAIMED).collect()
    }

    /// Position and flags of the driver's wish.
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
