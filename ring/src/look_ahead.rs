//! How a side that spins looks for what comes, in a ring whose entries both sides write.

use core::hint;

use crate::kept::Kept;

/// How many calls of `poll_spinning` in a row may answer 0 although something came.
pub const PATIENCE: u16 = 64;

/// How far ahead is looked: three eighths of the ring, but no more than so many entries. What is known by one look is
/// fetched at once, and farther is better until the other side runs out of entries.
const FARTHEST: u16 = 96;

/// If that is not even so many entries, it gains nothing.
const NEAREST: u16 = 32;

/// How many entries share a line.
const LINE: usize = 4;

/// How many entries must be ready in a row before it is looked ahead: the fewest, and the most, after looks ahead that
/// served nothing.
const FEWEST: u16 = 16;
const MOST: u16 = 1 << 14;

/// So many times must looks ahead serve before they fail, or it was not worth it.
const WORTH: u16 = 4;

/// What a side that spins has seen.
///
/// Who looks at the entry that the other side is about to write takes its line away, at each look. So an entry some lines
/// on is looked at instead. Once that is ready, so are all before it, as long as the other side writes each entry, in
/// order, and publishes it by itself. One look that is in the way serves all of them then, and their lines are fetched
/// together. Each entry is looked at once more when it is taken: nothing is believed that is not there.
///
/// With few entries under way looking ahead only takes time. So the next entry itself is looked at until many in a row were
/// ready; and again when looks ahead have failed as often as they may.
#[derive(Debug)]
pub(crate) struct LookAhead {
    /// How far ahead is looked, in entries, or the ring's size if it never is.
    distance: u16,
    ahead: bool,
    /// How many entries had been taken when the next was not ready.
    dry: Kept,
    /// How many must be ready in a row from there on.
    needed: Kept,
    /// How many entries will have been taken when no more are known to be ready.
    known: Kept,
    /// How often looks ahead have served, and how often they have failed since.
    served: Kept,
    failed: Kept,
}

impl LookAhead {
    /// For a ring of `size` entries.
    pub(crate) fn new(size: u16) -> Self {
        let part = (u32::from(size) * 3 / 8) as u16;
        Self {
            distance: match part {
                ..NEAREST => size,
                _ => part.min(FARTHEST),
            },
            ahead: false,
            dry: Kept::new(0),
            needed: Kept::new(FEWEST),
            known: Kept::new(0),
            served: Kept::new(0),
            failed: Kept::new(0),
        }
    }

    /// How many entries are ready, as far as it is known: none, one, or many. `taken` counts those that were taken, and
    /// wraps; at most `most` can be ready; `is_ready` looks at one, counted from the next on.
    #[inline(always)]
    pub(crate) fn look(&mut self, taken: u16, most: u16, is_ready: impl Fn(u16) -> bool) -> u16 {
        let taken = Kept::new(taken);
        if self.ahead && most > self.distance {
            return self.look_ahead(taken, is_ready);
        }
        if !is_ready(0) {
            self.dry = taken;
            return 0;
        }
        self.ahead = taken.since(self.dry) >= self.needed.get();
        1
    }

