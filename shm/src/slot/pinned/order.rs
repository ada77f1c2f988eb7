//! How old the copies of a slot are, by what their writer knows.

/// A place in the order has so many bits.
const BITS: u32 = 4;
const MASK: u64 = (1 << BITS) - 1;

/// The copies of a slot in the order in which they were written, oldest first. Private to the writer, and one word, so that
/// a caller without an allocator can keep it in plain `u64` storage.
///
/// A copy that is pinned keeps its place while others go past it, so the writer finds the oldest ones at the front.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyOrder(u64);

impl CopyOrder {
    /// The order of copies that were never written.
    pub const FIRST: Self = Self(0xfedc_ba98_7654_3210);

    /// The order that [`CopyOrder::word`] gave.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// The order as a word to be stored.
    #[inline(always)]
    pub const fn word(self) -> u64 {
        self.0
    }

    #[inline(always)]
    const fn at(self, position: usize) -> u64 {
        self.0 >> (position as u32 * BITS) & MASK
    }

    /// The newest of `copies` copies, at most [`MAX_COPIES`](super::MAX_COPIES).
    #[inline(always)]
    pub(super) const fn newest(self, copies: usize) -> u64 {
        self.at(copies - 1)
    }

    /// A bit for each of the `count` oldest.
    #[inline(always)]
    pub(super) fn oldest(self, count: usize) -> u64 {
        (0..count).fold(0, |set, position| set | 1 << self.at(position))
    }

    /// Takes the oldest copy that is not in `taken`, a bit for each, of the `count` oldest of `copies`, and makes it the
    /// newest. `taken` has less than `count` bits.
    #[inline(always)]
    pub(super) fn take(&mut self, taken: u64, count: usize, copies: usize) -> u64 {
        let mut position = 0;
        while position + 1 < count && taken >> self.at(position) & 1 != 0 {
            position += 1;
        }
        let copy = self.at(position);
        let shift = position as u32 * BITS;
        let older = self.0 & ((1 << shift) - 1);
        // In two steps: of sixteen copies the last one leaves nothing above it.
        let younger = self.0 >> shift >> BITS << shift;
        let top = (copies as u32 - 1) * BITS;
        self.0 = (older | younger) & !(MASK << top) | copy << top;
        copy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_becomes_the_newest_and_nothing_is_lost() {
        for copies in [4, 8, 16] {
            let mut order = CopyOrder::FIRST;
            let mut model: Vec<u64> = (0..copies as u64).collect();
            let mut random = 1_u64;
            for _ in 0..if cfg!(miri) { 30 } else { 1000 } {
                random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                let count = 1 + (random >> 33) as usize % (copies / 2 + 1);
                let pinned: Vec<u64> = (1..count as u64)
                    .map(|n| (random >> (40 + n)) % copies as u64)
                    .collect();
                let taken = pinned.iter().fold(0, |set, copy| set | 1 << copy);
                let position = model
                    .iter()
                    .position(|copy| !pinned.contains(copy))
                    .unwrap();
                assert!(position < count);
                assert_eq!(
                    order.oldest(count),
                    model[..count].iter().fold(0, |set, copy| set | 1 << copy)
                );
                let expected = model.remove(position);
                model.push(expected);
                assert_eq!(order.take(taken, count, copies), expected);
                assert_eq!(order.newest(copies), expected);
                for (position, copy) in model.iter().enumerate() {
                    assert_eq!(order.at(position), *copy);
                }
            }
        }
    }
}
