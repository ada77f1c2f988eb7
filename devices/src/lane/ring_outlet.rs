//! Sending values over a ring.

use std::collections::VecDeque;

use shmbus_shm::Notify;
use shmbus_table::{Generation, Value};

use super::element::{MOST_BYTES, element_bytes, encode, next_generation};
use super::ends::{RingError, Sink};
use super::outlet::OutletError;

/// What a sender does with a value for which the ring has no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WhenFull {
    /// It keeps the newest of each slot, and posts that when there is room.
    KeepNewest,
    /// It refuses: the caller waits for the other side, and tries again.
    Refuse,
}

/// The end of a ring into which values go.
#[derive(Debug)]
pub(crate) struct RingOutlet<V, K> {
    sink: K,
    when_full: WhenFull,
    /// Each slot's newest generation, as its word.
    last: Vec<u64>,
    /// The newest value of each slot that waits for room.
    waiting: Vec<Option<V>>,
    /// The slots that wait, each once, the one that has waited longest first.
    queue: VecDeque<u32>,
}

impl<V: Value, K: Sink> RingOutlet<V, K> {
    pub(super) fn new(sink: K, slots: u32, when_full: WhenFull) -> Self {
        let slots = slots as usize;
        Self {
            sink,
            when_full,
            last: vec![0; slots],
            waiting: std::iter::repeat_with(|| None).take(slots).collect(),
            queue: VecDeque::with_capacity(slots),
        }
    }

    pub(super) fn slots(&self) -> u32 {
        self.last.len() as u32
    }

    pub(super) fn place(&mut self, slot: u32, value: V) -> Result<Generation, OutletError> {
        self.place_or(self.when_full, slot, value)
    }

    /// As `place`, but a value for which there is no room is kept, whatever is done otherwise.
    pub(super) fn keep(&mut self, slot: u32, value: V) -> Result<Generation, OutletError> {
        self.place_or(WhenFull::KeepNewest, slot, value)
    }

    fn place_or(
        &mut self,
        when_full: WhenFull,
        slot: u32,
        value: V,
    ) -> Result<Generation, OutletError> {
        let slots = self.slots();
        let last = self.last.get(slot as usize).copied();
        let last = last.ok_or(OutletError::NoSuchSlot { slot, slots })?;
        let generation = next_generation(last).ok_or(OutletError::UsedUp { slot })?;
        match when_full {
            WhenFull::Refuse => {
                // What waits goes out first, with a flush that says whom to tell.
                let is_placed = self.queue.is_empty()
                    && (self.post(slot, generation, &value)?
                        || self.sink.wait_for_room()? && self.post(slot, generation, &value)?);
                if !is_placed {
                    return Err(OutletError::Full);
                }
                self.last[slot as usize] = generation.word();
            }
            WhenFull::KeepNewest => {
                self.post_waiting()?;
                let is_placed = self.queue.is_empty() && self.post(slot, generation, &value)?;
                self.last[slot as usize] = generation.word();
                if !is_placed {
                    if self.waiting[slot as usize].replace(value).is_none() {
                        self.queue.push_back(slot);
                    }
                    if self.sink.wait_for_room()? {
                        self.post_waiting()?;
                    }
                }
            }
        }
        Ok(generation)
    }

    /// Posts what waits and has room, then shows the other side what was placed.
    pub(super) fn flush(&mut self) -> Result<Notify, OutletError> {
        self.post_waiting()?;
        Ok(self.sink.publish())
    }

    /// How many slots have a value that waits for room.
    pub(super) fn waiting(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn close(mut self) {
        self.sink.reset();
    }

    fn post_waiting(&mut self) -> Result<(), RingError> {
        while let Some(&slot) = self.queue.front() {
            let index = slot as usize;
            // What waits has a value and a generation.
            if let Some(value) = self.waiting[index].take()
                && let Some(generation) = Generation::from_word(self.last[index])
                && !self.post(slot, generation, &value)?
            {
                self.waiting[index] = Some(value);
                if !self.sink.wait_for_room()? {
                    return Ok(());
                }
                continue;
            }
            self.queue.pop_front();
        }
        Ok(())
    }

    fn post(&mut self, slot: u32, generation: Generation, value: &V) -> Result<bool, RingError> {
        let mut bytes = [0; MOST_BYTES];
        encode(slot, generation, value, &mut bytes);
        self.sink.place(&bytes[..element_bytes::<V>()])
    }
}
