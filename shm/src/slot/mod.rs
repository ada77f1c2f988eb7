//! The slot kernel: one latest-value cell, written by one side and read by any number of readers that cannot write.
//!
//! A slot is N *copies* (a power of two), each `{ sequence: u64, payload }` on lines of its own, and one *head* word
//! that lies elsewhere, together with the heads of other slots. Generation `g` is written to copy `g mod N`:
//!
//! 1. `sequence = 2g - 1`; 2. fence(Release); 3. the payload, word by word; 4. `sequence = 2g`; 5. `head = g`.
//!
//! A reader never waits for the writer: it takes the newest *complete* copy, which the writer leaves alone for N - 1
//! whole writes. Where it is, it knows from its own cursor (the generation it returned last) and a look at the copy
//! that follows, which is a cached line as long as nothing changed; only when far behind does it read the head. The
//! payload counts if the sequence is still `2g` after the copying. A writer that dies at any step leaves the previous
//! value readable, and one that lies is answered with a [`ReadError`] after at most [`max_loads`] loads.
//!
//! # Ordering
//!
//! Each fence and each Release is shown to be needed by loom: `tests/loom_slot.rs` and `tests/loom_small.rs`, with the
//! mutations in `mutants.toml`. loom reorders stores, and loads, among themselves; it never lets a store pass a load that
//! comes before it in its thread. Here none is hidden by that: a reader stores nothing, a writer loads nothing, and neither
//! makes a read-modify-write. Only who recovers a slot does both, and what he stores then, a head or a sequence, is a
//! Release, which no earlier load passes.
//!
//! The family is Kopetz and Reisinger's non-blocking write protocol (RTSS 1993); the cursor and the head word are
//! what makes a read move one cache line.

mod cursor;
mod generation;
mod head;
mod numbered;
pub mod pinned;
mod reader;
mod small;
mod writer;

#[cfg(test)]
mod numbered_tests;
#[cfg(test)]
mod tests;

pub use cursor::{ReadCursor, WriteCursor};
pub use generation::{Epoch, Generation};
pub use head::{HeadAt, HeadLoad, HeadStore};
pub use numbered::{NumberedSlotReader, NumberedSlotWriter, load_commit, max_loads_as_of};
pub use reader::{Glimpse, ReadError, SlotReader, TRIES, WALK_STEPS, max_loads};
pub use small::{Cells, SmallSlotReader, SmallSlotWriter};
pub use writer::{PublishError, SlotWriter};

/// Bytes from one copy of a slot to the next: sequence word and payload, rounded up to whole 64-byte lines.
pub const fn copy_stride(payload_words: usize) -> usize {
    payload_words
        .saturating_add(1)
        .saturating_mul(8)
        .div_ceil(64)
        .saturating_mul(64)
}

/// The sequence word of a copy that holds `generation` completely. While it is being written the word is one less.
#[inline(always)]
const fn complete(generation: Generation) -> u64 {
    2 * generation.word()
}
