//! Values that show which publication they are, and how far publications have come.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use shmbus_shm::{Entries, Mapped};
use shmbus_table::TableLayout;

/// How many slots a tortured table has.
pub(crate) const SLOTS: u32 = 3;

/// Storage of a word for each slot.
pub(crate) fn storage() -> Vec<u64> {
    vec![0; SLOTS as usize]
}

/// Makes all words of a value show that it is its slot's publication `number`.
pub(crate) fn stamp(value: &mut [u64], number: u64) {
    for (index, word) in value.iter_mut().enumerate() {
        *word = number << 16 | index as u64;
    }
}

/// Which publication a value is; `None` if its words are of different ones.
pub(crate) fn number_of(value: &[u64]) -> Option<u64> {
    let number = value[0] >> 16;
    let is_whole = value
        .iter()
        .enumerate()
        .all(|(index, word)| *word == number << 16 | index as u64);
    is_whole.then_some(number)
}

/// The publications that are complete, a word for each slot, in the writer's memory behind the table and no part of it:
/// a reader looks there before a call, and knows what the call may not fall behind.
pub(crate) struct Progress(Entries<u64, Mapped>);

impl Progress {
    /// The memory's size, the table's included.
    pub(crate) fn memory_bytes(layout: TableLayout) -> u64 {
        layout.bytes() as u64 + 64
    }

    pub(crate) fn new(window: &Mapped, layout: TableLayout) -> Self {
        Self(Entries::new(window, layout.bytes(), SLOTS.next_power_of_two() as usize).unwrap())
    }

    /// Said after the publication has returned.
    pub(crate) fn completed(&self, slot: u32, number: u64) {
        // Release: the publication is complete for whoever finds its number.
        self.0.store(slot as usize, number, Release);
    }

    /// What was complete before whatever this thread does next.
    pub(crate) fn complete(&self, slot: u32) -> u64 {
        let number = self.0.load(slot as usize, Relaxed);
        // Pairs with the Release. A load from a read-only mapping is relaxed.
        self.0.fence(Acquire);
        number
    }
}
