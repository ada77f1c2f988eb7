//! One direction of a ring.

use std::collections::VecDeque;

use shmbus_ring::{PATIENCE, Recheck};
use shmbus_shm::Notify;

use crate::rules::Rules;

/// What a reader asked to be told of.
#[derive(Clone, Copy, Debug)]
enum Wish {
    Everything,
    Nothing,
    /// The entry (`VIRTIO_F_EVENT_IDX`).
    Entry(u64),
}

/// What was placed and published in one direction of the ring, and what its reader asked for. Positions are counted
/// in entries, without wrapping, from the start on.
#[derive(Debug)]
pub(crate) struct Direction<E> {
    rules: Rules,
    event_idx: bool,
    /// Each with the entries that it takes up.
    pub(crate) placed: Vec<(E, u64)>,
    published: VecDeque<(E, u64)>,
    /// How many chains the reader may still take.
    batch: usize,
    /// How many of them it can take in any case, once they are published.
    promised: usize,
    /// How many polls in a row overlooked something.
    overlooked: u16,
    index: u64,
    /// Up to which index it was found out whether the reader must be told.
    told: u64,
    taken: u64,
    wish: Wish,
}

impl<E> Direction<E> {
    pub(crate) fn new(rules: Rules, event_idx: bool) -> Self {
        Self {
            rules,
            event_idx,
            placed: Vec::new(),
            published: VecDeque::new(),
            batch: 0,
            promised: 0,
            overlooked: 0,
            index: 0,
            told: 0,
            taken: 0,
            wish: if event_idx && !rules.starts_enabled {
                Wish::Entry(0)
            } else {
                Wish::Everything
            },
        }
    }

    /// Whether something is published and not taken.
    pub(crate) fn has_published(&self) -> bool {
        !self.published.is_empty()
    }

    /// The reader lives on, from a state: it has begun no batch, and asks as at the start.
    pub(crate) fn restore_reader(&mut self) {
        self.batch = 0;
        self.promised = 0;
        self.overlooked = 0;
        self.wish = if self.event_idx && !self.rules.starts_enabled {
            Wish::Entry(self.taken)
        } else {
            Wish::Everything
        };
    }

    /// What the reader took last is there to be taken once more.
    pub(crate) fn give_back(&mut self, element: E, entries: u64) {
        self.published.push_front((element, entries));
        self.taken -= entries;
    }

    pub(crate) fn expose(&mut self) {
        self.index += self.placed.iter().map(|(_, entries)| entries).sum::<u64>();
        self.published.extend(self.placed.drain(..));
    }

    /// Whether all is published that was placed, and its reader told.
    pub(crate) fn is_published(&self) -> bool {
        self.placed.is_empty() && self.told == self.index
    }

    pub(crate) fn publish(&mut self) -> Notify {
        self.expose();
        let old = std::mem::replace(&mut self.told, self.index);
        let lap = self.rules.lap;
        let wanted = match self.wish {
            Wish::Everything => old != self.index,
            Wish::Nothing => false,
            Wish::Entry(event) => (old..self.index).any(|entry| entry % lap == event % lap),
        };
        if wanted { Notify::Yes } else { Notify::No }
    }

    /// Checks what a poll answered. `most` is how many chains a batch may have where the poll does not know their number.
    pub(crate) fn poll(&mut self, answer: u16, most: usize) {
        let (answer, known) = (usize::from(answer), self.published.len());
        if self.rules.counts {
            assert_eq!(answer, known);
        }
        assert_eq!(answer > 0, known > 0);
        // A poll that finds nothing begins no batch: what comes behind it waits for the next one.
        self.begin_batch(answer, most);
        self.promised = self.batch;
        self.overlooked = 0;
    }

    /// Checks what a poll answered that may overlook things, and may begin a shorter batch.
    pub(crate) fn spin(&mut self, answer: u16, most: usize) {
        self.begin_batch(usize::from(answer), most);
        self.promised = usize::from(answer);
        self.overlooked = if answer == 0 && !self.published.is_empty() {
            self.overlooked + 1
        } else {
            0
        };
        assert!(self.overlooked <= PATIENCE, "overlooked for ever");
    }

    fn begin_batch(&mut self, answer: usize, most: usize) {
        assert!(answer <= self.published.len());
        self.batch = if self.rules.counts || answer == 0 {
            answer
        } else {
            most
        };
    }

    /// Checks whether the reader got something, as it did; returns it.
    pub(crate) fn take(&mut self, got: bool) -> Option<E> {
        if !got {
            let more = self.promised.min(self.published.len());
            assert_eq!(more, 0, "there is more");
            return None;
        }
        assert!(self.batch > 0, "behind the batch's end");
        let (element, entries) = self.published.pop_front().expect("out of nowhere");
        self.batch -= 1;
        self.promised = self.promised.saturating_sub(1);
        self.taken += entries;
        Some(element)
    }

    pub(crate) fn disable(&mut self) {
        if self.rules.disables || !self.event_idx {
            self.wish = Wish::Nothing;
        }
    }

    pub(crate) fn enable(&mut self, count: u64) -> Recheck {
        let count = if self.event_idx { count } else { 1 };
        self.wish = if self.event_idx {
            Wish::Entry(self.taken + count - 1)
        } else {
            Wish::Everything
        };
        // Who does not know their number takes what is there first.
        let enough = if self.rules.counts { count } else { 1 };
        if (self.published.len() as u64) < enough {
            Recheck::Empty
        } else {
            Recheck::Ready
        }
    }
}
