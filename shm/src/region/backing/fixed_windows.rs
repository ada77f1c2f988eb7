//! A fixed number of windows, as grant tables and address translation units have.

use super::one_memory::narrowed;
use super::{Backing, BackingError};
use crate::mapped::Mapped;
use crate::memfd::{MemoryError, SharedMemory};
use crate::region::{MemoryId, Placement, Section};

/// Has a fixed number of windows. Each is set up when a region needs it, holds that region alone, and is torn down
/// when the region is no longer used.
///
/// `F` sets a window up: it makes the memory with the id and of the size in bytes that it is given. Dropping that
/// memory tears the window down. Both happen under the region manager's lock: neither may call it.
#[derive(Debug)]
pub struct FixedWindows<F> {
    section: Section,
    window_bytes: u64,
    windows: Vec<Option<SharedMemory>>,
    set_up: F,
}

impl<F> FixedWindows<F>
where
    F: FnMut(MemoryId, u64) -> Result<SharedMemory, MemoryError> + Send,
{
    /// Has `windows` windows of at most `window_bytes` bytes. Their ordinals are below `windows`.
    pub fn new(section: Section, windows: u32, window_bytes: u64, set_up: F) -> Self {
        Self {
            section,
            window_bytes,
            windows: (0..windows).map(|_| None).collect(),
            set_up,
        }
    }

    fn memory(&self, id: MemoryId) -> Option<&SharedMemory> {
        self.windows.get(id.ordinal() as usize)?.as_ref()
    }
}

impl<F> Backing for FixedWindows<F>
where
    F: FnMut(MemoryId, u64) -> Result<SharedMemory, MemoryError> + Send,
{
    /// A window starts on a page, which every alignment divides.
    fn place(&mut self, bytes: u64, _: u64) -> Result<Placement, BackingError> {
        if bytes > self.window_bytes {
            return Err(BackingError::LargerThanWindow {
                bytes,
                window_bytes: self.window_bytes,
            });
        }
        let windows = self.windows.len() as u32;
        let (ordinal, window) = (0..)
            .zip(&mut self.windows)
            .find(|(_, window)| window.is_none())
            .ok_or(BackingError::WindowsUsedUp { windows })?;
        let memory = MemoryId::new(self.section, ordinal);
        *window = Some((self.set_up)(memory, bytes)?);
        Ok(Placement {
            memory,
            offset: 0,
            bytes,
        })
    }

    fn free(&mut self, placement: Placement) {
        if let Some(window) = self.windows.get_mut(placement.memory.ordinal() as usize) {
            *window = None;
        }
    }

    fn window(&self, placement: Placement) -> Result<Mapped, BackingError> {
        let memory = self
            .memory(placement.memory)
            .ok_or(BackingError::NotMapped {
                memory: placement.memory,
            })?;
        narrowed(memory.window(), placement)
    }

    fn is_used(&self, _: Placement) -> bool {
        false
    }

    fn each_memory(&self, visit: &mut dyn FnMut(MemoryId, &SharedMemory)) {
        for (ordinal, memory) in (0..).zip(&self.windows) {
            if let Some(memory) = memory {
                visit(MemoryId::new(self.section, ordinal), memory);
            }
        }
    }
}
