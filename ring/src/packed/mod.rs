//! The packed virtqueue (virtio 1.4, section 2.8): one ring of descriptors that both sides write, and two words by
//! which each side says when it wants to be told.
//!
//! A descriptor is made available and marked used in place, by two flags whose meaning alternates from lap to lap. Its
//! length, id and flags are one aligned word here, on both sides. So a single store publishes a descriptor whole, and
//! a single load sees all three of one moment: flags that become visible before what they stand for cannot be.

mod areas;
mod cursor;
mod device_ring;
mod driver_ring;
mod suppression;

pub use areas::{Areas, Layout, MAX_SIZE};
pub use device_ring::DeviceRing;
pub use driver_ring::DriverRing;

use shmbus_virtio::Features;

use crate::fault::SetupError;

/// Ring features that the packed ring does not implement; negotiating one of them is refused at set-up.
pub const UNSUPPORTED: Features = Features::IN_ORDER.union(Features::NOTIFY_ON_EMPTY);

fn check_position(position: u16, size: u16) -> Result<(), SetupError> {
    match cursor::Cursor::from_bits(position, size) {
        Some(_) => Ok(()),
        None => Err(SetupError::Position { position, size }),
    }
}
