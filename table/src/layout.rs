//! Where a table's parts lie.

use shmbus_shm::slot::copy_stride;
use shmbus_shm::{TreeLayout, WindowError};

use crate::error::TableError;
use crate::flags::TableFlags;
use crate::options::TableOptions;

/// Bytes of the header.
pub(crate) const HEADER_BYTES: usize = 64;

/// Where the word is that names the last committed transaction, if there are any.
pub(crate) const COMMIT_OFFSET: usize = HEADER_BYTES;

/// Bytes of the line that names the last committed transaction.
const COMMIT_BYTES: usize = 64;

/// Bytes of a slot that is accessed at once, if it is more than a word.
const PAIR_BYTES: u32 = 16;

/// Bytes of the line that names the subscribed readers.
const SEATS_BYTES: usize = 64;

/// Bytes of a slot's place, which has a line of its own.
const PLACE_BYTES: usize = 64;

/// A table cannot have this shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// Too few or too many slots.
    #[error("a table has 1 to {max} slots, not {found}", max = TableLayout::MAX_SLOTS)]
    Slots {
        /// How many were asked for, or found in a header.
        found: u32,
    },
    /// A slot's size is none that a table can have.
    #[error(
        "a slot has 8 to {max} bytes, in steps of 8, not {found}",
        max = TableLayout::MAX_SLOT_BYTES
    )]
    SlotBytes {
        /// The size asked for, or found in a header.
        found: u32,
    },
    /// A number of copies that the slot algorithm does not work with, or more than make sense.
    #[error("a slot has 2, 4 or 8 copies, not {found}")]
    Copies {
        /// The number asked for, or found in a header.
        found: u32,
    },
    /// A flag that this version does not know, so it does not know where the table's parts lie.
    #[error("a table's flags are {found:#x}, of which not all are known")]
    Flags {
        /// The flags found in a header.
        found: u32,
    },
    /// Only slots of 16 bytes are accessed at once.
    #[error("a table of pairs has slots of 16 bytes, not of {found}")]
    PairBytes {
        /// The size asked for, or found in a header.
        found: u32,
    },
    /// Flags that no table has together.
    #[error("no table is {flags} at once")]
    Together {
        /// The flags asked for, or found in a header.
        flags: TableFlags,
    },
    /// A table with ages says how long a beat is.
    #[error("a table with ages has a beat of 1 nanosecond or more, not of {found}")]
    Beat {
        /// Nanoseconds of a beat that were asked for, or found in a header.
        found: u64,
    },
    /// The table is larger than memory can be on this machine.
    #[error("a table of {slots} slots of {slot_bytes} bytes is larger than the address space")]
    TooLarge {
        /// The number of slots.
        slots: u32,
        /// Bytes of a slot.
        slot_bytes: u32,
    },
}

/// The geometry of a table: a function of its number of slots, their size and its [`TableOptions`].
///
/// From the table's start, which lies on a 64-byte line: the header of 64 bytes; with transactions, the line that names
/// the last committed one; the generation tree, whose leaves are the slots' heads; with ages, a dense array of words,
/// rounded up to a power of two; and the values. Values of 8 bytes are such an array too, unless there are
/// transactions. A larger slot is its copies, one after the other, each a sequence word, with transactions the number
/// of one, and the value, rounded up to whole lines. Of a table whose values can be pinned, see
/// [`crate::pinned`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableLayout {
    slots: u32,
    slot_bytes: u32,
    options: TableOptions,
    tree: TreeLayout,
    bytes: usize,
}

impl TableLayout {
    /// The most slots a table can have.
    pub const MAX_SLOTS: u32 = 65_536;

    /// Bytes of the largest slot.
    pub const MAX_SLOT_BYTES: u32 = 4096;

    /// The layout for `slots` slots (1 to 65,536) of `slot_bytes` bytes (8 to 4096, a multiple of 8).
    ///
    /// # Errors
    ///
    /// [`LayoutError`].
    pub fn new(slots: u32, slot_bytes: u32) -> Result<Self, LayoutError> {
        Self::with_options(slots, slot_bytes, TableOptions::new())
    }

    /// The same with 2, 4 or 8 copies of each slot; see [`TableOptions::copies`].
    ///
    /// # Errors
    ///
    /// [`LayoutError`].
    pub fn with_copies(slots: u32, slot_bytes: u32, copies: u32) -> Result<Self, LayoutError> {
        Self::with_options(slots, slot_bytes, TableOptions::new().copies(copies))
    }

