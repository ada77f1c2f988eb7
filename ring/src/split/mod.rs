//! The split virtqueue (virtio 1.4, section 2.7): a descriptor table and an available ring that the driver writes,
//! a used ring that the device writes.

mod areas;
mod device_order;
mod device_ring;
mod driver_order;
mod driver_ring;
mod indirect;
mod layout;
mod suppression;

pub use areas::Areas;
pub use device_ring::{DeviceRing, DeviceRingIn, InOrderDeviceRing};
pub use driver_ring::{DriverRing, DriverRingIn, InOrderDriverRing};
pub use layout::{Layout, LegacyLayout, MAX_SIZE};

use shmbus_shm::{FenceScope, Window};
use shmbus_virtio::{Features, PrivateFeatures};

use crate::fault::SetupError;
use crate::features::RingType;

/// What both types of split ring take of shmbus's own features.
const PRIVATE: PrivateFeatures = PrivateFeatures::USED_EVENT
    .union(PrivateFeatures::AVAIL_EVENT)
    .union(PrivateFeatures::PUBLISH_INDICES);

/// Chains come back in any order.
const PLAIN: RingType = RingType {
    required: Features::empty(),
    unsupported: Features::RING_PACKED.union(Features::IN_ORDER),
    private: PRIVATE,
};

/// Chains come back in the order in which they were made available.
const IN_ORDER: RingType = RingType {
    required: Features::IN_ORDER,
    unsupported: Features::RING_PACKED,
    private: PRIVATE,
};

/// A queue's size and its memory's kind never change.
fn check_rebinding<W: Window>(
    areas: &Areas<W>,
    size: u16,
    scope: FenceScope,
) -> Result<(), SetupError> {
    if areas.size != size {
        return Err(SetupError::OtherSize {
            found: areas.size,
            expected: size,
        });
    }
    let found = areas.fence_scope();
    if found != scope {
        return Err(SetupError::FenceScope { found });
    }
    Ok(())
}
