//! The event suppression structures: when the other side must be told (virtio 1.4, sections 2.8.10 and 2.8.14).

use super::cursor::Cursor;

/// An event suppression structure as the one word that both sides access it as: the position in the low half, the
/// flags in the high half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Suppression(u32);

const FLAGS_SHIFT: u32 = 16;
/// The other flags are reserved.
const FLAGS: u32 = 3;

impl Suppression {
    /// Tell of everything (`RING_EVENT_FLAGS_ENABLE`).
    pub(super) const ENABLE: Self = Self(0);
    /// Tell of nothing (`RING_EVENT_FLAGS_DISABLE`).
    pub(super) const DISABLE: Self = Self(1 << FLAGS_SHIFT);
    /// Tell of one descriptor (`RING_EVENT_FLAGS_DESC`).
    const DESC: Self = Self(2 << FLAGS_SHIFT);

    /// Tell of what is made available, or is used, at `position` (`VIRTIO_F_EVENT_IDX`).
    pub(super) fn at(position: Cursor) -> Self {
        Self(u32::from(position.to_bits()) | Self::DESC.0)
    }

    pub(super) fn from_word(word: u32) -> Self {
        Self(word)
    }

    pub(super) fn to_word(self) -> u32 {
        self.0
    }

    /// Whether to tell that the `moved` descriptors from `old` on were made available, or used.
    ///
    /// A chain or a batch moves by more than one, and the position that was asked for may be any of them, so this
    /// tests a range, in both laps that the wrap counter tells apart. What makes no sense is answered with yes: a
    /// spurious notification does no harm.
    #[inline]
    pub(super) fn is_wanted(self, event_idx: bool, old: Cursor, moved: u16, size: u16) -> bool {
        if self.0 >> FLAGS_SHIFT & FLAGS == Self::DISABLE.0 >> FLAGS_SHIFT {
            return false;
        }
        if self.0 >> FLAGS_SHIFT & FLAGS != Self::DESC.0 >> FLAGS_SHIFT || !event_idx {
            return true;
        }
        match Cursor::from_bits(self.0 as u16, size) {
            Some(event) => old.distance_to(event, size) < u32::from(moved),
            None => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every event position against every move in small rings, counted out descriptor by descriptor.
    #[test]
    fn the_range_is_what_was_moved_over_in_this_lap() {
        for size in 1..=5 {
            let mut old = Cursor::ORIGIN;
            for _ in 0..2 * size {
                for moved in 0..=size {
                    let mut event = Cursor::ORIGIN;
                    for _ in 0..2 * size {
                        let written = (0..moved).any(|step| old.forward(step, size) == event);
                        let wish = Suppression::at(event);
                        assert_eq!(wish.is_wanted(true, old, moved, size), written);
                        event = event.forward(1, size);
                    }
                }
                old = old.forward(1, size);
            }
        }
    }

    #[test]
    fn flags_are_answered_and_nonsense_is_told() {
        let wanted = |word, event_idx| {
            Suppression::from_word(word).is_wanted(event_idx, Cursor::ORIGIN, 1, 4)
        };
        for event_idx in [false, true] {
            assert!(wanted(0, event_idx));
            assert!(!wanted(1 << 16, event_idx));
            assert!(wanted(3 << 16, event_idx), "reserved");
            assert!(
                !wanted(0xfffd << 16, event_idx),
                "reserved bits are ignored"
            );
        }
        assert!(!wanted(2 << 16 | 0x8001, true));
        assert!(wanted(2 << 16 | 0x8001, false), "not negotiated");
        assert!(wanted(2 << 16 | 0x8004, true), "no such descriptor");
    }
}
