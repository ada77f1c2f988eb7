//! What a table says of itself.

use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use shmbus_shm::slot::Epoch;
use shmbus_shm::{Field, Window};

use crate::error::TableError;
use crate::flags::TableFlags;
use crate::layout::{LayoutError, TableLayout};
use crate::options::TableOptions;

/// The first word of a table: the bytes `shmtable`.
pub const MAGIC: u64 = u64::from_le_bytes(*b"shmtable");

/// The heartbeat of a new table.
pub(crate) const FIRST_BEAT: u64 = 1;

/// What no count of heartbeats reaches: at one a nanosecond it takes 146 years.
const UNREACHABLE_BEAT: u64 = 1 << 62;

/// The version of the memory layout.
pub const VERSION: u32 = 2;

/// Offsets of the header's words in bytes.
mod at {
    pub(super) const MAGIC: usize = 0;
    pub(super) const VERSION: usize = 8;
    pub(super) const TYPE_ID: usize = 12;
    pub(super) const SLOTS: usize = 16;
    pub(super) const SLOT_BYTES: usize = 20;
    pub(super) const COPIES: usize = 24;
    pub(super) const FLAGS: usize = 28;
    pub(super) const EPOCH: usize = 32;
    pub(super) const HEARTBEAT: usize = 40;
    pub(super) const BEAT: usize = 48;
    pub(super) const RESERVED: usize = 56;
}

/// A table's header, read once from memory that a peer may change, and checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The table's geometry.
    pub layout: TableLayout,
    /// What its values mean: both sides agree on numbers.
    pub type_id: u32,
    /// The writer's life.
    pub epoch: Epoch,
}

impl Header {
    /// Reads the header at the start of `window`, and checks that the table it describes lies inside.
    ///
    /// A reader that must be told how much storage it needs calls this first. The header may have changed by the time
    /// that it attaches; it then gets a typed error.
    ///
    /// # Errors
    ///
    /// [`TableError`].
    pub fn read<W: Window>(window: &W) -> Result<Self, TableError> {
        let magic = Field::<u64, _>::new(window, at::MAGIC)?.load(Relaxed);
        // Pairs with the Release of the magic: the rest is not older. Loads from a read-only mapping are relaxed.
        window.fence(Acquire);
        if magic != MAGIC {
            return Err(TableError::Magic { found: magic });
        }
        let number =
            |offset| Ok::<_, TableError>(Field::<u32, _>::new(window, offset)?.load(Relaxed));
        let version = number(at::VERSION)?;
        if version != VERSION {
            return Err(TableError::Version { found: version });
        }
        let word =
            |offset| Ok::<_, TableError>(Field::<u64, _>::new(window, offset)?.load(Relaxed));
        let found = number(at::FLAGS)?;
        let flags = TableFlags::from_bits(found).ok_or(LayoutError::Flags { found })?;
        let options = TableOptions {
            copies: number(at::COPIES)?,
            flags,
            beat_ns: if flags.contains(TableFlags::AGES) {
                word(at::BEAT)?
            } else {
                0
            },
        };
        let layout =
            TableLayout::with_options(number(at::SLOTS)?, number(at::SLOT_BYTES)?, options)?;
        layout.check_fits(window.len())?;
        let epoch = word(at::EPOCH)?;
        Ok(Self {
            layout,
            type_id: number(at::TYPE_ID)?,
            epoch: epoch_from(epoch).ok_or(TableError::Epoch { found: epoch })?,
        })
    }

    /// That a reader of a table of this shape and type can go over to the one that this is the header of.
    pub(crate) fn check_successor(
        &self,
        layout: TableLayout,
        type_id: u32,
    ) -> Result<(), TableError> {
        if self.layout != layout {
            return Err(TableError::Geometry {
                expected: layout,
                found: self.layout,
            });
        }
        if self.type_id != type_id {
            return Err(TableError::Type {
                expected: type_id,
                found: self.type_id,
            });
        }
        Ok(())
    }

    /// Takes the magic away, so that nobody takes what is half set up for a table.
    pub(crate) fn withdraw<W: Window>(window: &W) -> Result<(), TableError> {
        Field::<u64, _>::new(window, at::MAGIC)?.store(0, Relaxed);
        // For a writer that dies in setting up: what it stores from here on does not become visible before. A model of
        // readers has nothing to find here, since who found the magic before may read the header at any time after.
        window.fence(Release);
        Ok(())
    }

    /// Writes the header, with heartbeat `beats`; the magic last.
    pub(crate) fn announce<W: Window>(&self, window: &W, beats: u64) -> Result<(), TableError> {
        let store = |offset, value| {
            Field::<u32, _>::new(window, offset).map(|field| field.store(value, Relaxed))
        };
        store(at::VERSION, VERSION)?;
        store(at::TYPE_ID, self.type_id)?;
        store(at::SLOTS, self.layout.slots())?;
        store(at::SLOT_BYTES, self.layout.slot_bytes())?;
        store(at::COPIES, self.layout.copies())?;
        store(at::FLAGS, self.layout.flags().bits())?;
        let words = [
            (at::EPOCH, u64::from(self.epoch.get())),
            (at::HEARTBEAT, beats),
            (at::BEAT, self.layout.beat_ns()),
            (at::RESERVED, 0),
        ];
        for (offset, value) in words {
            Field::<u64, _>::new(window, offset)?.store(value, Relaxed);
        }
        Field::<u64, _>::new(window, at::MAGIC)?.store(MAGIC, Release);
        Ok(())
    }
}

/// The epoch that a word of the header stands for.
fn epoch_from(word: u64) -> Option<Epoch> {
    Epoch::new(u16::try_from(word).ok()?)
}

/// The header's words that change while the table is in use.
#[derive(Clone, Debug)]
pub(crate) struct Life<W> {
    epoch: Field<u64, W>,
    heartbeat: Field<u64, W>,
}

impl<W: Window> Life<W> {
    pub(crate) fn new(window: &W) -> Result<Self, TableError> {
        Ok(Self {
            epoch: Field::new(window, at::EPOCH)?,
            heartbeat: Field::new(window, at::HEARTBEAT)?,
        })
    }

    pub(crate) fn epoch(&self) -> Option<Epoch> {
        epoch_from(self.epoch.load(Relaxed))
    }

    /// A successor that finds a generation of this epoch finds the epoch too: whatever is stored after this for a slot is
    /// stored with Release.
    pub(crate) fn set_epoch(&self, epoch: Epoch) {
        self.epoch.store(u64::from(epoch.get()), Release);
    }

    pub(crate) fn heartbeat(&self) -> u64 {
        self.heartbeat.load(Relaxed)
    }

    /// The heartbeat that a dead writer left, unless it cannot be one: then the nearest that can.
    pub(crate) fn last_heartbeat(&self) -> u64 {
        self.heartbeat().clamp(FIRST_BEAT, UNREACHABLE_BEAT)
    }

    pub(crate) fn set_heartbeat(&self, beats: u64) {
        self.heartbeat.store(beats, Release);
    }
}
