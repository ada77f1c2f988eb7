//! What an entry says of itself, in one word.

/// An entry's second word: `len` in bits 0 to 31, the tag in bits 32 to 47, the flags NEXT, WRITE and INDIRECT from bit
/// 48 on, the state in bits 62 and 63. The others are reserved.
///
/// It is loaded and stored whole, so that all of it is of one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Label(u64);

const TAG_SHIFT: u32 = 32;
const FLAGS_SHIFT: u32 = 48;
const STATE_SHIFT: u32 = 62;

const AVAILABLE: u64 = 1;
const USED: u64 = 2;
const CLAIMED: u64 = 3;

impl Label {
    /// Nothing lies here, nor behind: whoever reads stops.
    pub(super) const WALL: Self = Self(0);

    /// A descriptor that the driver lends.
    #[inline(always)]
    pub(super) fn available(len: u32, tag: u16, flags: u16) -> Self {
        Self(
            u64::from(len)
                | u64::from(tag) << TAG_SHIFT
                | u64::from(flags) << FLAGS_SHIFT
                | AVAILABLE << STATE_SHIFT,
        )
    }

    /// A completion: the chain that the driver named `tag` is back, with `len` bytes written.
    #[inline(always)]
    pub(super) fn used(len: u32, tag: u16) -> Self {
        Self(u64::from(len) | u64::from(tag) << TAG_SHIFT | USED << STATE_SHIFT)
    }

    /// The device has taken what lay here, and is about to show a completion in its place. Only a device that keeps a
    /// record writes it. Neither side looks at it while both live: to the driver it is one that is not yet used.
    pub(super) const CLAIMED: Self = Self(CLAIMED << STATE_SHIFT);

    #[inline(always)]
    pub(super) fn from_word(word: u64) -> Self {
        Self(word)
    }

    #[inline(always)]
    pub(super) fn to_word(self) -> u64 {
        self.0
    }

    /// Whatever is not stops the device as a wall does.
    #[inline(always)]
    pub(super) fn is_available(self) -> bool {
        self.0 >> STATE_SHIFT == AVAILABLE
    }

    #[inline(always)]
    pub(super) fn is_used(self) -> bool {
        self.0 >> STATE_SHIFT == USED
    }

    pub(super) fn is_claimed(self) -> bool {
        self.0 >> STATE_SHIFT == CLAIMED
    }

    #[inline(always)]
    pub(super) fn len(self) -> u32 {
        self.0 as u32
    }

    #[inline(always)]
    pub(super) fn tag(self) -> u16 {
        (self.0 >> TAG_SHIFT) as u16
    }

    #[inline(always)]
    pub(super) fn flags(self) -> u16 {
        (self.0 >> FLAGS_SHIFT) as u16
    }

    /// Whether one of `flags` is set.
    #[inline(always)]
    pub(super) fn has(self, flags: u16) -> bool {
        self.flags() & flags != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::descriptor::{NEXT, WRITE};

    #[test]
    fn a_label_is_one_word_with_the_state_on_top() {
        let label = Label::available(0x1112_1314, 0x2122, NEXT | WRITE);
        assert_eq!(label.to_word(), 0x4003_2122_1112_1314);
        assert_eq!((label.len(), label.tag()), (0x1112_1314, 0x2122));
        assert!(label.has(NEXT) && label.has(WRITE) && !label.has(4));
        let label = Label::used(u32::MAX, 0xffff);
        assert_eq!(label.to_word(), 0x8000_ffff_ffff_ffff);
        assert_eq!((label.len(), label.tag()), (u32::MAX, 0xffff));
    }

    #[test]
    fn the_state_is_all_that_its_two_bits_say() {
        let states = |word| {
            let label = Label::from_word(word);
            [label.is_available(), label.is_used(), label.is_claimed()]
        };
        for rest in [0, 0x3fff_ffff_ffff_ffff, 7 << FLAGS_SHIFT] {
            assert_eq!(states(rest), [false, false, false]);
            assert_eq!(states(rest | 1 << 62), [true, false, false]);
            assert_eq!(states(rest | 2 << 62), [false, true, false]);
            assert_eq!(states(rest | 3 << 62), [false, false, true]);
        }
        assert_eq!(Label::WALL.to_word(), 0, "zeroed memory is all walls");
        assert_eq!(Label::CLAIMED.to_word(), 3 << 62);
    }
}
