//! Rings in loom's memory, weakened for one side or the other.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;

use shmbus_ring::{DeviceFormat, DeviceQueue, DeviceSlot, DriverFormat, DriverQueue, DriverSlot};
use shmbus_ring::{packed, split, tagged};
use shmbus_shm::testing::{LoomWindow, Weakening};
use shmbus_shm::{Entries, OffsetSpace, Window};
use shmbus_virtio::Features;

use super::IN_ORDER;

pub type Driver<D> = DriverQueue<D, u64, Vec<DriverSlot<u64>>>;
pub type Device<V> = DeviceQueue<V, Vec<DeviceSlot>>;
pub type SplitPair = (
    Driver<split::DriverRing<LoomWindow>>,
    Device<split::DeviceRing<LoomWindow>>,
);
pub type PackedPair = (
    Driver<packed::DriverRing<LoomWindow>>,
    Device<packed::DeviceRing<LoomWindow>>,
);

pub type TaggedPair = (
    Driver<tagged::DriverRing<LoomWindow>>,
    Device<tagged::DeviceRing<LoomWindow>>,
);
pub type SplitInOrderPair = (
    Driver<split::InOrderDriverRing<LoomWindow>>,
    Device<split::InOrderDeviceRing<LoomWindow>>,
);
pub type PackedInOrderPair = (
    Driver<packed::InOrderDriverRing<LoomWindow>>,
    Device<packed::InOrderDeviceRing<LoomWindow>>,
);

/// What one side leaves out, in its handles on the driver's and on the device's area.
#[derive(Clone, Copy, Debug, Default)]
pub struct Side {
    pub available: Weakening,
    pub used: Weakening,
}

/// What a model of a split ring is run with.
#[derive(Clone, Copy, Debug, Default)]
pub struct Split {
    pub size: u16,
    pub features: Features,
    /// Where both sides' indices start.
    pub position: u16,
    /// The used ring's address is a multiple of 8, so its elements are accessed as halves.
    pub halves: bool,
    pub driver: Side,
    pub device: Side,
}

/// What a model of a packed ring is run with.
#[derive(Clone, Copy, Debug, Default)]
pub struct Packed {
    pub size: u16,
    pub features: Features,
    /// Where both sides start.
    pub position: u16,
    /// What each side leaves out, in its handle on the descriptor ring.
    pub driver: Weakening,
    pub device: Weakening,
}

/// The driver's and the device's view of fresh memory.
fn packed_areas(setting: Packed) -> [packed::Areas<LoomWindow>; 2] {
    let layout = packed::Layout::new(setting.size).unwrap();
    let ring = LoomWindow::builder()
        .words::<u64>(0, 2 * usize::from(setting.size))
        .build();
    let wish = || LoomWindow::builder().words::<u32>(0, 1).build();
    let (driver_wish, device_wish) = (wish(), wish());
    [setting.driver, setting.device].map(|weakening| {
        packed::Areas::new(
            layout,
            &ring.weakened(weakening),
            &driver_wish,
            &device_wish,
        )
        .unwrap()
    })
}

/// Both sides over fresh memory.
pub fn packed_queues(setting: Packed) -> PackedPair {
    let [driver, device] = packed_areas(setting);
    pair(
        packed::DriverRing::new(driver, setting.features).unwrap(),
        packed::DeviceRing::new(device, setting.features).unwrap(),
        setting.position,
    )
}

/// Both sides over fresh memory; chains come back in order.
pub fn packed_in_order_queues(setting: Packed) -> PackedInOrderPair {
    let [driver, device] = packed_areas(setting);
    let features = setting.features | IN_ORDER;
    pair(
        packed::InOrderDriverRing::new(driver, features).unwrap(),
        packed::InOrderDeviceRing::new(device, features).unwrap(),
        setting.position,
    )
}

/// What a model of a tagged ring is run with.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tagged {
    pub size: u16,
    pub features: Features,
    /// Where both sides start.
    pub position: u16,
    /// What each side leaves out, in its handle on the ring.
    pub driver: Weakening,
    pub device: Weakening,
}

