//! What runs on a region.

/// How a ring lays out its entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RingFormat {
    /// virtio's split virtqueue.
    Split = 0,
    /// virtio's packed virtqueue.
    Packed = 1,
    /// The tagged ring.
    Tagged = 2,
}

impl RingFormat {
    /// The format with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        [RingFormat::Split, RingFormat::Packed, RingFormat::Tagged]
            .into_iter()
            .find(|format| *format as u8 == number)
    }
}

/// The most entries that a ring can have (virtio 1.4, 2.7 and 2.8).
const MAX_RING_SIZE: u64 = 1 << 15;
/// The most slots that a table can have.
const MAX_SLOTS: u64 = 1 << 16;
/// The largest slot, in bytes.
const MAX_SLOT_BYTES: u64 = 4096;

/// What runs on a region, and its geometry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegionKind {
    /// A ring, or one of its areas: every element counts.
    Ring {
        /// The layout.
        format: RingFormat,
        /// How many entries it has: 1 to 32768, for a split ring a power of two, for a tagged one a power of two from 2
        /// on.
        size: u16,
    },
    /// A table: the latest value wins.
    Table {
        /// How many slots it has: 1 to 65536.
        slots: u32,
        /// How long a slot's value is: 8 to 4096 bytes, a multiple of 8.
        slot_bytes: u32,
    },
    /// Bytes whose layout the device type gives.
    Raw {
        /// What the device type wants to know of them.
        params: [u64; 2],
    },
}

/// A kind, or its geometry, that does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKind {
    /// No kind has this number.
    #[error("no kind of region has the number {0}")]
    Kind(u8),
    /// No ring format has this number.
    #[error("no ring format has the number {0}")]
    RingFormat(u64),
    /// No ring of this format has this size.
    #[error("a {format:?} ring cannot have {size} entries")]
    RingSize {
        /// The ring's format.
        format: RingFormat,
        /// The size that was found.
        size: u64,
    },
    /// No table has so many slots of that size in a region of this length.
    #[error("a table of {slots} slots of {slot_bytes} bytes cannot lie in {bytes} bytes")]
    Table {
        /// How many slots.
        slots: u64,
        /// A slot's size in bytes.
        slot_bytes: u64,
        /// The region's length in bytes.
        bytes: u64,
    },
}

impl RegionKind {
    const RING: u8 = 1;
    const TABLE: u8 = 2;
    const RAW: u8 = 3;

    /// The kind's number in the directory, and its two parameters there.
    pub fn encode(self) -> (u8, [u64; 2]) {
        match self {
            RegionKind::Ring { format, size } => (Self::RING, [u64::from(size), format as u64]),
            RegionKind::Table { slots, slot_bytes } => {
                (Self::TABLE, [u64::from(slots), u64::from(slot_bytes)])
            }
            RegionKind::Raw { params } => (Self::RAW, params),
        }
    }

    /// The kind with this number and these parameters, for a region of `bytes` bytes.
    ///
    /// # Errors
    ///
    /// [`InvalidKind`]; the numbers may be a peer's.
    pub fn decode(kind: u8, params: [u64; 2], bytes: u64) -> Result<Self, InvalidKind> {
        match kind {
            Self::RING => Self::ring(params[0], params[1]),
            Self::TABLE => Self::table(params[0], params[1], bytes),
            Self::RAW => Ok(RegionKind::Raw { params }),
            kind => Err(InvalidKind::Kind(kind)),
        }
    }

    /// Checks a kind that was put together by hand.
    ///
    /// # Errors
    ///
    /// [`InvalidKind`].
    pub fn validate(self, bytes: u64) -> Result<(), InvalidKind> {
        let (kind, params) = self.encode();
        Self::decode(kind, params, bytes).map(drop)
    }

    fn ring(size: u64, format: u64) -> Result<Self, InvalidKind> {
        let format = u8::try_from(format)
            .ok()
            .and_then(RingFormat::from_number)
            .ok_or(InvalidKind::RingFormat(format))?;
        let fits = match format {
            RingFormat::Split => size.is_power_of_two(),
            RingFormat::Packed => size != 0,
            // One of them is the wall.
            RingFormat::Tagged => size.is_power_of_two() && size > 1,
        };
        match u16::try_from(size) {
            Ok(entries) if fits && size <= MAX_RING_SIZE => Ok(RegionKind::Ring {
                format,
                size: entries,
            }),
            _ => Err(InvalidKind::RingSize { format, size }),
        }
    }

    fn table(slots: u64, slot_bytes: u64, bytes: u64) -> Result<Self, InvalidKind> {
        let fits = (1..=MAX_SLOTS).contains(&slots)
            && (8..=MAX_SLOT_BYTES).contains(&slot_bytes)
            && slot_bytes.is_multiple_of(8)
            && slots * slot_bytes <= bytes;
        match (u32::try_from(slots), u32::try_from(slot_bytes)) {
            (Ok(slots), Ok(slot_bytes)) if fits => Ok(RegionKind::Table { slots, slot_bytes }),
            _ => Err(InvalidKind::Table {
                slots,
                slot_bytes,
                bytes,
            }),
        }
    }
}
