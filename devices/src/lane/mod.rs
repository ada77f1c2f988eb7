//! One way for latest values, from the guest to the host or back, over a table or over a ring.
//!
//! A timer's deadlines, a clock's samples, a line's state: each is a value in one of so many slots, and a newer one
//! takes the place of the one before. Such values belong in a table, and that is how the devices carry them. A *ring
//! twin* of a device carries the same values over a virtqueue instead, for one reason: to see what the table is worth.
//! The device's own logic is the same code over both; it knows an outlet, into which values go, and an inlet, out
//! of which they come with the generation that their writer gave them.
//!
//! # What a ring twin does
//!
//! Each value is an *element*: slot, generation and the value's words, in one buffer of lines of its own. Elements are
//! batched and notified of by event index; buffers are recycled, and nothing is allocated once it runs. The receiver
//! either acts on every element, one after the other ([`Reading::Every`]), or drains what is there, at most a ring's
//! worth at a time, and acts on the last one of each slot ([`Reading::Last`]). It copies an element out and returns the
//! buffer before it acts, so that acting does not keep the ring full.
//!
//! # When the ring is full
//!
//! - A guest under [`Reading::Last`] keeps the newest value of each slot to itself, and posts it when the host has
//!   returned buffers: what "the last one counts" means on the producer's side. What the host acts on is then at most as
//!   old as the ring is long.
//! - A guest under [`Reading::Every`] is refused ([`OutletError::Full`]) and tries again when the host has signalled: every
//!   element counts, so none may be left out, and an unbounded queue in the guest would only hide the same wait.
//! - A host never waits for a guest, whatever the reading: it keeps the newest value of each slot, and posts it when the
//!   guest lends buffers again.

mod element;
mod ends;
mod inlet;
mod memory;
mod outlet;
mod regions;
mod ring_inlet;
mod ring_outlet;
mod table_inlet;
#[cfg(test)]
pub(crate) mod tests;

use shmbus_ring::{RingFeatures, RingKind};
use shmbus_virtio::{Features, PrivateFeatures};

pub use element::ElementError;
pub use ends::RingError;
pub(crate) use inlet::Inlet;
pub use inlet::InletError;
pub use memory::{Lane, LaneError, RingLane};
pub(crate) use outlet::Outlet;
pub use outlet::OutletError;
pub(crate) use regions::{Direction, LaneRoles, requests};

/// What a receiver does with the elements of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// It acts on every one.
    Every,
    /// It drains what is there, and acts on the last one of each slot.
    Last,
}

/// What carries a device's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// Tables: the latest value is the only one there is.
    Table,
    /// Rings: a twin, for comparison.
    Ring(RingCarrier),
}

/// The rings of a twin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingCarrier {
    /// Their type.
    pub kind: RingKind,
    /// Their entries.
    pub size: u16,
    /// What receivers do with their elements.
    pub reading: Reading,
}

impl Carrier {
    /// Its number in a device's configuration: 0 for tables, 1 and 2 for rings of which every element, or the last,
    /// is acted on.
    pub const fn number(self) -> u64 {
        match self {
            Self::Table => 0,
            Self::Ring(RingCarrier {
                reading: Reading::Every,
                ..
            }) => 1,
            Self::Ring(RingCarrier {
                reading: Reading::Last,
                ..
            }) => 2,
        }
    }

    /// Which values the host acts on: of a table, it is the last.
    pub const fn reading(self) -> Reading {
        match self {
            Self::Table => Reading::Last,
            Self::Ring(RingCarrier { reading, .. }) => reading,
        }
    }

    /// What the device offers for it.
    pub fn features(self) -> RingFeatures {
        match self {
            Self::Table => Features::VERSION_1.into(),
            Self::Ring(ring) => ring.features(),
        }
    }
}

/// What a driver accepts of what a device with lanes offers: rings of any type.
pub fn accepted(offered: RingFeatures) -> RingFeatures {
    let virtio =
        Features::VERSION_1 | Features::EVENT_IDX | Features::RING_PACKED | Features::IN_ORDER;
    let private = PrivateFeatures::RING_TAGGED & offered.private;
    RingFeatures::from(virtio.choose(offered.virtio)).with_private(private)
}

impl Reading {
    /// The reading of a [`Carrier::number`], which may come from anybody; tables have none.
    pub const fn from_number(number: u64) -> Option<Self> {
        match number {
            1 => Some(Self::Every),
            2 => Some(Self::Last),
            _ => None,
        }
    }
}

impl RingCarrier {
    /// What both sides must accept for these rings.
    pub fn features(self) -> RingFeatures {
        let virtio = Features::VERSION_1 | Features::EVENT_IDX | self.kind.features();
        RingFeatures::from(virtio).with_private(self.kind.private_features())
    }
}
