//! Where a ring's areas lie among memories that the driver, the device or both write.

use shmbus_shm::{RingFormat, Window, WindowError};
use shmbus_virtio::{Features, PrivateFeatures};

use crate::fault::SetupError;
use crate::features::RingFeatures;
use crate::{packed, split, tagged};

/// Areas that only one side writes lie on lines of their own.
const LINE: usize = 64;

/// A ring's format and size, and how much of each memory it needs.
///
/// What one side alone writes lies in that side's memory, so that the other side, and any observer, can have it mapped
/// for reading only. What both write lies in a third memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// A split ring: descriptor area and driver area in the driver's memory, device area in the device's.
    Split(split::Layout),
    /// A packed ring: the descriptor area in common memory, driver area and device area in the memory of the side
    /// that they are named after.
    Packed(packed::Layout),
    /// A tagged ring: likewise.
    Tagged(tagged::Layout),
}

impl Layout {
    /// The layout of a ring of `size` entries.
    ///
    /// # Errors
    ///
    /// [`SetupError::Size`].
    pub fn new(format: RingFormat, size: u16) -> Result<Self, SetupError> {
        match format {
            RingFormat::Split => Ok(Self::Split(split::Layout::new(size)?)),
            RingFormat::Packed => Ok(Self::Packed(packed::Layout::new(size)?)),
            RingFormat::Tagged => Ok(Self::Tagged(tagged::Layout::new(size)?)),
        }
    }

    /// The format.
    pub const fn format(self) -> RingFormat {
        match self {
            Self::Split(_) => RingFormat::Split,
            Self::Packed(_) => RingFormat::Packed,
            Self::Tagged(_) => RingFormat::Tagged,
        }
    }

    /// The queue's size, in entries.
    pub const fn size(self) -> u16 {
        match self {
            Self::Split(layout) => layout.size(),
            Self::Packed(layout) => layout.size(),
            Self::Tagged(layout) => layout.size(),
        }
    }

    /// How much memory the ring needs that the driver writes, in bytes: whole lines.
    pub const fn driver_bytes(self) -> usize {
        match self {
            Self::Split(layout) => layout.driver_bytes(),
            Self::Packed(layout) => layout.driver_area_bytes().next_multiple_of(LINE),
            Self::Tagged(layout) => layout.driver_area_bytes().next_multiple_of(LINE),
        }
    }

    /// How much memory the ring needs that the device writes, in bytes: whole lines.
    pub const fn device_bytes(self) -> usize {
        match self {
            Self::Split(layout) => layout.device_bytes(),
            Self::Packed(layout) => layout.device_area_bytes().next_multiple_of(LINE),
            Self::Tagged(layout) => layout.device_area_bytes().next_multiple_of(LINE),
        }
    }

    /// How much memory the ring needs that both sides write, in bytes: whole lines, or none.
    pub const fn common_bytes(self) -> usize {
        match self {
            Self::Split(_) => 0,
            Self::Packed(layout) => layout.descriptors_bytes().next_multiple_of(LINE),
            Self::Tagged(layout) => layout.descriptors_bytes().next_multiple_of(LINE),
        }
    }
}

/// A ring's areas.
#[derive(Clone, Debug)]
pub enum Areas<W> {
    /// Those of a split ring.
    Split(split::Areas<W>),
    /// Those of a packed ring.
    Packed(packed::Areas<W>),
    /// Those of a tagged ring.
    Tagged(tagged::Areas<W>),
}

impl<W: Window> Areas<W> {
    /// The areas at the start of memories that the driver writes, the device writes, and both write. The last one is
    /// needed if [`Layout::common_bytes`] says so.
    ///
    /// # Errors
    ///
    /// [`SetupError::Area`] if an area is longer than its memory, or is not aligned for its accesses.
    pub fn in_memories(
        layout: Layout,
        driver: &W,
        device: &W,
        common: Option<&W>,
    ) -> Result<Self, SetupError> {
        let common = || {
            common.ok_or(SetupError::Area {
                area: "descriptor area",
                source: WindowError::OutOfBounds {
                    offset: 0,
                    bytes: layout.common_bytes(),
                    len: 0,
                },
            })
        };
        match layout {
            Layout::Split(layout) => {
                split::Areas::in_memories(layout, driver, device).map(Self::Split)
            }
            Layout::Packed(layout) => {
                packed::Areas::new(layout, common()?, driver, device).map(Self::Packed)
            }
            Layout::Tagged(layout) => {
                tagged::Areas::new(layout, common()?, driver, device).map(Self::Tagged)
            }
        }
    }

    /// The queue's size, in entries.
    pub fn size(&self) -> u16 {
        match self {
            Self::Split(areas) => areas.size(),
            Self::Packed(areas) => areas.size(),
            Self::Tagged(areas) => areas.size(),
        }
    }

    /// Refuses what was negotiated for a ring that lies otherwise.
    pub(super) fn check_format(&self, features: RingFeatures) -> Result<RingFeatures, SetupError> {
        // Each ring refuses another format's features itself, but may be used where nothing is negotiated.
        let (needed, private) = match self {
            Self::Split(_) => (Features::empty(), PrivateFeatures::empty()),
            Self::Packed(_) => (Features::RING_PACKED, PrivateFeatures::empty()),
            Self::Tagged(_) => (Features::empty(), PrivateFeatures::RING_TAGGED),
        };
        if !features.virtio.contains(needed) {
            let bits = needed.bits();
            return Err(SetupError::Missing { bits });
        }
        if !features.private.contains(private) {
            let bits = private.bits();
            return Err(SetupError::MissingPrivate { bits });
        }
        Ok(features)
    }
}
