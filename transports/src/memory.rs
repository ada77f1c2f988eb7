//! The memories of a session: who writes which, and what they are handed over by.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use rustix::fs::{SealFlags, fcntl_get_seals};
use shmbus_shm::{Mapped, MemoryError, MemoryId, Section, SharedMemory, Writers};

/// One memory of a session: mapped, and with the descriptor that it is handed over by. Clones share it.
#[derive(Clone, Debug)]
pub struct Memory {
    /// The name by which the directory refers to it; it tells who writes the memory.
    pub id: MemoryId,
    /// Counts up each time its writer makes it anew.
    pub epoch: u64,
    shared: Arc<SharedMemory>,
}

impl Memory {
    /// Memory `id`, already made and mapped.
    pub fn new(id: MemoryId, epoch: u64, shared: impl Into<Arc<SharedMemory>>) -> Self {
        Self {
            id,
            epoch,
            shared: shared.into(),
        }
    }

    /// Creates a memory of this side, of `bytes` bytes, sealed as its section wants it. `name` is what `/proc` shows.
    ///
    /// # Errors
    ///
    /// [`MemoryError`], of [`SharedMemory::create`].
    pub fn create(id: MemoryId, name: &str, bytes: u64, epoch: u64) -> Result<Self, MemoryError> {
        let writers = if id.section().has_one_writer() {
            Writers::Creator
        } else {
            Writers::Everybody
        };
        let shared = SharedMemory::create(name, bytes, writers)?;
        Ok(Self::new(id, epoch, shared))
    }

    /// Who writes it.
    pub fn section(&self) -> Section {
        self.id.section()
    }

    /// Its size in bytes.
    pub fn bytes(&self) -> u64 {
        self.shared.bytes()
    }

    /// Its mapping: writable on the side that writes it, read-only on the other.
    pub fn window(&self) -> &Mapped {
        self.shared.window()
    }

    /// The memory, shared with all clones.
    pub fn shared(&self) -> &Arc<SharedMemory> {
        &self.shared
    }

    /// Whether it may be shown to a third party: sealed so that nobody else ever writes it.
    pub(crate) fn is_readable_only(&self) -> bool {
        self.section().has_one_writer()
            && fcntl_get_seals(self)
                .is_ok_and(|seals| seals.intersects(SealFlags::FUTURE_WRITE | SealFlags::WRITE))
    }
}

impl AsFd for Memory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.as_fd()
    }
}
