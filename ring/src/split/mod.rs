//! The split virtqueue (virtio 1.4, section 2.7): a descriptor table and an available ring that the driver writes,
//! a used ring that the device writes.

mod areas;
mod device_ring;
mod driver_ring;
mod indirect;
mod layout;

pub use areas::Areas;
pub use device_ring::DeviceRing;
pub use driver_ring::DriverRing;
pub use layout::{Layout, LegacyLayout, MAX_SIZE};

use shmbus_virtio::Features;

/// Ring features that the split ring does not implement; negotiating one of them is refused at set-up.
pub const UNSUPPORTED: Features = Features::RING_PACKED
    .union(Features::IN_ORDER)
    .union(Features::NOTIFY_ON_EMPTY);

/// In the available ring's `flags`: the driver does not want to be told (`VIRTQ_AVAIL_F_NO_INTERRUPT`).
const NO_INTERRUPT: u16 = 1;
/// In the used ring's `flags`: the device does not want to be told (`VIRTQ_USED_F_NO_NOTIFY`).
const NO_NOTIFY: u16 = 1;
