//! Regions: pieces of shared memory that are registered once, and what is known about them.

mod kind;
mod rights;
mod section;

#[cfg(feature = "std")]
mod backing;
#[cfg(feature = "std")]
mod error;
#[cfg(feature = "std")]
mod manager;
#[cfg(feature = "std")]
mod memory_map;
#[cfg(feature = "std")]
mod spec;
#[cfg(test)]
mod tests;

pub use kind::{InvalidKind, RegionKind, RingFormat};
pub use rights::{Permission, Rights};
pub use section::{MemoryId, Section};

#[cfg(feature = "std")]
pub use backing::{Backing, BackingError, FixedWindows, OneMemory, OpenEnded};
#[cfg(feature = "std")]
pub use error::RegionError;
#[cfg(feature = "std")]
pub use manager::{Lease, RegionHandle, RegionManager};
#[cfg(feature = "std")]
pub use memory_map::{MemoryMap, MemoryMapError};
#[cfg(feature = "std")]
pub use spec::RegionSpec;

/// How many priority classes there are. Class 0 is served first.
pub const PRIORITY_CLASSES: u8 = 4;

/// Names a region for as long as its bus lives: an id is never given out twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RegionId(pub u64);

/// Where a region lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The memory.
    pub memory: MemoryId,
    /// Where the region starts, in bytes from the memory's start.
    pub offset: u64,
    /// How long it is, in bytes.
    pub bytes: u64,
}

/// What a region is for: everything that a device says about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Purpose {
    /// The device that it belongs to, as an index in the session's list of devices.
    pub device: Option<u32>,
    /// Which of the device's regions it is; the device type gives the numbers their meaning.
    pub role: u16,
    /// What runs on it.
    pub kind: RegionKind,
    /// The priority class of its signals, below [`PRIORITY_CLASSES`].
    pub class: u8,
    /// What each side may do with it.
    pub rights: Rights,
    /// The channel that tells of changes to it: an id that means something to the owner of the signals only.
    pub channel: Option<u32>,
}

/// A registered region, as a value: what the directory tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Its name.
    pub id: RegionId,
    /// What it is for.
    pub purpose: Purpose,
    /// Where it lies.
    pub placement: Placement,
    /// The epoch of the memory that it lies in: its writer's restarts so far.
    pub epoch: u64,
}