/// Both sides over fresh memory.
pub fn tagged_queues(setting: Tagged) -> TaggedPair {
    let layout = tagged::Layout::new(setting.size).unwrap();
    let ring = LoomWindow::builder()
        .words::<u64>(0, 2 * usize::from(setting.size))
        .build();
    let wish = || LoomWindow::builder().words::<u32>(0, 1).build();
    let (driver_wish, device_wish) = (wish(), wish());
    let [driver, device] = [setting.driver, setting.device].map(|weakening| {
        tagged::Areas::new(
            layout,
            &ring.weakened(weakening),
            &driver_wish,
            &device_wish,
        )
        .unwrap()
    });
    pair(
        tagged::DriverRing::new(driver, setting.features).unwrap(),
        tagged::DeviceRing::new(device, setting.features).unwrap(),
        setting.position,
    )
}

/// The driver's and the device's view of fresh memory.
fn split_areas(setting: Split) -> [split::Areas<LoomWindow>; 2] {
    let size = usize::from(setting.size);
    let layout = split::Layout::new(setting.size).unwrap();
    let descriptors = LoomWindow::builder().words::<u64>(0, 2 * size).build();
    let available = LoomWindow::builder().words::<u16>(0, 3 + size).build();
    let used = if setting.halves {
        LoomWindow::builder()
            .words::<u16>(0, 2)
            .words::<u32>(4, 2 * size)
            .words::<u16>(4 + 8 * size, 1)
            .build()
    } else {
        LoomWindow::builder()
            .words::<u16>(4, 2)
            .words::<u64>(8, size)
            .words::<u16>(8 + 8 * size, 1)
            .build()
            .narrow(4, layout.used_bytes())
            .unwrap()
    };
    [setting.driver, setting.device].map(|side| {
        split::Areas::new(
            layout,
            &descriptors,
            &available.weakened(side.available),
            &used.weakened(side.used),
        )
        .unwrap()
    })
}

/// Both sides over fresh memory.
pub fn split_queues(setting: Split) -> SplitPair {
    let [driver, device] = split_areas(setting);
    pair(
        split::DriverRing::new(driver, setting.features).unwrap(),
        split::DeviceRing::new(device, setting.features).unwrap(),
        setting.position,
    )
}

/// Both sides over fresh memory; chains come back in order.
pub fn split_in_order_queues(setting: Split) -> SplitInOrderPair {
    let [driver, device] = split_areas(setting);
    let features = setting.features | IN_ORDER;
    pair(
        split::InOrderDriverRing::new(driver, features).unwrap(),
        split::InOrderDeviceRing::new(device, features).unwrap(),
        setting.position,
    )
}

fn pair<D: DriverFormat, V: DeviceFormat>(
    driver: D,
    device: V,
    position: u16,
) -> (Driver<D>, Device<V>) {
    (
        DriverQueue::with_heap_at(driver, position).unwrap(),
        DeviceQueue::with_heap_at(device, position).unwrap(),
    )
}

/// Buffers of one word each: a buffer's address is its word's index.
pub fn buffers(count: usize) -> Entries<u64, LoomWindow> {
    let window = LoomWindow::builder().words::<u64>(0, count).build();
    Entries::new(&window, 0, count).unwrap()
}

/// No chain here is indirect, and buffers are reached as words: nothing is translated.
pub fn no_space() -> OffsetSpace<LoomWindow> {
    OffsetSpace::new(LoomWindow::builder().build())
}

/// The first panic among all executions of a model with at most so many preemptions, if there is one.
pub fn find_failure(
    preemption_bound: Option<usize>,
    model: impl Fn() + Sync + Send + 'static,
) -> Option<String> {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemption_bound;
    let panic = catch_unwind(AssertUnwindSafe(|| builder.check(model))).err()?;
    Some(
        panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string()))
            .unwrap_or_default(),
    )
}

pub fn relaxed_stores() -> Weakening {
    Weakening {
        relaxed_stores: true,
        ..Weakening::default()
    }
}

pub fn relaxed_loads() -> Weakening {
    Weakening {
        relaxed_loads: true,
        ..Weakening::default()
    }
}

pub fn no_fence() -> Weakening {
    Weakening {
        without_fence: Some(Ordering::SeqCst),
        ..Weakening::default()
    }
}
