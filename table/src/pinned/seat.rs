//! How a reader knows that it is heard.

use shmbus_shm::slot::Epoch;

/// Bits for which of the table's seats it is.
const INDEX_BITS: u32 = 8;

/// Bits for how many seats were given before.
const COUNT_BITS: u32 = 40;

/// A reader's subscription. The writer gives it, by whatever way the two talk, and names it in the table for as long as it
/// hears the reader. No two readers have the same, also if one had the other's place before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat(u64);

impl Seat {
    /// The seat that [`Seat::word`] gave. One that no writer gave is never named in a table, or is another reader's.
    pub const fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// The seat as a word. 0 is none.
    pub const fn word(self) -> u64 {
        self.0
    }

    /// Seat `index` of the table, after `given` others in the writer's life of `epoch`.
    pub(super) fn new(epoch: Epoch, given: u64, index: usize) -> Self {
        let count = given & ((1 << COUNT_BITS) - 1);
        Self(
            u64::from(epoch.get()) << (COUNT_BITS + INDEX_BITS)
                | count << INDEX_BITS
                | index as u64,
        )
    }

    /// Which of the table's words names it.
    pub(super) const fn index(self) -> usize {
        self.0 as usize & ((1 << INDEX_BITS) - 1)
    }
}
