//! The types of rings, each with its areas in a guest's memory.

use shmbus_ring::{DeviceFormat, DriverFormat, packed, split, tagged};
use shmbus_shm::{Access, GuestSpace, Mapped};
use shmbus_virtio::Features;
use vm_memory::GuestMemory;

use super::guest::RING_BYTES;

pub const SIZE: u16 = 16;

pub trait Format {
    type Areas;
    type Driver: DriverFormat<Areas = Self::Areas>;
    type Device: DeviceFormat<Areas = Self::Areas>;

    /// The areas in the memory at `ring`.
    fn areas(memory: Mapped) -> Self::Areas;
    fn driver(areas: Self::Areas) -> Self::Driver;
    fn device(areas: Self::Areas) -> Self::Device;
}

/// The areas of a ring at `ring`, as somebody sees the memory.
pub fn areas<F: Format, M>(space: &GuestSpace<M>, ring: u64) -> F::Areas
where
    M: GuestMemory + Send + Sync + 'static,
{
    let window = space.window(ring, RING_BYTES as u32, Access::ReadWrite);
    F::areas(window.unwrap())
}

fn split_areas(memory: Mapped) -> split::Areas<Mapped> {
    let layout = split::Layout::new(SIZE).unwrap().legacy(4096).unwrap();
    split::Areas::legacy(layout, &memory).unwrap()
}

fn packed_areas(memory: Mapped) -> packed::Areas<Mapped> {
    packed::Areas::in_memory(packed::Layout::new(SIZE - 1).unwrap(), &memory).unwrap()
}

fn tagged_areas(memory: Mapped) -> tagged::Areas<Mapped> {
    tagged::Areas::in_memory(tagged::Layout::new(SIZE).unwrap(), &memory).unwrap()
}

const ANY_ORDER: Features = Features::VERSION_1
    .union(Features::INDIRECT_DESC)
    .union(Features::EVENT_IDX);
const IN_ORDER: Features = ANY_ORDER.union(Features::IN_ORDER);

macro_rules! format {
    ($name:ident, $ring:ident, $driver:ident, $device:ident, $areas:ident, $features:ident) => {
        pub enum $name {}

        impl Format for $name {
            type Areas = $ring::Areas<Mapped>;
            type Driver = $ring::$driver<Mapped>;
            type Device = $ring::$device<Mapped>;

            fn areas(memory: Mapped) -> Self::Areas {
                $areas(memory)
            }

            fn driver(areas: Self::Areas) -> Self::Driver {
                $ring::$driver::new(areas, $features).unwrap()
            }

            fn device(areas: Self::Areas) -> Self::Device {
                $ring::$device::new(areas, $features).unwrap()
            }
        }
    };
}

format!(Split, split, DriverRing, DeviceRing, split_areas, ANY_ORDER);
format!(
    SplitInOrder,
    split, InOrderDriverRing, InOrderDeviceRing, split_areas, IN_ORDER
);
format!(
    Packed,
    packed, DriverRing, DeviceRing, packed_areas, ANY_ORDER
);
format!(
    PackedInOrder,
    packed, InOrderDriverRing, InOrderDeviceRing, packed_areas, IN_ORDER
);
format!(
    Tagged,
    tagged, DriverRing, DeviceRing, tagged_areas, ANY_ORDER
);
