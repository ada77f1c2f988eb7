//! Positions in the ring, with their wrap counters.

use core::hint;

use super::areas::{AVAILABLE, USED};
use crate::event::Untold;

/// A place in the ring and the lap it is in (virtio 1.4, section 2.8.1), as one word: the offset, below the ring's size, in
/// bits 0 to 15; and for the wrap counter the two flags of a descriptor's second word, as they say there that it is
/// available in this lap: AVAIL as the wrap counter, USED its inverse. So flags are compared without a branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor(u64);

impl Default for Cursor {
    fn default() -> Self {
        Self::ORIGIN
    }
}

/// The flags. All of them change from lap to lap.
const MARKS: u64 = AVAILABLE | USED;

impl Cursor {
    /// Where both sides start.
    pub(super) const ORIGIN: Self = Self(AVAILABLE);

    /// As notifications and event suppression structures carry it: the offset in bits 0 to 14, the wrap counter in
    /// bit 15 (virtio 1.4, sections 2.8.14 and 2.9).
    #[inline(always)]
    pub(super) const fn to_bits(self) -> u16 {
        self.offset() | if self.wrap() { 0x8000 } else { 0 }
    }

    /// The position, if a ring of `size` descriptors has it.
    pub(super) const fn from_bits(bits: u16, size: u16) -> Option<Self> {
        let offset = Self::offset_of(bits);
        if offset >= size {
            return None;
        }
        let mark = if bits & 0x8000 != 0 { AVAILABLE } else { USED };
        Some(Self(offset as u64 | mark))
    }

    /// Which descriptor the position `bits` names.
    #[inline(always)]
    pub(super) const fn offset_of(bits: u16) -> u16 {
        bits & 0x7fff
    }

    /// Which descriptor this is.
    #[inline(always)]
    pub(super) const fn offset(self) -> u16 {
        self.0 as u16
    }

    #[inline(always)]
    const fn wrap(self) -> bool {
        self.0 & AVAILABLE != 0
    }

    /// What the two flags of a descriptor say that is available here and now.
    #[inline(always)]
    pub(super) const fn available_mark(self) -> u64 {
        self.0 & MARKS
    }

    /// What the two flags of a descriptor say that is used here and now: both the wrap counter.
    #[inline(always)]
    pub(super) const fn used_mark(self) -> u64 {
        (self.0 ^ USED) & MARKS
    }

    /// Whether a descriptor's second word says that it is available here and now.
    #[inline(always)]
    pub(super) const fn is_available_in(self, word: u64) -> bool {
        (self.0 ^ word) & MARKS == 0
    }

    /// Whether a descriptor's second word says that it is used here and now.
    #[inline(always)]
    pub(super) const fn is_used_in(self, word: u64) -> bool {
        (self.0 ^ word) & MARKS == USED
    }

    /// The position `count` descriptors on, at most as many as the ring has.
    #[inline(always)]
    pub(super) fn forward(self, count: u16, size: u16) -> Self {
        // The offset becomes 32767 + 32768 at most, and does not leave its bits.
        let on = Self(self.0 + u64::from(count));
        if on.offset() < size {
            return on;
        }
        // Once a lap. A branch that is foreseen lets the next descriptor be looked at while this one is worked on, and a
        // conditional move would not.
        hint::cold_path();
        Self((on.0 - u64::from(size)) ^ MARKS)
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
        for size in 1..=if cfg!(miri) { 2 } else { 5 } {
            let mut old = Cursor::ORIGIN;
            for _ in 0..2 * size {
                for shown in 0..=5 * size {
                    let untold = Untold::new(u64::from(shown));
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
