//! What can go wrong between a driver and a function, whatever is in between.

use core::ops::Range;
use std::io;

use super::function::BarIndex;

/// A register cannot be accessed.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The access would leave its region.
    #[error("{bytes} bytes at offset {offset:#x} do not lie inside a region of {len} bytes")]
    OutOfBounds {
        /// Where it starts, in bytes.
        offset: u64,
        /// Its width, in bytes.
        bytes: u64,
        /// How long the region is, in bytes.
        len: u64,
    },
    /// The access is not aligned to its width.
    #[error("{bytes} bytes at offset {offset:#x} are not aligned to their width")]
    Misaligned {
        /// Where it starts, in bytes.
        offset: u64,
        /// Its width, in bytes.
        bytes: u64,
    },
    /// What reaches the function refused the access.
    #[error("{bytes} bytes at offset {offset:#x} cannot be accessed: {source}")]
    Io {
        /// Where it starts, in bytes.
        offset: u64,
        /// Its width, in bytes.
        bytes: u64,
        /// What was said.
        source: io::Error,
    },
}

/// A function cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FunctionError {
    /// A register cannot be accessed.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The function has no such BAR.
    #[error("the function has no {0}")]
    NoBar(BarIndex),
    /// A part of a BAR cannot be mapped.
    #[error("{len} bytes at offset {offset:#x} of {bar} cannot be mapped: {source}")]
    Map {
        /// The BAR.
        bar: BarIndex,
        /// Where the part starts, in bytes.
        offset: u64,
        /// How long it is, in bytes.
        len: u64,
        /// Why.
        source: io::Error,
    },
    /// Of the BAR, other parts can be mapped, or none.
    #[error("{len} bytes at offset {offset:#x} of {bar} cannot be mapped, only {areas:x?} can")]
    NotMappable {
        /// The BAR.
        bar: BarIndex,
        /// Where the part starts, in bytes.
        offset: u64,
        /// How long it is, in bytes.
        len: u64,
        /// What can be mapped: offsets in bytes.
        areas: Vec<Range<u64>>,
    },
    /// The function has fewer vectors than are wanted.
    #[error("{wanted} vectors are wanted, and the function has {found}")]
    Vectors {
        /// How many are wanted.
        wanted: usize,
        /// How many there are.
        found: u16,
    },
    /// What reaches the function refused something.
    #[error("cannot {doing}: {source}")]
    System {
        /// What was to be done.
        doing: &'static str,
        /// What was said.
        source: io::Error,
    },
}
