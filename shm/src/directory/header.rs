//! What a directory says of itself.

use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::entry::ENTRY_WORDS;
use super::layout::{DirectoryError, DirectoryLayout};
use crate::field::Field;
use crate::slot::Epoch;
use crate::window::Window;

/// The first word of a directory: the bytes `shmbusdr`.
pub const MAGIC: u64 = u64::from_le_bytes(*b"shmbusdr");

/// The version of the layout of directories and of their entries.
pub const VERSION: u32 = 3;

/// Bytes of the header.
pub(super) const HEADER_BYTES: usize = 64;

const ENTRY_BYTES: u32 = ENTRY_WORDS as u32 * 8;
const COPIES: u32 = DirectoryLayout::COPIES as u32;

/// Offsets of the header's words in bytes.
mod at {
    pub(super) const MAGIC: usize = 0;
    pub(super) const VERSION: usize = 8;
    pub(super) const ENTRIES: usize = 12;
    pub(super) const ENTRY_BYTES: usize = 16;
    pub(super) const COPIES: usize = 20;
    pub(super) const EPOCH: usize = 24;
    pub(super) const FLAGS: usize = 32;
}

/// Bit 0 of the flags: [`Writing::Unenforced`].
const UNENFORCED: u32 = 1 << 0;

/// Whether something keeps each side from writing what is the other's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Writing {
    /// A memory that one side writes cannot be written by others.
    #[default]
    Enforced,
    /// The peer can write everywhere, to the directory as well: who wrote something must not take what is found there for
    /// what was written.
    Unenforced,
}

/// A directory's header, read once from memory that a peer may change, and checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectoryHeader {
    /// The directory's geometry.
    pub layout: DirectoryLayout,
    /// Its writer's life.
    pub epoch: Epoch,
    /// How far the memories that it tells of are protected.
    pub writing: Writing,
}

impl DirectoryHeader {
    /// Reads the header at the start of `window`, and checks that the directory it describes lies inside. A reader
    /// that must be told how much storage it needs calls this first.
    ///
    /// # Errors
    ///
    /// [`DirectoryError`].
    pub fn read<W: Window>(window: &W) -> Result<Self, DirectoryError> {
        let magic = Field::<u64, _>::new(window, at::MAGIC)?.load(Relaxed);
        // Pairs with the Release of the magic: the rest is not older. Loads from a read-only mapping are relaxed.
        window.fence(Acquire);
        if magic != MAGIC {
            return Err(DirectoryError::Magic { found: magic });
        }
        let number = |offset| {
            let field = Field::<u32, _>::new(window, offset)?;
            Ok::<_, DirectoryError>(field.load(Relaxed))
        };
        let version = number(at::VERSION)?;
        if version != VERSION {
            return Err(DirectoryError::Version { found: version });
        }
        let (bytes, copies) = (number(at::ENTRY_BYTES)?, number(at::COPIES)?);
        if (bytes, copies) != (ENTRY_BYTES, COPIES) {
            return Err(DirectoryError::EntryShape { bytes, copies });
        }
        let layout = DirectoryLayout::new(number(at::ENTRIES)?)?;
        window.narrow(0, layout.bytes())?;
        let found = Field::<u64, _>::new(window, at::EPOCH)?.load(Relaxed);
        let epoch = u16::try_from(found)
            .ok()
            .and_then(Epoch::new)
            .ok_or(DirectoryError::Epoch { found })?;
        let writing = match number(at::FLAGS)? & UNENFORCED {
            0 => Writing::Enforced,
            _ => Writing::Unenforced,
        };
        Ok(Self {
            layout,
            epoch,
            writing,
        })
    }

    /// Writes the header; the magic last, so that nobody takes what is half set up for a directory.
    pub(super) fn announce<W: Window>(&self, window: &W) -> Result<(), DirectoryError> {
        for (offset, value) in [
            (at::VERSION, VERSION),
            (at::ENTRIES, self.layout.entries()),
            (at::ENTRY_BYTES, ENTRY_BYTES),
            (at::COPIES, COPIES),
            (
                at::FLAGS,
                match self.writing {
                    Writing::Enforced => 0,
                    Writing::Unenforced => UNENFORCED,
                },
            ),
        ] {
            Field::<u32, _>::new(window, offset)?.store(value, Relaxed);
        }
        Field::<u64, _>::new(window, at::EPOCH)?.store(u64::from(self.epoch.get()), Relaxed);
        Field::<u64, _>::new(window, at::MAGIC)?.store(MAGIC, Release);
        Ok(())
    }

    /// Takes the magic away while the rest is set up.
    pub(super) fn withdraw<W: Window>(window: &W) -> Result<(), DirectoryError> {
        Field::<u64, _>::new(window, at::MAGIC)?.store(0, Relaxed);
        window.fence(Release);
        Ok(())
    }
}
