//! Names for values: which life of the writer, and which of its values.

use core::fmt;
use core::num::{NonZeroU16, NonZeroU64};

const COUNT_BITS: u32 = 48;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;

/// Which life of a writer: each restart goes on under the next epoch. 1 to 32,767.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(NonZeroU16);

impl Epoch {
    /// A writer's first life.
    pub const FIRST: Self = Self(NonZeroU16::MIN);

    /// Epoch `number`, unless that is 0 or more than 15 bits.
    pub const fn new(number: u16) -> Option<Self> {
        match NonZeroU16::new(number) {
            Some(nonzero) if number >> 15 == 0 => Some(Self(nonzero)),
            _ => None,
        }
    }

    /// The number, 1 to 32,767.
    pub const fn get(self) -> u16 {
        self.0.get()
    }

    /// The next life, if there is one: after the last, the memory must be set up anew.
    pub const fn next(self) -> Option<Self> {
        Self::new(self.get() + 1)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which value of a slot: its writer's epoch in bits 48 to 62, and in bits 0 to 47 a count that starts at 1 and goes
/// on over restarts in place. Bit 63 is zero, so that twice a generation fits a word.
///
/// Generations of one slot are ordered as their words are. The word 0 means "never written" and is not a generation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(NonZeroU64);

impl Generation {
    /// The highest count: 2^48 - 1.
    pub const MAX_COUNT: u64 = COUNT_MASK;

    /// The generation with this count in `epoch`, unless the count is 0 or too high.
    pub const fn new(epoch: Epoch, count: u64) -> Option<Self> {
        if count > COUNT_MASK {
            return None;
        }
        Self::from_word((epoch.get() as u64) << COUNT_BITS | count)
    }

    /// The generation that `word`, which a peer may have written, stands for; `None` if it stands for none.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Option<Self> {
        let epoch = word >> COUNT_BITS;
        if word & COUNT_MASK == 0 || epoch == 0 || epoch >> 15 != 0 {
            return None;
        }
        match NonZeroU64::new(word) {
            Some(word) => Some(Self(word)),
            None => None,
        }
    }

    /// The word that stands for it in shared memory.
    #[inline(always)]
    pub const fn word(self) -> u64 {
        self.0.get()
    }

    /// The writer's life in which it was written.
    #[inline(always)]
    pub const fn epoch(self) -> Epoch {
        match NonZeroU16::new((self.word() >> COUNT_BITS) as u16) {
            Some(epoch) => Epoch(epoch),
            // `from_word` admits no epoch 0.
            None => Epoch::FIRST,
        }
    }

    /// How many values the slot has had, 1 or more.
    #[inline(always)]
    pub const fn count(self) -> u64 {
        self.word() & COUNT_MASK
    }

    /// The generation after this one in the same epoch, if the count goes so far.
    #[inline(always)]
    pub const fn next(self) -> Option<Self> {
        if self.count() == COUNT_MASK {
            return None;
        }
        Some(Self(self.0.saturating_add(1)))
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch(), self.count())
    }
}

impl fmt::Debug for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Generation({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_stand_for_no_generation_are_refused() {
        let last = Epoch::new(0x7fff).unwrap();
        assert_eq!(last.next(), None);
        assert_eq!(Epoch::new(0), None);
        assert_eq!(Epoch::new(0x8000), None);
        for word in [0, 1, 1 << 48, 1 << 63, (1 << 63) | (1 << 48) | 1] {
            assert_eq!(Generation::from_word(word), None, "{word:#x}");
        }
        let top = Generation::new(last, Generation::MAX_COUNT).unwrap();
        assert_eq!(top.word(), u64::MAX >> 1);
        assert_eq!(top.next(), None);
        assert_eq!(Generation::new(last, 0), None);
        assert_eq!(Generation::new(last, 1 << 48), None);
    }

    #[test]
    fn a_later_epoch_is_newer_than_any_count() {
        let old = Generation::new(Epoch::FIRST, Generation::MAX_COUNT).unwrap();
        let new = Generation::new(Epoch::new(2).unwrap(), 1).unwrap();
        assert!(new > old);
        assert_eq!((new.epoch().get(), new.count()), (2, 1));
        assert_eq!(new.next().unwrap().count(), 2);
        assert_eq!(format!("{new} {new:?}"), "2.1 Generation(2.1)");
    }
}
