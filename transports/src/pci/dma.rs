//! Memory that a function may access.

use std::io;

use shmbus_shm::Mapped;

/// Memory for a function cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum DmaError {
    /// No memory can have this size.
    #[error("{bytes} bytes are no size for DMA memory")]
    Size {
        /// The size, in bytes.
        bytes: usize,
    },
    /// All addresses that the function can use are taken.
    #[error("no {bytes} bytes of I/O virtual addresses are free")]
    NoAddresses {
        /// How many were wanted.
        bytes: usize,
    },
    /// The IOMMU's driver takes no more mappings.
    #[error("the IOMMU takes {limit} mappings, and there are that many")]
    NoMappings {
        /// How many it takes.
        limit: u32,
    },
    /// The system refused something.
    #[error("cannot {doing} {bytes} bytes of DMA memory: {source}")]
    System {
        /// What was to be done.
        doing: &'static str,
        /// How many bytes.
        bytes: usize,
        /// What was said.
        source: io::Error,
    },
}

/// Memory that this process and a function share.
///
/// The function can reach it as long as any window on it is there: the last that is dropped takes the function's access
/// away, and frees it.
#[derive(Clone, Debug)]
pub struct DmaRegion {
    /// This side's view of it.
    pub window: Mapped,
    /// Where the function finds it: an I/O virtual address, in bytes.
    pub address: u64,
}

/// Allocates memory that a function may access.
pub trait DmaMemory {
    /// Zeroed memory of at least `bytes` bytes, contiguous also for the function, from the start of a page on.
    ///
    /// # Errors
    ///
    /// [`DmaError`].
    fn allocate(&self, bytes: usize) -> Result<DmaRegion, DmaError>;
}
