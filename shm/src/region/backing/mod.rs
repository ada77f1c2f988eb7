//! Where the memory of regions comes from.

mod fixed_windows;
mod one_memory;
mod open_ended;
mod space;

use super::{MemoryId, Placement};
use crate::mapped::Mapped;
use crate::memfd::{MemoryError, SharedMemory};

pub use fixed_windows::FixedWindows;
pub use one_memory::OneMemory;
pub use open_ended::OpenEnded;

/// Why a backing gave no memory.
#[derive(Debug, thiserror::Error)]
pub enum BackingError {
    /// The memory has no free piece of this length.
    #[error("no {bytes} contiguous bytes are free; {free} of {capacity} bytes are")]
    Full {
        /// What was asked for, in bytes.
        bytes: u64,
        /// What is free in all, in bytes.
        free: u64,
        /// How large the memory is, in bytes.
        capacity: u64,
    },
    /// All windows of a fixed number are in use.
    #[error("all {windows} windows are in use")]
    WindowsUsedUp {
        /// How many there are.
        windows: u32,
    },
    /// No window is that large.
    #[error("{bytes} bytes do not fit in a window of {window_bytes} bytes")]
    LargerThanWindow {
        /// What was asked for, in bytes.
        bytes: u64,
        /// How large a window is at most, in bytes.
        window_bytes: u64,
    },
    /// Another memory would exceed the quota.
    #[error("{bytes} more bytes exceed the quota: {used} of {quota} bytes are in use")]
    Quota {
        /// How large the new memory would have been, in bytes.
        bytes: u64,
        /// How much there is already, in bytes.
        used: u64,
        /// The most that there may be, in bytes.
        quota: u64,
    },
    /// A memory cannot have this size.
    #[error("{bytes} bytes are no size for a memory")]
    Size {
        /// The size, in bytes.
        bytes: u64,
    },
    /// The memory was planned, but whoever creates it has not handed it over yet.
    #[error("memory {memory:?} is planned but not mapped yet")]
    NotMapped {
        /// Which one.
        memory: MemoryId,
    },
    /// The backing has no such memory, or makes its memories itself.
    #[error("memory {memory:?} is not one that is handed over")]
    NotPlanned {
        /// Which one.
        memory: MemoryId,
    },
    /// The memory that was handed over is not as large as was planned.
    #[error("memory {memory:?} has {found} bytes; {expected} were planned")]
    WrongSize {
        /// Which one.
        memory: MemoryId,
        /// What was planned, in bytes.
        expected: u64,
        /// What was handed over, in bytes.
        found: u64,
    },
    /// No memory could be made.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// Gives out pieces of one section's memories, and takes them back.
///
/// Pieces that are in use at the same time never overlap; each starts on a cache line of its own.
pub trait Backing: Send {
    /// Finds room for `bytes` bytes (not zero) aligned to `alignment` (a power of two up to 4096).
    ///
    /// # Errors
    ///
    /// [`BackingError`] says what is used up.
    fn place(&mut self, bytes: u64, alignment: u64) -> Result<Placement, BackingError>;

    /// Takes back what [`Backing::place`] gave. All windows on it are gone.
    fn free(&mut self, placement: Placement);

    /// The window on a placement.
    ///
    /// # Errors
    ///
    /// [`BackingError::NotMapped`].
    fn window(&self, placement: Placement) -> Result<Mapped, BackingError>;

    /// Whether bytes at this placement were in use before, and may hold what was stored then.
    fn is_used(&self, placement: Placement) -> bool;

    /// Takes in a memory that was planned and that somebody else created. A restarted writer's next memory takes the
    /// place of the one before, which is returned; windows on that one stay as they are.
    ///
    /// # Errors
    ///
    /// [`BackingError::NotPlanned`], [`BackingError::WrongSize`].
    fn attach(
        &mut self,
        memory: MemoryId,
        epoch: u64,
        window: &Mapped,
    ) -> Result<Option<Mapped>, BackingError> {
        let _ = (epoch, window);
        Err(BackingError::NotPlanned { memory })
    }

    /// The epoch of a memory: its writer's restarts so far.
    fn epoch(&self, memory: MemoryId) -> u64 {
        let _ = memory;
        0
    }

    /// Shows each memory that was created here, to pass its descriptor on.
    fn each_memory(&self, visit: &mut dyn FnMut(MemoryId, &SharedMemory));
}
