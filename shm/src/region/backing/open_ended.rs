//! As many memories as are needed, under a quota.

use std::collections::BTreeMap;

use super::one_memory::narrowed;
use super::space::Space;
use super::{Backing, BackingError};
use crate::mapped::Mapped;
use crate::memfd::{SharedMemory, Writers};
use crate::region::{MemoryId, Placement, Section};

/// Memories are mapped in pages.
const PAGE: u64 = 4096;

/// Makes a new memory when the ones that there are have no room, and drops those that are not in use any more.
#[derive(Debug)]
pub struct OpenEnded {
    name: String,
    section: Section,
    chunk_bytes: u64,
    quota: u64,
    used: u64,
    next_ordinal: u32,
    chunks: BTreeMap<MemoryId, Chunk>,
}

#[derive(Debug)]
struct Chunk {
    memory: SharedMemory,
    space: Space,
}

impl OpenEnded {
    /// Makes memories of `chunk_bytes` bytes, or as large as one region needs, and together no larger than `quota`
    /// bytes. `name` is what `/proc` shows, `first` the ordinal of the first one.
    pub fn new(name: &str, section: Section, first: u32, chunk_bytes: u64, quota: u64) -> Self {
        Self {
            name: name.into(),
            section,
            chunk_bytes,
            quota,
            used: 0,
            next_ordinal: first,
            chunks: BTreeMap::new(),
        }
    }

    fn grow(&mut self, bytes: u64) -> Result<MemoryId, BackingError> {
        let bytes = bytes
            .max(self.chunk_bytes)
            .checked_next_multiple_of(PAGE)
            .ok_or(BackingError::Size { bytes })?;
        let exceeds = self
            .used
            .checked_add(bytes)
            .is_none_or(|used| used > self.quota);
        if exceeds || self.next_ordinal >= MemoryId::PER_SECTION {
            return Err(BackingError::Quota {
                bytes,
                used: self.used,
                quota: self.quota,
            });
        }
        let writers = match self.section {
            Section::Common => Writers::Everybody,
            Section::Host | Section::Guest | Section::Shared => Writers::Creator,
        };
        let chunk = Chunk {
            memory: SharedMemory::create(&self.name, bytes, writers)?,
            space: Space::new(bytes)?,
        };
        // A memory's number is never used again: the other side may still hold the memory that had it.
        let id = MemoryId::new(self.section, self.next_ordinal);
        self.next_ordinal += 1;
        self.used += bytes;
        self.chunks.insert(id, chunk);
        Ok(id)
    }
}

impl Backing for OpenEnded {
    fn place(&mut self, bytes: u64, alignment: u64) -> Result<Placement, BackingError> {
        let fit = self.chunks.iter_mut().find_map(|(memory, chunk)| {
            let offset = chunk.space.take(bytes, alignment).ok()?;
            Some((*memory, offset))
        });
        let (memory, offset) = match fit {
            Some(fit) => fit,
            None => {
                let memory = self.grow(bytes)?;
                let chunk = self
                    .chunks
                    .get_mut(&memory)
                    .ok_or(BackingError::NotMapped { memory })?;
                (memory, chunk.space.take(bytes, alignment)?)
            }
        };
        Ok(Placement {
            memory,
            offset,
            bytes,
        })
    }

    fn free(&mut self, placement: Placement) {
        let Some(chunk) = self.chunks.get_mut(&placement.memory) else {
            return;
        };
        chunk.space.give_back(placement.offset, placement.bytes);
        if chunk.space.is_free() {
            self.used -= chunk.space.bytes();
            self.chunks.remove(&placement.memory);
        }
    }

    fn window(&self, placement: Placement) -> Result<Mapped, BackingError> {
        let chunk = self
            .chunks
            .get(&placement.memory)
            .ok_or(BackingError::NotMapped {
                memory: placement.memory,
            })?;
        narrowed(chunk.memory.window(), placement)
    }

    fn is_used(&self, placement: Placement) -> bool {
        self.chunks
            .get(&placement.memory)
            .is_some_and(|chunk| chunk.space.is_used(placement.offset))
    }

    fn each_memory(&self, visit: &mut dyn FnMut(MemoryId, &SharedMemory)) {
        for (id, chunk) in &self.chunks {
            visit(*id, &chunk.memory);
        }
    }
}
