//! The packed virtqueue (virtio 1.4, section 2.8): one ring of descriptors that both sides write, and two words by
//! which each side says when it wants to be told.
//!
//! A descriptor is made available and marked used in place, by two flags whose meaning alternates from lap to lap. Its
//! length, id and flags are one aligned word here, on both sides. So a single store publishes a descriptor whole, and
//! a single load sees all three of one moment: flags that become visible before what they stand for cannot be.

mod areas;
mod cursor;
mod device_order;
mod device_ring;
mod driver_order;
mod driver_ring;
mod recover;
mod saved;
mod unpublished;

pub use areas::{Areas, Layout, MAX_SIZE};
pub use device_ring::{DeviceRing, DeviceRingIn, InOrderDeviceRing};
pub use driver_ring::{DriverRing, DriverRingIn, InOrderDriverRing};
pub use recover::recover;

use shmbus_shm::{FenceScope, Window};
use shmbus_virtio::{Features, PrivateFeatures};

use crate::fault::SetupError;
use crate::features::RingType;

/// What both types of packed ring take of shmbus's own features.
const PRIVATE: PrivateFeatures = PrivateFeatures::USED_EVENT.union(PrivateFeatures::AVAIL_EVENT);

/// Chains come back in any order.
const PLAIN: RingType = RingType {
    required: Features::empty(),
    unsupported: Features::IN_ORDER.union(Features::NOTIFY_ON_EMPTY),
    private: PRIVATE,
};

/// Chains come back in the order in which they were made available.
const IN_ORDER: RingType = RingType {
    required: Features::IN_ORDER,
    unsupported: Features::NOTIFY_ON_EMPTY,
    private: PRIVATE,
};

/// Where both sides start.
pub(crate) const ORIGIN: u16 = cursor::Cursor::ORIGIN.to_bits();

/// How many descriptors `to` lies behind `from`, if the ring has both positions.
pub(crate) fn entries_between(from: u16, to: u16, size: u16) -> Option<u16> {
    let (from, to) = (
        cursor::Cursor::from_bits(from, size)?,
        cursor::Cursor::from_bits(to, size)?,
    );
    // Below twice the largest size.
    u16::try_from(from.distance_to(to, size)).ok()
}

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
