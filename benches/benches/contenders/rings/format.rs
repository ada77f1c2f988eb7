//! The formats of rings.

use shmbus_benches::SetUpError;
use shmbus_ring::{DeviceFormat, DriverFormat, RingFeatures, packed, split, tagged};
use shmbus_shm::{Mapped, Window};
use shmbus_virtio::{Features, PrivateFeatures};

use super::SIZE;

/// How much memory a ring of any format needs at most.
pub(super) const RING_BYTES: usize = 0x4000;

/// Where the memory starts that a split ring's device writes.
pub(super) const SPLIT_DEVICE_MEMORY: usize = 0x2000;

/// A format of rings.
pub(super) trait Format: 'static {
    /// As it is called in `FORMAT/WORK`.
    const NAME: &'static str;
    /// What is negotiated for it. Without `IN_ORDER` the device may complete chains in any order.
    const FEATURES: Features;

    type Driver: DriverFormat + Send + 'static;
    type Device: DeviceFormat + Send + 'static;

    /// The private features of the format.
    const PRIVATE: PrivateFeatures = PrivateFeatures::empty();

    /// These features and the format's own.
    fn features(more: Features) -> RingFeatures {
        RingFeatures::from(Self::FEATURES | more).with_private(Self::PRIVATE)
    }

    /// Both sides of a ring in `memory`, which has [`RING_BYTES`], with [`Self::features`].
    fn sides(
        memory: &Mapped,
        features: RingFeatures,
    ) -> Result<(Self::Driver, Self::Device), SetUpError>;
}

/// Where a split ring's areas lie.
fn split_areas(memory: &Mapped) -> Result<split::Areas<Mapped>, SetUpError> {
    let layout = split::Layout::new(SIZE)?;
    Ok(split::Areas::in_memories(
        layout,
        &memory.narrow(0, layout.driver_bytes())?,
        &memory.narrow(SPLIT_DEVICE_MEMORY, layout.device_bytes())?,
    )?)
}

/// Where a packed ring's areas lie.
fn packed_areas(memory: &Mapped) -> Result<packed::Areas<Mapped>, SetUpError> {
    Ok(packed::Areas::in_memory(
        packed::Layout::new(SIZE)?,
        memory,
    )?)
}

/// Where a tagged ring's areas lie.
fn tagged_areas(memory: &Mapped) -> Result<tagged::Areas<Mapped>, SetUpError> {
    Ok(tagged::Areas::in_memory(
        tagged::Layout::new(SIZE)?,
        memory,
    )?)
}

/// A format by its name, its features, its areas, and the types of its sides.
macro_rules! format {
    ($format:ident, $name:literal, $features:expr, $areas:ident, $driver:path, $device:path $(, $($more:item)*)?) => {
        pub(in super::super) enum $format {}

        impl Format for $format {
            const NAME: &'static str = $name;
            const FEATURES: Features = $features;
            $($($more)*)?
            type Driver = $driver;
            type Device = $device;

            fn sides(
                memory: &Mapped,
                features: RingFeatures,
            ) -> Result<(Self::Driver, Self::Device), SetUpError> {
                let areas = $areas(memory)?;
                let driver = Self::Driver::new(areas.clone(), features)?;
                Ok((driver, Self::Device::new(areas, features)?))
            }
        }
    };
}

const PLAIN: Features = Features::VERSION_1;
const PACKED: Features = PLAIN.union(Features::RING_PACKED);

#[rustfmt::skip]
mod formats {
    use super::*;

    format!(Split, "split", PLAIN, split_areas, split::DriverRing<Mapped>, split::DeviceRing<Mapped>);
    format!(SplitInOrder, "split-inorder", PLAIN.union(Features::IN_ORDER), split_areas,
        split::InOrderDriverRing<Mapped>, split::InOrderDeviceRing<Mapped>);
    format!(Packed, "packed", PACKED, packed_areas, packed::DriverRing<Mapped>, packed::DeviceRing<Mapped>);
    format!(PackedInOrder, "packed-inorder", PACKED.union(Features::IN_ORDER), packed_areas,
        packed::InOrderDriverRing<Mapped>, packed::InOrderDeviceRing<Mapped>);
    format!(Tagged, "tagged", PLAIN, tagged_areas, tagged::DriverRing<Mapped>, tagged::DeviceRing<Mapped>,
        const PRIVATE: PrivateFeatures = PrivateFeatures::RING_TAGGED;);
}

pub(super) use formats::{Packed, PackedInOrder, Split, SplitInOrder, Tagged};
