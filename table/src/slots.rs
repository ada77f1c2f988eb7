//! The values of a table: words, or groups of copies.

use shmbus_shm::slot::copy_stride;
use shmbus_shm::{Entries, RecordGroups, Window, WindowError};

use crate::layout::TableLayout;

/// Slots of 8 bytes are words; larger ones are groups of copies.
#[derive(Clone, Debug)]
pub(crate) struct Values<W> {
    /// `None` if the slots are larger.
    pub(crate) words: Option<Entries<u64, W>>,
    /// Empty if the slots are words: whoever looks for a slot's copies need not ask what kind of slot it is.
    pub(crate) copies: RecordGroups<W>,
}

impl<W: Window> Values<W> {
    pub(crate) fn new(window: &W, layout: TableLayout) -> Result<Self, WindowError> {
        let offset = layout.values_offset();
        let slots = layout.slots() as usize;
        let payload_words = layout.payload_words();
        let (words, groups) = if layout.is_small() {
            let words = Entries::new(window, offset, slots.next_power_of_two())?;
            (Some(words), 0)
        } else {
            (None, slots)
        };
        let copies = RecordGroups::new(
            window,
            offset,
            groups,
            layout.physical_copies(),
            copy_stride(payload_words),
            payload_words,
        )?;
        Ok(Self { words, copies })
    }
}
