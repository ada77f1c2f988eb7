//! The memories of a session: who writes which, and what they are handed over by.

use core::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use rustix::fs::{SealFlags, fcntl_get_seals};
use shmbus_shm::{Mapped, MemoryError, SharedMemory, Writers};

/// Who writes a memory. There is one memfd for each writing side, so that "read-only" can be sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum MemoryRole {
    /// The host writes, this guest reads. Starts with the session's directory.
    Host = 0,
    /// The guest writes, the host reads. The guest creates it, as large as the host says.
    Guest = 1,
    /// Both write: receive buffers. Never shown to a third party.
    Common = 2,
    /// The host writes, every guest reads: clocks.
    Shared = 3,
}

impl MemoryRole {
    /// The role with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        [Self::Host, Self::Guest, Self::Common, Self::Shared]
            .into_iter()
            .find(|role| *role as u8 == number)
    }

    /// Whether one side alone writes it, so that it is sealed against writing by the other.
    pub fn has_one_writer(self) -> bool {
        self != Self::Common
    }
}

impl fmt::Display for MemoryRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "HOST",
            Self::Guest => "GUEST",
            Self::Common => "COMMON",
            Self::Shared => "SHARED",
        })
    }
}

/// One memory of a session: mapped, and with the descriptor that it is handed over by. Clones share it.
#[derive(Clone, Debug)]
pub struct Memory {
    /// The number by which the directory refers to it; unique within a session.
    pub id: u32,
    /// Who writes it.
    pub role: MemoryRole,
    /// Counts up each time its writer makes it anew.
    pub epoch: u64,
    shared: Arc<SharedMemory>,
}

impl Memory {
    /// A memory whose id is its role's number, which is right as long as there is one memory of that role.
    pub fn new(role: MemoryRole, epoch: u64, shared: impl Into<Arc<SharedMemory>>) -> Self {
        Self {
            id: role as u32,
            role,
            epoch,
            shared: shared.into(),
        }
    }

    /// The same memory under another id.
    #[must_use]
    pub fn with_id(self, id: u32) -> Self {
        Self { id, ..self }
    }

    /// Creates a memory of this side, of `bytes` bytes, sealed as its role wants it. `name` is what `/proc` shows.
    ///
    /// # Errors
    ///
    /// [`MemoryError`], of [`SharedMemory::create`].
    pub fn create(
        role: MemoryRole,
        name: &str,
        bytes: u64,
        epoch: u64,
    ) -> Result<Self, MemoryError> {
        let writers = if role.has_one_writer() {
            Writers::Creator
        } else {
            Writers::Everybody
        };
        let shared = SharedMemory::create(name, bytes, writers)?;
        Ok(Self::new(role, epoch, shared))
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
        self.role.has_one_writer()
            && fcntl_get_seals(self)
                .is_ok_and(|seals| seals.intersects(SealFlags::FUTURE_WRITE | SealFlags::WRITE))
    }
}

impl AsFd for Memory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.as_fd()
    }
}
