//! When the other side must be told, and when this side may sleep.

/// How many entries this side has shown the other one since it last found out whether to tell of them. That may be more
/// than positions tell apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Untold(u64);

impl Untold {
    #[inline(always)]
    pub(crate) const fn new(entries: u64) -> Self {
        Self(entries)
    }

    /// So many more entries were shown.
    #[inline(always)]
    pub(crate) fn add(&mut self, entries: u16) {
        self.0 += u64::from(entries);
    }

    #[inline(always)]
    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether the entry is among them that so many were shown after: if the other side asked to be told of it, this is
    /// the time (virtio 1.4, sections 2.7.7, 2.7.10 and 2.8.10). They are a range, and any of them may be the one.
    #[inline(always)]
    pub(crate) fn includes(self, shown_after: u16) -> bool {
        u64::from(shown_after) < self.0
    }

    /// The same, for the entry `event` of a ring whose positions run freely, and wrap at 65536; `next` is shown next.
    #[inline(always)]
    pub(crate) fn includes_entry(self, event: u16, next: u16) -> bool {
        self.includes(next.wrapping_sub(event).wrapping_sub(1))
    }
}

/// What was found after notifications were enabled.
#[must_use = "work that came before notifications were enabled is not notified: look again before sleeping"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recheck {
    /// Nothing came meanwhile: the next thing that comes is notified, and this side may sleep.
    Empty,
    /// Something came meanwhile and may not be notified: take it first.
    Ready,
}

impl Recheck {
    /// Whether this side may sleep.
    pub fn is_empty(self) -> bool {
        self == Recheck::Empty
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(entries: u16) -> Untold {
        Untold::new(u64::from(entries))
    }

    /// An event offset inside a batch's span must be found, also where the index wraps.
    #[test]
    fn an_event_inside_a_batch_is_found() {
        assert!(shown(1).includes_entry(0, 1));
        assert!(!shown(1).includes_entry(1, 1));
        assert!(shown(8).includes_entry(3, 8));
        assert!(!shown(8).includes_entry(8, 8));
        assert!(shown(1).includes_entry(0xffff, 0));
        assert!(shown(21).includes_entry(0xfffe, 5));
        assert!(shown(21).includes_entry(4, 5));
        assert!(!shown(21).includes_entry(5, 5));
        assert!(!shown(0).includes_entry(0, 0));
    }

    /// A side may show more than a lap before it asks.
    #[test]
    fn nothing_is_forgotten_however_much_is_shown() {
        let mut untold = Untold::default();
        for _ in 0..5 {
            untold.add(32768);
        }
        assert!(!untold.is_empty());
        for event in [0, 1, 32767, 32768, 65535] {
            assert!(untold.includes_entry(event, 32768));
        }
    }

    const LONGEST: u16 = if cfg!(miri) { 100 } else { 32768 };

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: if cfg!(miri) { 8 } else { 256 },
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn the_range_is_what_was_written(old: u16, moved in 0..=LONGEST, event: u16) {
            let written = (0..moved).any(|step| old.wrapping_add(step) == event);
            let next = old.wrapping_add(moved);
            prop_assert_eq!(shown(moved).includes_entry(event, next), written);
        }
    }
}
