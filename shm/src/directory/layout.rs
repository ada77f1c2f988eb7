//! Where a directory's parts lie, and what can be wrong with it.

use super::entry::ENTRY_WORDS;
use super::header::HEADER_BYTES;
use crate::field::RecordGroups;
use crate::slot::{PublishError, copy_stride};
use crate::tree::{TreeError, TreeLayout};
use crate::window::{Window, WindowError};

/// A directory cannot be made, read or changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DirectoryError {
    /// A directory cannot have so many entries.
    #[error("a directory has 1 to {max} entries, not {found}", max = DirectoryLayout::MAX_ENTRIES)]
    Entries {
        /// How many were asked for, or found in a header.
        found: u32,
    },
    /// There is no directory: its first word is another.
    #[error("{found:#x} is not a directory's first word")]
    Magic {
        /// The word found.
        found: u64,
    },
    /// The directory has another layout than this code knows.
    #[error("the directory has version {found}, this code knows {known}", known = super::VERSION)]
    Version {
        /// The version found.
        found: u32,
    },
    /// The header says that entries have another length, or another number of copies, than its version has.
    #[error(
        "the directory's entries have {bytes} bytes in {copies} copies, which its version has not"
    )]
    EntryShape {
        /// Bytes of an entry, as found.
        bytes: u32,
        /// Copies of an entry, as found.
        copies: u32,
    },
    /// The header's epoch is no epoch.
    #[error("{found} is not an epoch")]
    Epoch {
        /// The word found.
        found: u64,
    },
    /// The memory does not hold the directory.
    #[error("the directory does not fit its memory: {0}")]
    Window(#[from] WindowError),
    /// The directory's tree does not fit its memory, or the reader's storage is too small.
    #[error("the directory's generation tree: {0}")]
    Tree(#[from] TreeError),
    /// The storage that was given is too small.
    #[error("a directory of {entries} entries needs storage for as many words, not {found}")]
    Storage {
        /// How many words are needed.
        entries: u32,
        /// How many were given.
        found: usize,
    },
    /// The directory has no such place.
    #[error("place {place} does not exist: the directory has {entries} entries")]
    NoSuchPlace {
        /// What was asked for.
        place: u32,
        /// How many entries there are.
        entries: u32,
    },
    /// The place was changed as often as its epoch allows.
    #[error(transparent)]
    Publish(#[from] PublishError),
}

/// The geometry of a directory: a function of its number of entries alone.
///
/// From its start, which lies on a 64-byte line: the header of 64 bytes; the generation tree, whose leaves are the
/// entries' heads; then the entries, each its copies one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectoryLayout {
    tree: TreeLayout,
}

impl DirectoryLayout {
    /// The most entries a directory can have.
    pub const MAX_ENTRIES: u32 = 1 << 16;

    /// Copies of each entry.
    pub const COPIES: usize = 4;

    /// The layout for `entries` entries, 1 to [`DirectoryLayout::MAX_ENTRIES`].
    ///
    /// # Errors
    ///
    /// [`DirectoryError::Entries`].
    pub fn new(entries: u32) -> Result<Self, DirectoryError> {
        if !(1..=Self::MAX_ENTRIES).contains(&entries) {
            return Err(DirectoryError::Entries { found: entries });
        }
        Ok(Self {
            tree: TreeLayout::new(entries)?,
        })
    }

    /// How many entries there are.
    pub fn entries(&self) -> u32 {
        self.tree.leaves()
    }

    /// The generation tree's geometry.
    pub fn tree(&self) -> TreeLayout {
        self.tree
    }

    /// Where the generation tree starts, in bytes.
    pub fn tree_offset(&self) -> usize {
        HEADER_BYTES
    }

    /// Where the entries' copies start, in bytes.
    pub fn entries_offset(&self) -> usize {
        HEADER_BYTES + self.tree.bytes()
    }

    /// The directory's size in bytes.
    pub fn bytes(&self) -> usize {
        self.entries_offset() + self.entries() as usize * Self::COPIES * copy_stride(ENTRY_WORDS)
    }

    pub(super) fn tree_window<W: Window>(&self, window: &W) -> Result<W, WindowError> {
        window.narrow(self.tree_offset(), self.tree.bytes())
    }

    pub(super) fn carve_entries<W: Window>(
        &self,
        window: &W,
    ) -> Result<RecordGroups<W>, WindowError> {
        RecordGroups::new(
            window,
            self.entries_offset(),
            self.entries() as usize,
            Self::COPIES,
            copy_stride(ENTRY_WORDS),
            ENTRY_WORDS,
        )
    }

    /// That storage has a word for each entry.
    pub(super) fn check_storage(&self, storage: &[u64]) -> Result<(), DirectoryError> {
        let (entries, found) = (self.entries(), storage.len());
        if found < entries as usize {
            return Err(DirectoryError::Storage { entries, found });
        }
        Ok(())
    }
}
