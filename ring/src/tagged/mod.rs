//! The tagged ring.

mod areas;
mod device_ring;
mod driver_ring;
mod label;
mod layout;
mod recover;
mod saved;

pub use areas::Areas;
pub use device_ring::DeviceRing;
pub use driver_ring::DriverRing;
pub use layout::{Layout, MAX_SIZE};
pub use recover::recover;

use shmbus_shm::{FenceScope, Window};
use shmbus_virtio::{Features, PrivateFeatures};

use crate::fault::SetupError;
use crate::features::RingType;

/// Chains come back in any order.
const PLAIN: RingType = RingType {
    required: Features::empty(),
    unsupported: Features::RING_PACKED
        .union(Features::IN_ORDER)
        .union(Features::NOTIFY_ON_EMPTY),
    private: PrivateFeatures::RING_TAGGED
        .union(PrivateFeatures::USED_EVENT)
        .union(PrivateFeatures::AVAIL_EVENT),
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
    let found = areas.descriptors.fence_scope();
    if found != scope {
        return Err(SetupError::FenceScope { found });
    }
    Ok(())
}
