//! Event suppression structures: one word by which a side of a ring says when it wants to be told (virtio 1.4,
//! sections 2.8.10 and 2.8.14).

/// An event suppression structure as the one word that both sides access it as: a position in the low half, flags in
/// the high half. What a position means is the ring format's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Suppression(u32);

const FLAGS_SHIFT: u32 = 16;
/// The other flags are reserved.
const FLAGS: u32 = 3;

impl Suppression {
    /// Tell of everything (`RING_EVENT_FLAGS_ENABLE`).
    pub(crate) const ENABLE: Self = Self(0);
    /// Tell of nothing (`RING_EVENT_FLAGS_DISABLE`).
    pub(crate) const DISABLE: Self = Self(1 << FLAGS_SHIFT);
    /// Tell of one descriptor (`RING_EVENT_FLAGS_DESC`).
    const DESC: Self = Self(2 << FLAGS_SHIFT);

    /// Tell of what is made available, or is used, at `position` (`VIRTIO_F_EVENT_IDX`).
    pub(crate) fn at(position: u16) -> Self {
        Self(u32::from(position) | Self::DESC.0)
    }

    #[inline(always)]
    pub(crate) fn from_word(word: u32) -> Self {
        Self(word)
    }

    #[inline(always)]
    pub(crate) fn to_word(self) -> u32 {
        self.0
    }

    /// Whether to tell of a move, given whether that `crossed` the position that was asked for. What makes no sense is
    /// answered with yes: a spurious notification does no harm.
    #[inline(always)]
    pub(crate) fn is_wanted(self, event_idx: bool, crossed: impl FnOnce(u16) -> bool) -> bool {
        if self.0 >> FLAGS_SHIFT & FLAGS == Self::DISABLE.0 >> FLAGS_SHIFT {
            return false;
        }
        if self.0 >> FLAGS_SHIFT & FLAGS != Self::DESC.0 >> FLAGS_SHIFT || !event_idx {
            return true;
        }
        crossed(self.0 as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_answered_and_nonsense_is_told() {
        let wanted = |word, event_idx| {
            Suppression::from_word(word).is_wanted(event_idx, |position| position == 5)
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
        assert!(wanted(2 << 16 | 5, true));
        assert!(wanted(Suppression::at(5).to_word(), true));
    }
}
