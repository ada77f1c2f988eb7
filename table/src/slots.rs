//! The values of a table: words, or groups of copies.

use shmbus_shm::slot::copy_stride;
use shmbus_shm::{Entries, RecordGroups, Window, WindowError};

use crate::layout::TableLayout;

#[derive(Clone, Debug)]
pub(crate) enum Values<W> {
    /// Slots of 8 bytes.
    Words(Entries<u64, W>),
    /// Larger ones.
    Copies(RecordGroups<W>),
}

impl<W: Window> Values<W> {
    pub(crate) fn new(window: &W, layout: TableLayout) -> Result<Self, WindowError> {
        let offset = layout.values_offset();
        let slots = layout.slots() as usize;
        if layout.is_small() {
            return Entries::new(window, offset, slots.next_power_of_two()).map(Self::Words);
        }
        let words = layout.slot_words();
        RecordGroups::new(
            window,
            offset,
            slots,
            layout.copies() as usize,
            copy_stride(words),
            words,
        )
        .map(Self::Copies)
    }
}
