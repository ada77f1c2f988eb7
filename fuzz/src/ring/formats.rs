//! The ring formats, as far as the targets have to tell them apart.

use shmbus_ring::{DeviceFormat, DriverFormat, packed, split, tagged};
use shmbus_shm::Window;
use shmbus_virtio::{Features, PrivateFeatures};

use super::memory::Spoilt;
use super::setting::{MOST_ENTRIES, Setting};

/// How a format's rings lie in memory.
pub trait Placement {
    /// A ring's areas.
    type Areas;

    /// The size of the ring, in entries, that a setting stands for.
    fn size(setting: Setting) -> u16;

    /// The position of the ring that a setting stands for.
    fn position(setting: Setting) -> u16;

    /// How much memory a ring needs, in bytes.
    fn bytes(setting: Setting) -> usize;

    /// The ring's areas in so much memory.
    fn areas(setting: Setting, memory: &Spoilt) -> Self::Areas;
}

/// A ring format: both its sides, over memory whose loads may be lied to.
pub trait Format {
    /// Where its rings lie.
    type Placement: Placement;
    /// Its driver side.
    type Driver: DriverFormat<Areas = <Self::Placement as Placement>::Areas>;
    /// Its device side.
    type Device: DeviceFormat<Areas = <Self::Placement as Placement>::Areas>;

    /// What must be negotiated.
    const REQUIRED: Features;
    /// What may be negotiated of virtio's features.
    const OPTIONAL: Features;
    /// What may be negotiated of shmbus's own features.
    const PRIVATE: PrivateFeatures;
    /// Whether chains come back in the order in which they were made available.
    const IN_ORDER: bool;
    /// Whether a poll knows how many chains there are, and not only whether there is one.
    const COUNTS: bool;

    /// The driver side over its areas.
    fn driver(areas: Areas<Self>, setting: Setting) -> Self::Driver;

    /// The device side over its areas.
    fn device(areas: Areas<Self>, setting: Setting) -> Self::Device;
}

/// A format's areas.
pub(super) type Areas<F> = <<F as Format>::Placement as Placement>::Areas;

const EVERYWHERE: Features = Features::INDIRECT_DESC.union(Features::EVENT_IDX);
const HALVES: PrivateFeatures = PrivateFeatures::USED_EVENT.union(PrivateFeatures::AVAIL_EVENT);

/// The driver's areas, then the device's.
#[derive(Debug)]
pub enum SplitPlacement {}

impl SplitPlacement {
    fn layout(setting: Setting) -> split::Layout {
        split::Layout::new(Self::size(setting)).expect("a power of two")
    }
}

impl Placement for SplitPlacement {
    type Areas = split::Areas<Spoilt>;

    fn size(setting: Setting) -> u16 {
        1 << (setting.size % (MOST_ENTRIES.ilog2() as u8 + 1))
    }

    fn position(setting: Setting) -> u16 {
        setting.position
    }

    fn bytes(setting: Setting) -> usize {
        let layout = Self::layout(setting);
        layout.driver_bytes() + layout.device_bytes() + 4
    }

    fn areas(setting: Setting, memory: &Spoilt) -> Self::Areas {
        let layout = Self::layout(setting);
        let from = layout.driver_bytes() + if setting.halves { 4 } else { 0 };
        let device = memory.narrow(from, layout.device_bytes());
        let device = device.expect("the memory is long enough");
        split::Areas::in_memories(layout, memory, &device).expect("the layout fits its own memory")
    }
}

/// The split ring whose chains come back in any order.
#[derive(Debug)]
pub enum Split {}

impl Format for Split {
    type Placement = SplitPlacement;
    type Driver = split::DriverRing<Spoilt>;
    type Device = split::DeviceRing<Spoilt>;

    const REQUIRED: Features = Features::empty();
    const OPTIONAL: Features = EVERYWHERE.union(Features::NOTIFY_ON_EMPTY);
    const PRIVATE: PrivateFeatures = HALVES.union(PrivateFeatures::PUBLISH_INDICES);
    const IN_ORDER: bool = false;
    const COUNTS: bool = true;

    fn driver(areas: Areas<Self>, setting: Setting) -> Self::Driver {
        split::DriverRing::new(areas, setting.features::<Self>())
            .expect("the features are implemented")
    }

    fn device(areas: Areas<Self>, setting: Setting) -> Self::Device {
        split::DeviceRing::new(areas, setting.features::<Self>())
            .expect("the features are implemented")
    }
}

/// The split ring whose chains come back in order.
#[derive(Debug)]
pub enum SplitInOrder {}

impl Format for SplitInOrder {
    type Placement = SplitPlacement;
    type Driver = split::InOrderDriverRing<Spoilt>;
    type Device = split::InOrderDeviceRing<Spoilt>;

    const REQUIRED: Features = Features::VERSION_1.union(Features::IN_ORDER);
    const OPTIONAL: Features = EVERYWHERE;
    const PRIVATE: PrivateFeatures = HALVES.union(PrivateFeatures::PUBLISH_INDICES);
    const IN_ORDER: bool = true;
    const COUNTS: bool = true;

