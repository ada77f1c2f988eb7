//! Words in pairs, each pair accessed at once.

use core::sync::atomic::Ordering;

use crate::window::{Window, WindowError, prove};

/// Bytes of a pair, and its alignment.
const BYTES: usize = 16;

/// An array of a power of two pairs of `u64` whose index wraps, as [`Entries`](super::Entries) is one of words. A pair is
/// loaded and stored whole, by one access; who loads it never finds halves of two.
#[derive(Clone, Debug)]
pub struct Pairs<W> {
    /// Exactly the array's bytes, aligned.
    window: W,
    mask: usize,
}

impl<W: Window> Pairs<W> {
    /// The `count` pairs from byte `offset` of `window` on.
    ///
    /// # Errors
    ///
    /// [`WindowError`] if this machine does not promise such accesses to this memory, `count` is no power of two, or the
    /// array lies outside or is not aligned to 16 bytes.
    pub fn new(window: &W, offset: usize, count: usize) -> Result<Self, WindowError> {
        if !window.has_pairs() {
            return Err(WindowError::NoPairs);
        }
        if !count.is_power_of_two() {
            return Err(WindowError::NotPowerOfTwo { count });
        }
        let bytes = count.saturating_mul(BYTES);
        prove(window, offset, bytes, BYTES)?;
        Ok(Self {
            window: window.narrow(offset, bytes)?,
            mask: count - 1,
        })
    }

    /// How many pairs the array has.
    #[inline(always)]
    pub fn count(&self) -> usize {
        self.mask + 1
    }

    /// Loads pair `index` modulo [`Pairs::count`], unordered.
    #[inline(always)]
    pub fn load(&self, index: usize) -> [u64; 2] {
        // SAFETY: `new` proved `count` aligned pairs, and that there are any; the mask keeps the index below that.
        unsafe { self.window.load_pair((index & self.mask) * BYTES) }
    }

    /// Stores pair `index` modulo [`Pairs::count`], unordered.
    #[inline(always)]
    pub fn store(&self, index: usize, pair: [u64; 2]) {
        // SAFETY: as in `load`.
        unsafe { self.window.store_pair((index & self.mask) * BYTES, pair) }
    }

    /// Orders this thread's accesses to the memory that the array lies in.
    #[inline(always)]
    pub fn fence(&self, order: Ordering) {
        self.window.fence(order);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Entries, heap};

    #[test]
    fn a_pair_is_two_words_that_lie_together() {
        let window = heap(64);
        let pairs = match Pairs::new(&window, 16, 2) {
            Ok(pairs) => pairs,
            Err(error) => {
                assert_eq!((error, window.has_pairs()), (WindowError::NoPairs, false));
                eprintln!("SKIPPED: {error}");
                return;
            }
        };
        pairs.store(3, [1, u64::MAX]);
        assert_eq!((pairs.load(1), pairs.load(0)), ([1, u64::MAX], [0, 0]));
        let words = Entries::<u64, _>::new(&window, 0, 8).unwrap();
        let found: Vec<u64> = (0..8).map(|at| words.load(at, Ordering::Relaxed)).collect();
        assert_eq!(found, [0, 0, 0, 0, 1, u64::MAX, 0, 0]);
        for (offset, count) in [(8, 1), (16, 3), (16, 4), (64, 1), (0, 1 << 60)] {
            assert!(Pairs::new(&window, offset, count).is_err());
        }
    }
}