    /// The same with whatever else a table can have.
    ///
    /// # Errors
    ///
    /// [`LayoutError`].
    pub fn with_options(
        slots: u32,
        slot_bytes: u32,
        options: TableOptions,
    ) -> Result<Self, LayoutError> {
        if !(1..=Self::MAX_SLOTS).contains(&slots) {
            return Err(LayoutError::Slots { found: slots });
        }
        if !(8..=Self::MAX_SLOT_BYTES).contains(&slot_bytes) || !slot_bytes.is_multiple_of(8) {
            return Err(LayoutError::SlotBytes { found: slot_bytes });
        }
        let copies = options.copies;
        if ![2, 4, 8].contains(&copies) {
            return Err(LayoutError::Copies { found: copies });
        }
        let flags = options.flags;
        let is_pairs = flags.contains(TableFlags::PAIRS);
        let is_at_odds = is_pairs && flags.contains(TableFlags::TRANSACTIONS);
        let is_pinned = flags.contains(TableFlags::PINNED);
        if is_at_odds || is_pinned && flags != TableFlags::PINNED {
            return Err(LayoutError::Together { flags });
        }
        if is_pairs && slot_bytes != PAIR_BYTES {
            return Err(LayoutError::PairBytes { found: slot_bytes });
        }
        if options.flags.contains(TableFlags::AGES) != (options.beat_ns != 0) {
            let found = options.beat_ns;
            return Err(LayoutError::Beat { found });
        }
        let tree = TreeLayout::new(slots).map_err(|_| LayoutError::Slots { found: slots })?;
        let mut layout = Self {
            slots,
            slot_bytes,
            options,
            tree,
            bytes: 0,
        };
        let values = if layout.is_small() {
            Some(layout.dense_bytes() * layout.slot_words())
        } else {
            (slots as usize)
                .checked_mul(layout.physical_copies())
                .and_then(|copies| copies.checked_mul(copy_stride(layout.payload_words())))
        };
        layout.bytes = values
            .and_then(|values| values.checked_add(layout.values_offset()))
            .and_then(|end| end.checked_next_multiple_of(64))
            .filter(|bytes| isize::try_from(*bytes).is_ok())
            .ok_or(LayoutError::TooLarge { slots, slot_bytes })?;
        Ok(layout)
    }

    /// How many slots the table has.
    pub const fn slots(&self) -> u32 {
        self.slots
    }

    /// Bytes of a slot's value.
    pub const fn slot_bytes(&self) -> u32 {
        self.slot_bytes
    }

    /// 8-byte words of a slot's value.
    pub const fn slot_words(&self) -> usize {
        self.slot_bytes as usize / 8
    }

    /// Copies of each slot. Slots of 8 bytes need none and have one, unless there are transactions.
    pub const fn copies(&self) -> u32 {
        self.options.copies
    }

    /// Copies of each slot in memory: with pins there is another one to spare for each.
    pub(crate) const fn physical_copies(&self) -> usize {
        (self.copies() << self.is_pinned() as u32) as usize
    }

    pub(crate) const fn is_pinned(&self) -> bool {
        self.flags().contains(TableFlags::PINNED)
    }

    /// What the table has besides.
    pub const fn options(&self) -> TableOptions {
        self.options
    }

    /// What the table has besides, as its header says it.
    pub const fn flags(&self) -> TableFlags {
        self.options.flags
    }

    /// Nanoseconds from one of the writer's heartbeats to the next; 0 in a table without ages, which does not say.
    pub const fn beat_ns(&self) -> u64 {
        self.options.beat_ns
    }

    /// Words of a copy behind its sequence: those of a value, and with transactions one before them.
    pub(crate) const fn payload_words(&self) -> usize {
        self.slot_words() + self.flags().contains(TableFlags::TRANSACTIONS) as usize
    }

    /// The generation tree's geometry.
    pub const fn tree(&self) -> TreeLayout {
        self.tree
    }

    /// Where the generation tree starts, in bytes.
    pub const fn tree_offset(&self) -> usize {
        if self.flags().contains(TableFlags::TRANSACTIONS) {
            HEADER_BYTES + COMMIT_BYTES
        } else if self.is_pinned() {
            self.seats_offset() + SEATS_BYTES
        } else {
            HEADER_BYTES
        }
    }

    /// Where the words that name the subscribed readers start, in bytes, if values can be pinned.
    pub const fn seats_offset(&self) -> usize {
        HEADER_BYTES
    }

    /// Bytes of the memory in which a reader announces what it has pinned.
    pub const fn announcements_bytes(&self) -> usize {
        self.dense_bytes()
    }

