//! The types of rings, as values.

use core::fmt;

use shmbus_shm::RingFormat;
use shmbus_virtio::{Features, PrivateFeatures};

use crate::packed;

/// Which type of ring: how its memory is laid out, and whether buffers come back in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingKind {
    /// The layout.
    pub format: RingFormat,
    /// Whether buffers are used in the order in which they were made available.
    pub in_order: bool,
}

/// In a type's number: in order.
const IN_ORDER: u8 = 1 << 7;

impl RingKind {
    /// Every type.
    pub const ALL: [Self; 5] = [
        Self::plain(RingFormat::Split),
        Self::in_order(RingFormat::Split),
        Self::plain(RingFormat::Packed),
        Self::in_order(RingFormat::Packed),
        Self::plain(RingFormat::Tagged),
    ];

    /// Chains come back in any order.
    pub const fn plain(format: RingFormat) -> Self {
        Self {
            format,
            in_order: false,
        }
    }

    /// Chains come back in the order in which they were made available.
    pub const fn in_order(format: RingFormat) -> Self {
        Self {
            format,
            in_order: true,
        }
    }

    /// The virtio features that must be negotiated for a ring of this type.
    pub const fn features(self) -> Features {
        let layout = match self.format {
            RingFormat::Packed => Features::RING_PACKED,
            RingFormat::Split | RingFormat::Tagged => Features::empty(),
        };
        if self.in_order {
            layout.union(Features::IN_ORDER)
        } else {
            layout
        }
    }

    /// The private features that must be negotiated for a ring of this type.
    pub const fn private_features(self) -> PrivateFeatures {
        match self.format {
            RingFormat::Tagged => PrivateFeatures::RING_TAGGED,
            RingFormat::Split | RingFormat::Packed => PrivateFeatures::empty(),
        }
    }

    /// The number by which layouts in memory know it: the format's, plus 128 in order.
    pub const fn number(self) -> u8 {
        self.format as u8 | if self.in_order { IN_ORDER } else { 0 }
    }

    /// The type with this number, which may come from anybody.
    pub fn from_number(number: u8) -> Option<Self> {
        let known = |kind: &Self| kind.number() == number;
        Self::ALL.into_iter().find(known)
    }

    /// The name by which programs know it.
    pub const fn name(self) -> &'static str {
        match (self.format, self.in_order) {
            (RingFormat::Split, false) => "split",
            (RingFormat::Split, true) => "split-inorder",
            (RingFormat::Packed, false) => "packed",
            (RingFormat::Packed, true) => "packed-inorder",
            (RingFormat::Tagged, _) => "tagged",
        }
    }

    /// The position at which both sides start.
    pub const fn origin(self) -> u16 {
        match self.format {
            RingFormat::Split | RingFormat::Tagged => 0,
            RingFormat::Packed => packed::ORIGIN,
        }
    }

    /// Whether a ring of `size` entries has this position.
    pub fn has_position(self, position: u16, size: u16) -> bool {
        self.entries_between(position, position, size).is_some()
    }

    /// A position without its wrap counter, and the counter if positions of this type carry one.
    pub const fn parts(self, position: u16) -> (u16, Option<bool>) {
        match self.format {
            RingFormat::Split | RingFormat::Tagged => (position, None),
            RingFormat::Packed => (position & 0x7fff, Some(position >> 15 == 1)),
        }
    }

    /// How many entries lie from position `from` up to position `to` in a ring of `size` entries, as
    /// [`Positions`](crate::Positions) counts; `None` if they are further apart than the two sides of a ring can be, or
    /// the ring has no such position.
    ///
    /// `from` is the position of the side that follows, and never more than `size` entries behind. So where they are
    /// more, the two positions are not of one moment, or somebody lies.
    pub fn entries_between(self, from: u16, to: u16, size: u16) -> Option<u16> {
        let entries = match self.format {
            RingFormat::Split | RingFormat::Tagged => to.wrapping_sub(from),
            RingFormat::Packed => packed::entries_between(from, to, size)?,
        };
        (entries <= size).then_some(entries)
    }
}

impl fmt::Display for RingKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
