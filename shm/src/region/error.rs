//! Why there is no region, or no window on it.

use super::backing::BackingError;
use super::{InvalidKind, PRIORITY_CLASSES, RegionId, Rights, Section};

/// Why a region could not be registered or used.
#[derive(Debug, thiserror::Error)]
pub enum RegionError {
    /// A region must have bytes.
    #[error("a region must have at least one byte")]
    Empty,
    /// No region can be aligned so.
    #[error("{alignment} is not a power of two up to 4096")]
    Alignment {
        /// What was asked for, in bytes.
        alignment: u64,
    },
    /// There is no such priority class.
    #[error("there is no priority class {class}; there are {PRIORITY_CLASSES}")]
    Class {
        /// What was asked for.
        class: u8,
    },
    /// A side would get more rights than the memory can give it.
    #[error("{rights:?} are more rights than memory of section {section:?} gives")]
    Rights {
        /// Where the region was to lie.
        section: Section,
        /// What was asked for.
        rights: Rights,
    },
    /// The geometry does not exist.
    #[error(transparent)]
    Kind(#[from] InvalidKind),
    /// As many regions are registered as there may be.
    #[error("{limit} regions are registered, and there may be no more")]
    TooMany {
        /// How many there may be.
        limit: u32,
    },
    /// No memory was given to a section.
    #[error("section {section:?} has no memory")]
    NoBacking {
        /// Which one.
        section: Section,
    },
    /// A section has its memory already.
    #[error("section {section:?} has its memory already")]
    HasBacking {
        /// Which one.
        section: Section,
    },
    /// The handle's region was unregistered.
    #[error("region {id:?} is not registered any more")]
    Unregistered {
        /// Which one it was.
        id: RegionId,
    },
    /// The region was revoked: there are no new windows on it.
    #[error("region {id:?} was revoked")]
    Revoked {
        /// Which one.
        id: RegionId,
    },
    /// The memory did not give what was needed.
    #[error(transparent)]
    Backing(#[from] BackingError),
}