    #[inline(never)]
    fn look_ahead(&mut self, taken: Kept, is_ready: impl Fn(u16) -> bool) -> u16 {
        let known = self.known.since(taken);
        if (1..=self.distance).contains(&known) && is_ready(0) {
            return known;
        }
        if is_ready(self.distance - 1) {
            // A look at each line, and none waits for another: so they come together.
            let lines = (0..self.distance).step_by(LINE);
            if lines.fold(true, |all, entry| all & is_ready(entry)) {
                self.known = taken.after(self.distance);
                self.served.step();
                self.failed = Kept::new(0);
                return self.distance;
            }
        }
        hint::spin_loop();
        self.failed.step();
        if self.failed.get() < PATIENCE {
            return 0;
        }
        self.ahead = false;
        self.dry = taken;
        self.needed = Kept::new(if self.served.get() < WORTH {
            (2 * self.needed.get()).min(MOST)
        } else {
            FEWEST
        });
        self.served = Kept::new(0);
        self.failed = Kept::new(0);
        u16::from(is_ready(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    /// A side that takes what it is told of, and what is ready for it.
    struct Spinning {
        look_ahead: LookAhead,
        taken: u16,
        ready: u16,
        /// Which entries were looked at, counted from the next on.
        looks: RefCell<Vec<u16>>,
    }

    impl Spinning {
        fn new(size: u16) -> Self {
            Self {
                look_ahead: LookAhead::new(size),
                // Counts wrap early on.
                taken: 0xfff0,
                ready: 0,
                looks: RefCell::default(),
            }
        }

        fn poll(&mut self) -> u16 {
            self.looks.borrow_mut().clear();
            let (looks, ready) = (&self.looks, self.ready);
            self.look_ahead.look(self.taken, 256, |entry| {
                looks.borrow_mut().push(entry);
                entry < ready
            })
        }

        fn take(&mut self, entries: u16) {
            self.taken = self.taken.wrapping_add(entries);
            self.ready -= entries;
        }

        /// Has so many entries ready, one after the other, and takes each.
        fn stream(&mut self, entries: u16) {
            for _ in 0..entries {
                self.ready = self.ready.max(1);
                assert_eq!(self.poll().min(1), 1);
                self.take(1);
            }
        }
    }

    #[test]
    fn few_entries_are_looked_at_one_by_one() {
        let mut side = Spinning::new(256);
        for _ in 0..1000 {
            assert_eq!((side.poll(), side.looks.take()), (0, vec![0]));
            side.stream(FEWEST - 1);
            assert_eq!(side.looks.take(), [0]);
        }
    }

    #[test]
    fn many_entries_are_served_by_a_look_at_each_line() {
        let mut side = Spinning::new(256);
        assert_eq!(side.poll(), 0);
        side.stream(FEWEST + 1);
        side.ready = 200;
        for _ in 0..2 {
            assert_eq!(side.poll(), FARTHEST);
            let looks = side.looks.take();
            assert_eq!(looks[0], FARTHEST - 1);
            assert!(looks[1..].iter().copied().eq((0..FARTHEST).step_by(LINE)));
            // Taken one by one, each with a poll.
            for left in (1..FARTHEST).rev() {
                side.take(1);
                assert_eq!((side.poll(), side.looks.take()), (left, vec![0]));
            }
            side.take(1);
        }
        assert_eq!((side.poll(), side.looks.take()), (0, vec![FARTHEST - 1]));
    }

    #[test]
    fn an_entry_is_overlooked_so_often_and_no_more() {
        let mut side = Spinning::new(256);
        assert_eq!(side.poll(), 0);
        side.stream(FEWEST + 1);
        side.ready = 1;
        let mut overlooked = 0;
        while side.poll() == 0 {
            overlooked += 1;
        }
        assert_eq!(overlooked, PATIENCE - 1);
        side.take(1);
        assert_eq!((side.poll(), side.looks.take()), (0, vec![0]));
    }

    /// It becomes rare that something is overlooked where it gains nothing; and where it gained, it is tried again soon.
    #[test]
    #[cfg_attr(
        miri,
        ignore = "arithmetic on private numbers, for hundreds of thousands of steps"
    )]
    fn looking_ahead_adapts() {
        let mut side = Spinning::new(256);
        assert_eq!(side.poll(), 0);
        let mut streams = Vec::new();
        for _ in 0..20 {
            let mut entries = 0;
            side.ready = 1;
            while side.poll() > 0 {
                side.take(1);
                side.ready = 1;
                entries += 1;
            }
            streams.push(entries);
            while side.poll() == 0 {}
            side.take(1);
        }
        assert!(streams[0] <= FEWEST + 1, "{streams:?}");
        assert!(streams[..11].is_sorted(), "{streams:?}");
        assert!(streams[10..].iter().all(|entries| *entries >= MOST));

        for _ in 0..WORTH {
            side.ready = FARTHEST;
            while side.poll() != FARTHEST {
                side.ready = 200;
                side.take(1);
            }
            side.take(FARTHEST);
        }
        side.ready = 0;
        for _ in 0..PATIENCE {
            assert_eq!(side.poll(), 0);
        }
        side.stream(FEWEST + 1);
        side.ready = FARTHEST;
        assert_eq!(side.poll(), FARTHEST);
    }

    /// A batch that is not published: all of it is there but its first entry.
    #[test]
    fn what_lies_behind_an_entry_that_is_not_ready_does_not_count() {
        let mut look_ahead = LookAhead::new(256);
        assert_eq!(look_ahead.look(0, 256, |_| false), 0);
        assert_eq!(look_ahead.look(FEWEST, 256, |_| true), 1);
        for _ in 1..PATIENCE {
            assert_eq!(look_ahead.look(FEWEST, 256, |entry| entry > 0), 0);
        }
        // Known, and then not there: as nobody honest writes it.
        let mut look_ahead = LookAhead::new(256);
        assert_eq!(look_ahead.look(FEWEST, 256, |_| true), 1);
        assert_eq!(look_ahead.look(FEWEST, 256, |_| true), FARTHEST);
        assert_eq!(look_ahead.look(FEWEST + 1, 256, |_| false), 0);
    }

    #[test]
    fn rings_in_which_few_can_be_ready_are_looked_at_entry_by_entry() {
        for (size, most) in [(1, 1), (64, 64), (85, 85), (256, FARTHEST), (32768, 5)] {
            let mut look_ahead = LookAhead::new(size);
            for taken in 0..1000 {
                let at_next = |entry| {
                    assert_eq!(entry, 0);
                    true
                };
                assert_eq!(look_ahead.look(taken, most, at_next), 1);
            }
        }
    }
}
