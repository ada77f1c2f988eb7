//! The values of a table: words, pairs of words, or groups of copies.

use shmbus_shm::slot::copy_stride;
use shmbus_shm::{Entries, Pairs, RecordGroups, Window, WindowError};

use crate::layout::TableLayout;

/// Slots of 8 bytes are words, and some of 16 bytes pairs; larger ones are groups of copies.
#[derive(Clone, Debug)]
pub(crate) struct Values<W> {
    /// `None` if the slots are larger.
    pub(crate) words: Option<Entries<u64, W>>,
    /// `None` if the slots are words or larger.
    pub(crate) pairs: Option<Pairs<W>>,
    /// Empty if the slots are words or pairs: whoever looks for a slot's copies need not ask what kind of slot it is.
    pub(crate) copies: RecordGroups<W>,
}

impl<W: Window> Values<W> {
    pub(crate) fn new(window: &W, layout: TableLayout) -> Result<Self, WindowError> {
        let offset = layout.values_offset();
        let slots = layout.slots() as usize;
        let payload_words = layout.payload_words();
        let cells = slots.next_power_of_two();
        let (mut words, mut pairs) = (None, None);
        if layout.is_pairs() {
            pairs = Some(Pairs::new(window, offset, cells)?);
        } else if layout.is_small() {
            words = Some(Entries::new(window, offset, cells)?);
        }
        let groups = if layout.is_small() { 0 } else { slots };
        let copies = RecordGroups::new(
            window,
            offset,
            groups,
            layout.physical_copies(),
            copy_stride(payload_words),
            payload_words,
        )?;
        Ok(Self {
            words,
            pairs,
            copies,
        })
    }
}
