//! When the other side must be told, and when this side may sleep.

/// Whether moving an index from `old` to `new` crossed `event`: wrote the entry that the other side asked to be told
/// of (virtio 1.4, sections 2.7.7 and 2.7.10).
///
/// A batch moves the index by more than one, so this tests a range and not for equality. All three wrap at 65536.
#[inline(always)]
pub(crate) fn is_crossed(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
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

    /// An event offset inside a batch's span must be found, also where the index wraps.
    #[test]
    fn an_event_inside_a_batch_is_crossed() {
        assert!(is_crossed(0, 1, 0));
        assert!(!is_crossed(1, 1, 0));
        assert!(is_crossed(3, 8, 0));
        assert!(!is_crossed(8, 8, 0));
        assert!(is_crossed(0xffff, 0, 0xffff));
        assert!(is_crossed(0xfffe, 5, 0xfff0));
        assert!(is_crossed(4, 5, 0xfff0));
        assert!(!is_crossed(5, 5, 0xfff0));
        assert!(!is_crossed(0, 0, 0));
    }

    const MOST: u16 = if cfg!(miri) { 100 } else { 32768 };

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: if cfg!(miri) { 8 } else { 256 },
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn the_range_is_what_was_written(old: u16, moved in 0..=MOST, event: u16) {
            let written = (0..moved).any(|step| old.wrapping_add(step) == event);
            prop_assert_eq!(is_crossed(event, old.wrapping_add(moved), old), written);
        }
    }
}
