//! What such a table has that others have not, as views.

use core::num::NonZeroUsize;

use shmbus_shm::slot::pinned::PlaceAt;
use shmbus_shm::{Entries, RecordGroups, Records, Rows, Window};

use crate::error::TableError;
use crate::layout::TableLayout;
use crate::slots::Values;

/// Words for seats, of which a table of fewer copies uses fewer.
pub(super) const SEATS: usize = 8;

/// The announcements at the start of a reader's own memory.
pub(super) fn announcements<A: Window>(
    window: &A,
    layout: TableLayout,
) -> Result<Entries<u64, A>, TableError> {
    let words = (layout.slots() as usize).next_power_of_two();
    Ok(Entries::new(window, 0, words)?)
}

/// The table's seats, places and copies.
#[derive(Clone, Debug)]
pub(super) struct Parts<W> {
    pub(super) seats: Entries<u64, W>,
    places: Rows<u64, W, 8>,
    copies: RecordGroups<W>,
}

impl<W: Window> Parts<W> {
    pub(super) fn new(window: &W, layout: TableLayout) -> Result<Self, TableError> {
        let slots = NonZeroUsize::new(layout.slots() as usize).unwrap_or(NonZeroUsize::MIN);
        Ok(Self {
            seats: Entries::new(window, layout.seats_offset(), SEATS)?,
            places: Rows::new(window, layout.places_offset(), slots)?,
            copies: Values::new(window, layout)?.copies,
        })
    }

    /// The copies and the place of a slot, if there is one.
    #[inline(always)]
    pub(super) fn slot(&self, slot: u32) -> Option<(Records<'_, W>, PlaceAt<'_, W>)> {
        let index = slot as usize;
        Some((self.copies.get(index)?, PlaceAt::new(&self.places, index)))
    }
}
