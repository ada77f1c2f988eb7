//! Positions in the ring, with their wrap counters.

use super::areas::{AVAILABLE, USED};
use crate::event::Untold;

/// A place in the ring and the lap it is in (virtio 1.4, section 2.8.1): the offset, below the ring's size, in bits 0
/// to 15, and the wrap counter in bit 16. It is one word so that it is stored and loaded as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor(u32);

const OFFSET: u32 = WRAP - 1;
const WRAP: u32 = 1 << 16;

impl Cursor {
    /// Where both sides start.
    pub(super) const ORIGIN: Self = Self(WRAP);

    /// As notifications and event suppression structures carry it: the offset in bits 0 to 14, the wrap counter in
    /// bit 15 (virtio 1.4, sections 2.8.14 and 2.9).
    pub(super) const fn to_bits(self) -> u16 {
        (self.0 & OFFSET | self.0 >> 1 & 0x8000) as u16
    }

    /// The position, if a ring of `size` descriptors has it.
    pub(super) const fn from_bits(bits: u16, size: u16) -> Option<Self> {
        let offset = Self::offset_of(bits);
        if offset < size {
            Some(Self(offset as u32 | (bits as u32 & 0x8000) << 1))
        } else {
            None
        }
    }

    /// Which descriptor the position `bits` names.
    #[inline(always)]
    pub(super) const fn offset_of(bits: u16) -> u16 {
        bits & 0x7fff
    }

    /// Which descriptor this is.
    #[inline(always)]
    pub(super) fn offset(self) -> u16 {
        self.0 as u16
    }

    #[inline(always)]
    fn wrap(self) -> bool {
        self.0 & WRAP != 0
    }

    /// What the two flags of a descriptor say that is available here and now.
    #[inline(always)]
    pub(super) fn available_mark(self) -> u64 {
        if self.wrap() { AVAILABLE } else { USED }
    }

    /// What the two flags of a descriptor say that is used here and now.
    #[inline(always)]
    pub(super) fn used_mark(self) -> u64 {
        if self.wrap() { AVAILABLE | USED } else { 0 }
    }

    /// The position `count` descriptors on, at most as many as the ring has.
    #[inline(always)]
    pub(super) fn forward(self, count: u16, size: u16) -> Self {
        // The offset becomes 32767 + 32768 at most, and does not reach the wrap counter.
        let on = self.0 + u32::from(count);
        if on & OFFSET < u32::from(size) {
            Self(on)
        } else {
            Self((on - u32::from(size)) ^ WRAP)
        }
    }

    /// How many descriptors `later` lies behind this position, below twice the ring's size: two laps are all that
    /// wrap counters tell apart.
    pub(super) fn distance_to(self, later: Self, size: u16) -> u32 {
        let linear =
            |at: Self| u32::from(at.offset()) + if at.wrap() { 0 } else { u32::from(size) };
        let (from, to) = (linear(self), linear(later));
        if from <= to {
            to - from
        } else {
            to + 2 * u32::from(size) - from
        }
    }

    /// Whether the descriptor at `event`, as an event suppression structure carries it, is one of those that were shown
    /// in front of this position: in one of the two laps that wrap counters tell apart. A position that the ring does not
    /// have counts as one of them.
    #[inline]
    pub(super) fn is_told_of(self, event: u16, untold: Untold, size: u16) -> bool {
        let Some(event) = Self::from_bits(event, size) else {
            return true;
        };
        let shown_after = match event.distance_to(self, size) {
            0 => 2 * u32::from(size) - 1,
            distance => distance - 1,
        };
        untold.includes(shown_after as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_goes_round_and_its_lap_changes_at_the_end() {
        for size in [1, 2, 3, 7, 32768] {
            for count in [0, 1, 2, size / 2, size - 1, size] {
                let count = count.min(size);
                let mut at = Cursor::ORIGIN;
                let mut total = 0_u32;
                for _ in 0..20 {
                    let next = at.forward(count, size);
                    total += u32::from(count);
                    assert_eq!(u32::from(next.offset()), total % u32::from(size));
                    assert_eq!(next.wrap(), (total / u32::from(size)).is_multiple_of(2));
                    assert_eq!(at.distance_to(next, size), u32::from(count));
                    let back = (2 * u32::from(size) - u32::from(count)) % (2 * u32::from(size));
                    assert_eq!(next.distance_to(at, size), back);
                    at = next;
                }
            }
        }
    }

    #[test]
    fn bits_name_positions_that_the_ring_has() {
        assert_eq!(Cursor::ORIGIN.to_bits(), 0x8000);
        assert_eq!(Cursor::from_bits(0x8000, 1), Some(Cursor::ORIGIN));
        for (bits, size) in [(2, 3), (0x8002, 3), (0x7fff, 32768), (0xffff, 32768)] {
            assert_eq!(Cursor::from_bits(bits, size).unwrap().to_bits(), bits);
        }
        for (bits, size) in [(3, 3), (0x8003, 3), (0x7fff, 32767)] {
            assert_eq!(Cursor::from_bits(bits, size), None);
        }
    }

    /// Every event position against every move in small rings, counted out descriptor by descriptor. A side may show
    /// more than two laps before it asks.
    #[test]
    fn an_event_is_told_of_when_it_is_in_what_was_shown() {
        for size in 1..=5 {
            let mut old = Cursor::ORIGIN;
            for _ in 0..2 * size {
                for shown in 0..=5 * size {
                    let mut untold = Untold::default();
                    untold.add(shown);
                    let next = (0..shown).fold(old, |at, _| at.forward(1, size));
                    let mut event = Cursor::ORIGIN;
                    for _ in 0..2 * size {
                        let mut at = old;
                        let written = (0..shown).any(|_| {
                            let here = at;
                            at = at.forward(1, size);
                            here == event
                        });
                        assert_eq!(next.is_told_of(event.to_bits(), untold, size), written);
                        event = event.forward(1, size);
                    }
                }
                old = old.forward(1, size);
            }
        }
        let untold = Untold::default();
        assert!(Cursor::ORIGIN.is_told_of(0x8004, untold, 4), "no such one");
    }

    /// Virtio 1.4, section 2.8.1: available is "AVAIL as the wrap counter, USED its inverse", used "both as the
    /// counter".
    #[test]
    fn marks_alternate_from_lap_to_lap() {
        let first = Cursor::ORIGIN;
        let second = first.forward(3, 3);
        assert_eq!(first.available_mark(), 1 << (48 + 7));
        assert_eq!(first.used_mark(), 1 << (48 + 7) | 1 << (48 + 15));
        assert_eq!(second.available_mark(), 1 << (48 + 15));
        assert_eq!(second.used_mark(), 0);
    }
}
