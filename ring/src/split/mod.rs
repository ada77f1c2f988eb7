//! The split virtqueue (virtio 1.4, section 2.7): a descriptor table and an available ring that the driver writes,
//! a used ring that the device writes.

mod areas;
mod device_order;
mod device_ring;
mod driver_order;
mod driver_ring;
mod indirect;
mod layout;
mod recover;
mod suppression;

pub use areas::Areas;
pub use device_ring::{DeviceRing, DeviceRingIn, InOrderDeviceRing};
pub use driver_ring::{DriverRing, DriverRingIn, InOrderDriverRing};
pub use layout::{Layout, LegacyLayout, MAX_SIZE};
pub use recover::{recover, recover_in_order};

use shmbus_shm::{FenceScope, Window};
use shmbus_virtio::{Features, PrivateFeatures};

use crate::fault::SetupError;
use crate::features::RingType;
use crate::positions::Positions;
use crate::state::StateError;

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

/// Both indices run freely, and the chains in flight lie between them. With in-order completion the device's state names
/// none: it goes on at the used index.
fn check_positions(positions: Positions) -> Result<(), StateError> {
    let between = positions.available.wrapping_sub(positions.used);
    if between != positions.in_flight {
        return Err(StateError::Field {
            field: "in_flight",
            found: u64::from(positions.in_flight),
            expected: "the distance from used to available",
        });
    }
    Ok(())
}

/// The index that a side published is in shared memory: a state that says another is of another moment.
fn check_index(field: &'static str, found: u16, in_memory: u16) -> Result<(), StateError> {
    if found != in_memory {
        return Err(StateError::Field {
            field,
            found: u64::from(found),
            expected: "the index in the ring's memory",
        });
    }
    Ok(())
}
