//! A single memory, of a size that is fixed.

use super::space::Space;
use super::{Backing, BackingError};
use crate::mapped::Mapped;
use crate::memfd::SharedMemory;
use crate::region::{MemoryId, Placement};
use crate::window::Window;

/// One memory of a fixed size: created here, or planned here and created by the other side.
///
/// Room in a planned memory can be given out at once, so that its creator can be told what lies where; windows can be
/// had when it is attached.
#[derive(Debug)]
pub struct OneMemory {
    id: MemoryId,
    space: Space,
    epoch: u64,
    window: Option<Mapped>,
    created: Option<SharedMemory>,
}

impl OneMemory {
    /// Gives out the space of a memory that was created here.
    ///
    /// # Errors
    ///
    /// [`BackingError::Size`] if it is shorter than a cache line.
    pub fn created(id: MemoryId, epoch: u64, memory: SharedMemory) -> Result<Self, BackingError> {
        Ok(Self {
            id,
            space: Space::new(memory.bytes())?,
            epoch,
            window: Some(memory.window().clone()),
            created: Some(memory),
        })
    }

    /// Gives out the space of a memory of `bytes` bytes that is attached later.
    ///
    /// # Errors
    ///
    /// [`BackingError::Size`] if no memory can have that size.
    pub fn planned(id: MemoryId, bytes: u64) -> Result<Self, BackingError> {
        Ok(Self {
            id,
            space: Space::new(bytes)?,
            epoch: 0,
            window: None,
            created: None,
        })
    }
}

impl Backing for OneMemory {
    fn place(&mut self, bytes: u64, alignment: u64) -> Result<Placement, BackingError> {
        Ok(Placement {
            memory: self.id,
            offset: self.space.take(bytes, alignment)?,
            bytes,
        })
    }

    fn free(&mut self, placement: Placement) {
        self.space.give_back(placement.offset, placement.bytes);
    }

    fn window(&self, placement: Placement) -> Result<Mapped, BackingError> {
        let window = self.window.as_ref().ok_or(BackingError::NotMapped {
            memory: placement.memory,
        })?;
        narrowed(window, placement)
    }

    fn is_used(&self, placement: Placement) -> bool {
        self.space.is_used(placement.offset)
    }

    fn attach(
        &mut self,
        memory: MemoryId,
        epoch: u64,
        window: &Mapped,
    ) -> Result<Option<Mapped>, BackingError> {
        if memory != self.id || self.created.is_some() {
            return Err(BackingError::NotPlanned { memory });
        }
        if window.len() as u64 != self.space.bytes() {
            return Err(BackingError::WrongSize {
                memory,
                expected: self.space.bytes(),
                found: window.len() as u64,
            });
        }
        self.epoch = epoch;
        Ok(self.window.replace(window.clone()))
    }

    fn epoch(&self, _: MemoryId) -> u64 {
        self.epoch
    }

    fn each_memory(&self, visit: &mut dyn FnMut(MemoryId, &SharedMemory)) {
        if let Some(memory) = &self.created {
            visit(self.id, memory);
        }
    }
}

/// The window on a placement in a memory.
pub(super) fn narrowed(memory: &Mapped, placement: Placement) -> Result<Mapped, BackingError> {
    let wrong_size = BackingError::WrongSize {
        memory: placement.memory,
        expected: placement.offset.saturating_add(placement.bytes),
        found: memory.len() as u64,
    };
    match (
        usize::try_from(placement.offset),
        usize::try_from(placement.bytes),
    ) {
        (Ok(offset), Ok(bytes)) => memory.narrow(offset, bytes).map_err(|_| wrong_size),
        _ => Err(wrong_size),
    }
}
