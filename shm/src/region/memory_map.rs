//! The memories that one side has mapped.

use std::collections::BTreeMap;

use super::{MemoryId, Region};
use crate::mapped::Mapped;
use crate::window::{Window, WindowError};

/// Why there is no window on a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemoryMapError {
    /// The memory is not mapped, or not yet.
    #[error("memory {memory:?} is not mapped")]
    NotMapped {
        /// Which one.
        memory: MemoryId,
    },
    /// The memory is mapped in another epoch than the region belongs to: its writer has restarted.
    #[error("memory {memory:?} is mapped in epoch {mapped}, the region belongs to epoch {region}")]
    WrongEpoch {
        /// Which one.
        memory: MemoryId,
        /// The epoch that is mapped.
        mapped: u64,
        /// The epoch that the region belongs to.
        region: u64,
    },
    /// The region does not lie inside the memory.
    #[error("the region does not lie inside memory {memory:?}")]
    Outside {
        /// Which one.
        memory: MemoryId,
        /// What does not fit.
        source: WindowError,
    },
}

/// The memories of a session as a guest or an inspector has mapped them: finds the windows of the regions that the
/// directory tells of.
#[derive(Clone, Debug, Default)]
pub struct MemoryMap {
    memories: BTreeMap<MemoryId, (u64, Mapped)>,
}

impl MemoryMap {
    /// No memories.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a memory; one with the same id is replaced. Windows on that one stay as they are.
    pub fn insert(&mut self, memory: MemoryId, epoch: u64, window: Mapped) {
        self.memories.insert(memory, (epoch, window));
    }

    /// Forgets a memory.
    pub fn remove(&mut self, memory: MemoryId) {
        self.memories.remove(&memory);
    }

    /// The window on a region. The region may be a peer's word: it is checked against what is mapped.
    ///
    /// # Errors
    ///
    /// [`MemoryMapError`].
    pub fn window(&self, region: &Region) -> Result<Mapped, MemoryMapError> {
        let memory = region.placement.memory;
        let (epoch, window) = self
            .memories
            .get(&memory)
            .ok_or(MemoryMapError::NotMapped { memory })?;
        if *epoch != region.epoch {
            return Err(MemoryMapError::WrongEpoch {
                memory,
                mapped: *epoch,
                region: region.epoch,
            });
        }
        // Longer than a pointer reaches is longer than any mapping: saturating keeps it outside.
        let offset = usize::try_from(region.placement.offset).unwrap_or(usize::MAX);
        let bytes = usize::try_from(region.placement.bytes).unwrap_or(usize::MAX);
        window
            .narrow(offset, bytes)
            .map_err(|source| MemoryMapError::Outside { memory, source })
    }
}
