//! Where a table's parts lie.

use shmbus_shm::slot::copy_stride;
use shmbus_shm::{TreeLayout, WindowError};

/// Bytes of the header.
pub(crate) const HEADER_BYTES: usize = 64;

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
    /// The table is larger than memory can be on this machine.
    #[error("a table of {slots} slots of {slot_bytes} bytes is larger than the address space")]
    TooLarge {
        /// The number of slots.
        slots: u32,
        /// Bytes of a slot.
        slot_bytes: u32,
    },
}

/// The geometry of a table: a function of its number of slots, their size and their number of copies.
///
/// From the table's start, which lies on a 64-byte line: the header of 64 bytes; the generation tree, whose leaves are
/// the slots' heads; and the values. Values of 8 bytes are a dense array of words, rounded up to a power of two. A
/// larger slot is its copies, one after the other, each a sequence word and the payload, rounded up to whole lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableLayout {
    slots: u32,
    slot_bytes: u32,
    copies: u32,
    tree: TreeLayout,
    bytes: usize,
}

impl TableLayout {
    /// The most slots a table can have.
    pub const MAX_SLOTS: u32 = 65_536;

    /// Bytes of the largest slot.
    pub const MAX_SLOT_BYTES: u32 = 4096;

    /// Copies of each slot if nothing else is asked for.
    pub const DEFAULT_COPIES: u32 = 4;

    /// The layout for `slots` slots (1 to 65,536) of `slot_bytes` bytes (8 to 4096, a multiple of 8).
    ///
    /// # Errors
    ///
    /// [`LayoutError`].
    pub fn new(slots: u32, slot_bytes: u32) -> Result<Self, LayoutError> {
        Self::with_copies(slots, slot_bytes, Self::DEFAULT_COPIES)
    }

    /// The same with 2, 4 or 8 copies of each slot. A reader is disturbed only when the writer makes one write less
    /// than there are copies while the reader copies one value.
    ///
    /// # Errors
    ///
    /// [`LayoutError`].
    pub fn with_copies(slots: u32, slot_bytes: u32, copies: u32) -> Result<Self, LayoutError> {
        if !(1..=Self::MAX_SLOTS).contains(&slots) {
            return Err(LayoutError::Slots { found: slots });
        }
        if !(8..=Self::MAX_SLOT_BYTES).contains(&slot_bytes) || !slot_bytes.is_multiple_of(8) {
            return Err(LayoutError::SlotBytes { found: slot_bytes });
        }
        if ![2, 4, 8].contains(&copies) {
            return Err(LayoutError::Copies { found: copies });
        }
        let tree = TreeLayout::new(slots).map_err(|_| LayoutError::Slots { found: slots })?;
        let mut layout = Self {
            slots,
            slot_bytes,
            copies,
            tree,
            bytes: 0,
        };
        let values = if layout.is_small() {
            (slots.next_power_of_two() as usize).checked_mul(8)
        } else {
            (slots as usize)
                .checked_mul(copies as usize)
                .and_then(|copies| copies.checked_mul(copy_stride(layout.slot_words())))
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

    /// Copies of each slot. Slots of 8 bytes need none and have one.
    pub const fn copies(&self) -> u32 {
        self.copies
    }

    /// The generation tree's geometry.
    pub const fn tree(&self) -> TreeLayout {
        self.tree
    }

    /// Where the generation tree starts, in bytes.
    pub const fn tree_offset(&self) -> usize {
        HEADER_BYTES
    }

    /// Where the values start, in bytes.
    pub fn values_offset(&self) -> usize {
        self.tree_offset() + self.tree.bytes()
    }

    /// The table's size in bytes.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether a value is one word, which needs no copies.
    pub(crate) const fn is_small(&self) -> bool {
        self.slot_bytes == 8
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
        for (slots, slot_bytes, copies, values, bytes) in [
            (1, 8, 4, 192, 256),
            (1, 16, 2, 192, 192 + 2 * 64),
            (3, 56, 4, 192, 192 + 3 * 4 * 64),
            (3, 64, 4, 192, 192 + 3 * 4 * 128),
            (65, 4096, 8, 1216, 1216 + 65 * 8 * 4160),
            (65_536, 8, 4, 532_736, 532_736 + 524_288),
        ] {
            let layout = TableLayout::with_copies(slots, slot_bytes, copies).unwrap();
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
    }
}