    /// Where the slots' places start, in bytes, if values can be pinned.
    pub fn places_offset(&self) -> usize {
        self.tree_offset() + self.tree.bytes()
    }

    /// Where the slots' ages start, in bytes. Without ages, the values start there.
    pub fn ages_offset(&self) -> usize {
        self.tree_offset() + self.tree.bytes()
    }

    /// Where the values start, in bytes.
    pub fn values_offset(&self) -> usize {
        if self.flags().contains(TableFlags::AGES) {
            self.ages_offset() + self.dense_bytes().next_multiple_of(64)
        } else if self.is_pinned() {
            self.places_offset() + self.slots as usize * PLACE_BYTES
        } else {
            self.ages_offset()
        }
    }

    /// Bytes of an array of a word for each slot.
    const fn dense_bytes(&self) -> usize {
        self.slots.next_power_of_two() as usize * 8
    }

    /// The table's size in bytes.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether a value is accessed at once and needs no copies.
    pub(crate) const fn is_small(&self) -> bool {
        self.payload_words() == 1 && !self.is_pinned() || self.is_pairs()
    }

    pub(crate) const fn is_pairs(&self) -> bool {
        self.flags().contains(TableFlags::PAIRS)
    }

    /// That the table is of the kind that somebody serves: ages and pairs make no other kind.
    pub(crate) fn check_kind(&self, expected: TableFlags) -> Result<(), TableError> {
        let found = self.flags();
        if found.without(TableFlags::AGES.with(TableFlags::PAIRS)) != expected {
            return Err(TableError::Kind { expected, found });
        }
        Ok(())
    }

    /// That a window holds the table.
    pub(crate) fn check_fits(&self, len: usize) -> Result<(), WindowError> {
        if self.bytes > len {
            return Err(WindowError::OutOfBounds {
                offset: 0,
                bytes: self.bytes,
                len,
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_follow_each_other_on_lines() {
        let plain = TableOptions::new();
        let transactions = plain.transactions();
        for (slots, slot_bytes, options, values, bytes) in [
            (1, 8, plain, 192, 256),
            (1, 16, plain.copies(2), 192, 192 + 2 * 64),
            (3, 56, plain, 192, 192 + 3 * 4 * 64),
            (3, 64, plain, 192, 192 + 3 * 4 * 128),
            (65, 4096, plain.copies(8), 1216, 1216 + 65 * 8 * 4160),
            (65_536, 8, plain, 559_360, 559_360 + 524_288),
            (1, 8, transactions, 256, 256 + 4 * 64),
            (3, 56, transactions, 256, 256 + 3 * 4 * 128),
            (1, 8, plain.ages(1), 256, 256 + 64),
            (17, 8, plain.ages(1), 448 + 256, 448 + 256 + 256),
            (3, 16, plain.pairs(), 192, 192 + 4 * 16),
            (3, 16, plain.pairs().ages(1), 256, 256 + 4 * 16),
            (1, 8, plain.pinned(), 320, 320 + 8 * 64),
            (3, 64, plain.pinned().copies(2), 448, 448 + 3 * 4 * 128),
        ] {
            let layout = TableLayout::with_options(slots, slot_bytes, options).unwrap();
            assert_eq!((layout.values_offset(), layout.bytes()), (values, bytes));
        }
    }

    #[test]
    fn shapes_that_no_table_has_are_refused() {
        assert_eq!(TableLayout::new(0, 8), Err(LayoutError::Slots { found: 0 }));
        assert_eq!(
            TableLayout::new(65_537, 8),
            Err(LayoutError::Slots { found: 65_537 })
        );
        for found in [0, 4, 12, 4104, u32::MAX] {
            assert_eq!(
                TableLayout::new(1, found),
                Err(LayoutError::SlotBytes { found })
            );
        }
        for found in [0, 1, 3, 16] {
            assert_eq!(
                TableLayout::with_copies(1, 8, found),
                Err(LayoutError::Copies { found })
            );
        }
        let pairs = TableOptions::new().pairs();
        for found in [8, 24] {
            let outcome = TableLayout::with_options(1, found, pairs);
            assert_eq!(outcome, Err(LayoutError::PairBytes { found }));
        }
        let flags = pairs.transactions().flags;
        assert_eq!(
            TableLayout::with_options(1, 16, pairs.transactions()),
            Err(LayoutError::Together { flags })
        );
        for options in [
            pairs,
            TableOptions::new().transactions(),
            TableOptions::new().ages(1),
        ] {
            let flags = options.pinned().flags;
            assert_eq!(
                TableLayout::with_options(1, 16, options.pinned()),
                Err(LayoutError::Together { flags })
            );
        }
    }
}
