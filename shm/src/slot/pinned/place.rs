//! Where a slot's newest value lies.

use core::sync::atomic::Ordering::{Relaxed, Release};

use crate::field::Rows;
use crate::slot::Generation;
use crate::window::Window;

const COPY_BITS: u32 = 4;
const COPY_MASK: u64 = (1 << COPY_BITS) - 1;
const COUNT_SHIFT: u32 = COPY_BITS + 16;

/// One word: the copy that holds a slot's newest value in bits 0 to 3, the copies that the writer is about to overwrite in
/// bits 4 to 19, a bit for each, and in bits 20 to 63 the low bits of the newest generation's count.
///
/// The count tells a reader that the copy it finds is the one that was named. To be mistaken it would have to sleep for
/// 2^44 publications, more than four hours at one a nanosecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(u64);

impl Place {
    /// The place that the word stands for. Every word stands for one.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// The word that stands for it in shared memory.
    #[inline(always)]
    pub const fn word(self) -> u64 {
        self.0
    }

    /// The place of the value with this count, in `copy`; the writer intends to overwrite the copies of `intent`.
    #[inline(always)]
    pub(super) const fn new(copy: u64, intent: u64, count: u64) -> Self {
        Self(copy & COPY_MASK | (intent & 0xffff) << COPY_BITS | count << COUNT_SHIFT)
    }

    /// Which copy is the newest.
    #[inline(always)]
    pub const fn copy(self) -> u64 {
        self.0 & COPY_MASK
    }

    /// Whether the writer may be about to overwrite `copy`.
    #[inline(always)]
    pub const fn intends(self, copy: u64) -> bool {
        self.0 >> COPY_BITS >> (copy & COPY_MASK) & 1 != 0
    }

    /// The word of the generation that a copy with this sequence holds, if it is complete and the one that is named here.
    #[inline(always)]
    pub(super) const fn named_by(self, sequence: u64) -> Option<u64> {
        let generation = sequence / 2;
        let is_named = (generation & Generation::MAX_COUNT) << COUNT_SHIFT
            == self.0 >> COUNT_SHIFT << COUNT_SHIFT;
        if sequence.is_multiple_of(2) && is_named {
            Some(generation)
        } else {
            None
        }
    }
}

/// The place of one slot in an array of lines, whose first words are places.
#[derive(Debug)]
pub struct PlaceAt<'a, W> {
    lines: &'a Rows<u64, W, 8>,
    index: usize,
}

impl<W> Clone for PlaceAt<'_, W> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<W> Copy for PlaceAt<'_, W> {}

impl<'a, W: Window> PlaceAt<'a, W> {
    /// The place in line `index`; behind the end means the last line.
    #[inline(always)]
    pub fn new(lines: &'a Rows<u64, W, 8>, index: usize) -> Self {
        Self { lines, index }
    }

    /// The load is relaxed, for read-only mappings; the kernel puts a fence behind it.
    #[inline(always)]
    pub(super) fn load(&self) -> Place {
        Place(self.lines.load(self.index, 0, Relaxed))
    }

    /// Release: who finds the newest copy named, be it with another intent than at first, finds it complete.
    #[inline(always)]
    pub(super) fn store(&self, place: Place) {
        self.lines.store(self.index, 0, place.0, Release);
    }

    /// Makes the slot one that was never written, whose next values go to the copies in `order`.
    pub fn reset(&self, order: super::CopyOrder, copies: usize) {
        self.store(Place::new(order.newest(copies), 0, 0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slot::Epoch;

    #[test]
    fn a_place_names_one_generation_of_one_copy() {
        let generation = Generation::new(Epoch::FIRST, (1 << 44) + 5).unwrap();
        let place = Place::new(11, 0b1000_0000_0000_0010, generation.count());
        assert_eq!(place.copy(), 11);
        let intended: Vec<u64> = (0..16).filter(|copy| place.intends(*copy)).collect();
        assert_eq!(intended, [1, 15]);
        let sequence = 2 * generation.word();
        assert_eq!(place.named_by(sequence), Some(generation.word()));
        for other in [sequence - 1, sequence + 1, sequence + 2, sequence - 2, 0] {
            assert_eq!(place.named_by(other), None);
        }
        assert_eq!(Place::new(3, 0, 0).named_by(0), Some(0));
    }
}
