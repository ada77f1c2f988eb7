//! The memory of a lane.

use shmbus_ring::any::{Areas, Layout};
use shmbus_ring::{RingFeatures, SetupError};
use shmbus_shm::{Mapped, Window, WindowError, heap};
use shmbus_table::{LayoutError, TableError, Value, layout_of};

use super::element::element_bytes;
use super::{Carrier, Reading, RingCarrier};
use crate::device::NoRegion;

/// Where a lane's values lie.
#[derive(Clone, Debug)]
pub enum Lane<W> {
    /// In a table, which its writer sets up in this memory.
    Table(W),
    /// In the elements of a ring.
    Ring(RingLane<W>),
}

/// The memory of a ring, and what was agreed on it.
#[derive(Clone, Debug)]
pub struct RingLane<W> {
    /// The ring.
    pub areas: Areas<W>,
    /// The elements: [`buffers_bytes`](super::RingLane::buffers_bytes). Written by the sender alone.
    pub buffers: W,
    /// What was negotiated.
    pub features: RingFeatures,
    /// What the receiver does with the elements.
    pub reading: Reading,
}

/// A lane cannot be set up in its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LaneError {
    /// Its table cannot.
    #[error(transparent)]
    Table(#[from] TableError),
    /// Its ring cannot.
    #[error(transparent)]
    Ring(#[from] SetupError),
    /// Its buffers do not fit.
    #[error("the elements' buffers: {0}")]
    Buffers(#[from] WindowError),
    /// A region is missing.
    #[error(transparent)]
    Region(#[from] NoRegion),
}

impl From<LayoutError> for LaneError {
    fn from(error: LayoutError) -> Self {
        Self::Table(error.into())
    }
}

/// From one buffer to the next, in bytes: whole lines, so that two elements share none.
pub(super) const fn stride<V: Value>() -> usize {
    element_bytes::<V>().next_multiple_of(64)
}

impl<W: Window> RingLane<W> {
    /// Bytes of a buffer for each entry of a ring of `size` entries, for values of `V`.
    pub const fn buffers_bytes<V: Value>(size: u16) -> usize {
        stride::<V>() * size as usize
    }
}

impl Lane<Mapped> {
    /// Memory on the heap for `slots` values of `V`, where both sides are in one process.
    ///
    /// # Errors
    ///
    /// [`LaneError`] for a geometry that there is not.
    pub fn on_heap<V: Value>(carrier: Carrier, slots: u32) -> Result<Self, LaneError> {
        let RingCarrier {
            kind,
            size,
            reading,
        } = match carrier {
            Carrier::Table => return Ok(Self::Table(heap(layout_of::<V>(slots)?.bytes()))),
            Carrier::Ring(ring) => ring,
        };
        let layout = Layout::new(kind.format, size)?;
        let common = (layout.common_bytes() > 0).then(|| heap(layout.common_bytes()));
        Ok(Self::Ring(RingLane {
            areas: Areas::in_memories(
                layout,
                &heap(layout.driver_bytes()),
                &heap(layout.device_bytes()),
                common.as_ref(),
            )?,
            buffers: heap(RingLane::<Mapped>::buffers_bytes::<V>(size)),
            features: carrier.features(),
            reading,
        }))
    }
}