    fn driver(areas: Areas<Self>, setting: Setting) -> Self::Driver {
        split::InOrderDriverRing::new(areas, setting.features::<Self>())
            .expect("the features are implemented")
    }

    fn device(areas: Areas<Self>, setting: Setting) -> Self::Device {
        split::InOrderDeviceRing::new(areas, setting.features::<Self>())
            .expect("the features are implemented")
    }
}

/// One ring, and both sides' wishes behind it.
#[derive(Debug)]
pub enum PackedPlacement {}

impl PackedPlacement {
    fn layout(setting: Setting) -> packed::Layout {
        packed::Layout::new(Self::size(setting)).expect("a size that rings have")
    }
}

impl Placement for PackedPlacement {
    type Areas = packed::Areas<Spoilt>;

    fn size(setting: Setting) -> u16 {
        u16::from(setting.size % MOST_ENTRIES) + 1
    }

    fn position(setting: Setting) -> u16 {
        setting.position & 0x8000 | (setting.position & 0x7fff) % Self::size(setting)
    }

    fn bytes(setting: Setting) -> usize {
        Self::layout(setting).bytes()
    }

    fn areas(setting: Setting, memory: &Spoilt) -> Self::Areas {
        packed::Areas::in_memory(Self::layout(setting), memory)
            .expect("the layout fits its own memory")
    }
}

/// The packed ring whose chains come back in any order.
#[derive(Debug)]
pub enum Packed {}

impl Format for Packed {
    type Placement = PackedPlacement;
    type Driver = packed::DriverRing<Spoilt>;
    type Device = packed::DeviceRing<Spoilt>;

    const REQUIRED: Features = Features::VERSION_1.union(Features::RING_PACKED);
    const OPTIONAL: Features = EVERYWHERE;
    const PRIVATE: PrivateFeatures = HALVES;
    const IN_ORDER: bool = false;
    const COUNTS: bool = false;

    fn driver(areas: Areas<Self>, setting: Setting) -> Self::Driver {
        packed::DriverRing::new(areas, setting.features::<Self>())
            .expect("the features are implemented")
    }

    fn device(areas: Areas<Self>, setting: Setting) -> Self::Device {
        packed::DeviceRing::new(areas, setting.features::<Self>())
            .expect("the features are implemented")
    }
}

/// The packed ring whose chains come back in order.
#[derive(Debug)]
pub enum PackedInOrder {}

impl Format for PackedInOrder {
    type Placement = PackedPlacement;
    type Driver = packed::InOrderDriverRing<Spoilt>;
    type Device = packed::InOrderDeviceRing<Spoilt>;

    const REQUIRED: Features = Packed::REQUIRED.union(Features::IN_ORDER);
    const OPTIONAL: Features = EVERYWHERE;
    const PRIVATE: PrivateFeatures = HALVES;
    const IN_ORDER: bool = true;
    const COUNTS: bool = false;

    fn driver(areas: Areas<Self>, setting: Setting) -> Self::Driver {
        packed::InOrderDriverRing::new(areas, setting.features::<Self>())
            .expect("the features are implemented")
    }

    fn device(areas: Areas<Self>, setting: Setting) -> Self::Device {
        packed::InOrderDeviceRing::new(areas, setting.features::<Self>())
            .expect("the features are implemented")
    }
}

/// One ring, and both sides' wishes behind it.
#[derive(Debug)]
pub enum TaggedPlacement {}

impl TaggedPlacement {
    fn layout(setting: Setting) -> tagged::Layout {
        tagged::Layout::new(Self::size(setting)).expect("a power of two")
    }
}

impl Placement for TaggedPlacement {
    type Areas = tagged::Areas<Spoilt>;

    fn size(setting: Setting) -> u16 {
        2 << (setting.size % MOST_ENTRIES.ilog2() as u8)
    }

    fn position(setting: Setting) -> u16 {
        setting.position
    }

    fn bytes(setting: Setting) -> usize {
        Self::layout(setting).bytes()
    }

    fn areas(setting: Setting, memory: &Spoilt) -> Self::Areas {
        tagged::Areas::in_memory(Self::layout(setting), memory)
            .expect("the layout fits its own memory")
    }
}

/// The tagged ring.
#[derive(Debug)]
pub enum Tagged {}

impl Format for Tagged {
    type Placement = TaggedPlacement;
    type Driver = tagged::DriverRing<Spoilt>;
    type Device = tagged::DeviceRing<Spoilt>;

    const REQUIRED: Features = Features::empty();
    const OPTIONAL: Features = EVERYWHERE;
    const PRIVATE: PrivateFeatures = HALVES;
    const IN_ORDER: bool = false;
    const COUNTS: bool = false;

    fn driver(areas: Areas<Self>, setting: Setting) -> Self::Driver {
        let ring = tagged::DriverRing::new(areas, setting.features::<Self>())
            .expect("the features are implemented");
        if setting.halves {
            ring.with_half_distance()
        } else {
            ring
        }
    }

    fn device(areas: Areas<Self>, setting: Setting) -> Self::Device {
        tagged::DeviceRing::new(areas, setting.features::<Self>())
            .expect("the features are implemented")
    }
}
