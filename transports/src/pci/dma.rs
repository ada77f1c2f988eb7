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
    #[error(
        "the IOMMU's driver takes no more than the {mapped} mappings that there are (`dma_entry_limit` of the module \
         vfio_iommu_type1)"
    )]
    NoMappings {
        /// How many there are through this [`DmaMemory`].
        mapped: u32,
    },
    /// The memory would be locked, and the process may not lock as much.
    #[error(
        "{bytes} bytes cannot be locked for DMA, only {left} more may be: raise the limit (`ulimit -l`, \
         `LimitMEMLOCK=`), or run with CAP_IPC_LOCK"
    )]
    LockLimit {
        /// How many are wanted.
        bytes: usize,
        /// How many more may be locked.
        left: u64,
    },
    /// Other memory would lie in the same pages.
    #[error("{bytes} bytes at {start:#x} are not whole pages of {page} bytes")]
    NotPages {
        /// Where the memory starts in this process.
        start: usize,
        /// How long it is, in bytes.
        bytes: usize,
        /// How long a page is, in bytes.
        page: u64,
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
