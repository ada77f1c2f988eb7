//! What a table is asked to have.

use crate::flags::TableFlags;

/// What a table is to have, besides the number and the size of its slots. Without more words it is a table of four
/// copies a slot, each written and read by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableOptions {
    pub(crate) copies: u32,
    pub(crate) flags: TableFlags,
    /// Nanoseconds between two heartbeats, 0 if there are no ages.
    pub(crate) beat_ns: u64,
}

impl TableOptions {
    /// Copies of each slot if nothing else is asked for.
    pub const DEFAULT_COPIES: u32 = 4;

    /// The least that a table can have.
    pub const fn new() -> Self {
        Self {
            copies: Self::DEFAULT_COPIES,
            flags: TableFlags::NONE,
            beat_ns: 0,
        }
    }

    /// 2, 4 or 8 copies of each slot. A reader is disturbed only when the writer makes one write less than there are
    /// copies while the reader copies one value.
    pub const fn copies(mut self, copies: u32) -> Self {
        self.copies = copies;
        self
    }

    /// Several slots can be written, and read, as one. A copy of a slot has one more word for that.
    pub const fn transactions(mut self) -> Self {
        self.flags = self.flags.with(TableFlags::TRANSACTIONS);
        self
    }

    /// Each slot tells its age, in heartbeats that the writer makes every `beat_ns` nanoseconds (not 0).
    pub const fn ages(mut self, beat_ns: u64) -> Self {
        self.flags = self.flags.with(TableFlags::AGES);
        self.beat_ns = beat_ns;
        self
    }

    /// Values, of 16 bytes each, are loaded and stored at once where the machine promises to: wait-free for readers as well,
    /// without copies. As with values of 8 bytes, the generation that a read returns is a lower bound of its value's.
    ///
    /// The machine is asked when the table is created and when a reader attaches. Where it does not promise that,
    /// [`TableError::NoPairs`](crate::TableError::NoPairs) is returned, and a table without this does the same with copies.
    /// Promised it is by processors on x86-64 with AVX of the vendors who say so, in cached memory and not under QEMU's
    /// emulator.
    pub const fn pairs(mut self) -> Self {
        self.flags = self.flags.with(TableFlags::PAIRS);
        self
    }

    /// Values can be pinned where they lie, by as many subscribed readers as there are copies; see [`crate::pinned`]. A slot has
    /// twice the copies then. Nothing else can be asked for besides.
    pub const fn pinned(mut self) -> Self {
        self.flags = self.flags.with(TableFlags::PINNED);
        self
    }
}

impl Default for TableOptions {
    fn default() -> Self {
        Self::new()
    }
}
