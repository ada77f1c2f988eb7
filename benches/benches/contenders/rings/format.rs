//! The formats of rings.

use shmbus_benches::SetUpError;
use shmbus_ring::{DeviceFormat, DriverFormat, packed, split};
use shmbus_shm::{Mapped, Window};
use shmbus_virtio::Features;

use super::SIZE;

/// How much memory a ring of any format needs at most.
pub(super) const RING_BYTES: usize = 0x4000;

/// Where the memory starts that a split ring's device writes.
pub(super) const SPLIT_DEVICE_MEMORY: usize = 0x2000;

/// A format of rings.
pub(super) trait Format: 'static {
    /// As it is called in `FORMAT/WORK`.
    const NAME: &'static str;
    /// Whether the device may complete chains in another order than that in which it took them.
    const REORDERS: bool;

    type Driver: DriverFormat + Send + 'static;
    type Device: DeviceFormat + Send + 'static;

    /// Both sides of a ring in `memory`, which has [`RING_BYTES`].
    fn sides(
        memory: &Mapped,
        features: Features,
    ) -> Result<(Self::Driver, Self::Device), SetUpError>;
}

pub(super) enum Split {}

impl Format for Split {
    const NAME: &'static str = "split";
    const REORDERS: bool = true;
    type Driver = split::DriverRing<Mapped>;
    type Device = split::DeviceRing<Mapped>;

    fn sides(
        memory: &Mapped,
        features: Features,
    ) -> Result<(Self::Driver, Self::Device), SetUpError> {
        let layout = split::Layout::new(SIZE)?;
        let areas = split::Areas::in_memories(
            layout,
            &memory.narrow(0, layout.driver_bytes())?,
            &memory.narrow(SPLIT_DEVICE_MEMORY, layout.device_bytes())?,
        )?;
        Ok((
            split::DriverRing::new(areas.clone(), features)?,
            split::DeviceRing::new(areas, features)?,
        ))
    }
}

pub(super) enum Packed {}

impl Format for Packed {
    const NAME: &'static str = "packed";
    const REORDERS: bool = true;
    type Driver = packed::DriverRing<Mapped>;
    type Device = packed::DeviceRing<Mapped>;

    fn sides(
        memory: &Mapped,
        features: Features,
    ) -> Result<(Self::Driver, Self::Device), SetUpError> {
        let areas = packed::Areas::in_memory(packed::Layout::new(SIZE)?, memory)?;
        Ok((
            packed::DriverRing::new(areas.clone(), features)?,
            packed::DeviceRing::new(areas, features)?,
        ))
    }
}
