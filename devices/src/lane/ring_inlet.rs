//! Receiving values over a ring.

use core::ops::ControlFlow;
use std::collections::VecDeque;

use shmbus_shm::Notify;
use shmbus_table::{Generation, Value};

use super::Reading;
use super::element::{MOST_BYTES, decode};
use super::ends::{RingError, Source};

/// The end of a ring out of which values come.
#[derive(Debug)]
pub(crate) struct RingInlet<V, S> {
    source: S,
    reading: Reading,
    /// Each slot's newest generation, as its word.
    last: Vec<u64>,
    /// The newest value of each slot that was drained and not handed on; of [`Reading::Last`].
    drained: Vec<Option<(V, Generation)>>,
    /// Those slots, each once.
    changed: VecDeque<u32>,
}

impl<V: Value, S: Source> RingInlet<V, S> {
    pub(super) fn new(source: S, slots: u32, reading: Reading) -> Self {
        let slots = slots as usize;
        let drained = match reading {
            Reading::Every => 0,
            Reading::Last => slots,
        };
        Self {
            source,
            reading,
            last: vec![0; slots],
            drained: std::iter::repeat_with(|| None).take(drained).collect(),
            changed: VecDeque::with_capacity(drained),
        }
    }

    /// Hands on at most `limit` values; whether there may be more.
    pub(super) fn take(
        &mut self,
        limit: usize,
        visit: impl FnMut(u32, V, Generation) -> ControlFlow<()>,
    ) -> Result<bool, RingError> {
        match self.reading {
            Reading::Every => self.take_every(limit, visit),
            Reading::Last => self.take_last(limit, visit),
        }
    }

    /// As many as the ring holds: what was there when the call began.
    pub(super) fn catch_up(
        &mut self,
        visit: impl FnMut(u32, V, Generation) -> ControlFlow<()>,
    ) -> Result<(), RingError> {
        let limit = match self.reading {
            Reading::Every => usize::from(self.source.size()),
            Reading::Last => self.last.len(),
        };
        self.take(limit, visit).map(drop)
    }

    pub(super) fn flush(&mut self) -> Notify {
        self.source.publish()
    }

    pub(super) fn close(mut self) {
        self.source.reset();
    }

    fn take_every(
        &mut self,
        limit: usize,
        mut visit: impl FnMut(u32, V, Generation) -> ControlFlow<()>,
    ) -> Result<bool, RingError> {
        // What the ring holds, and a look at whether that was all: a sender that is faster must not keep this side taking.
        let most = usize::from(self.source.size()) + 1;
        for _ in 0..limit.clamp(1, most) {
            let Some((slot, value, generation)) = self.next()? else {
                return Ok(false);
            };
            if visit(slot, value, generation).is_break() {
                break;
            }
        }
        Ok(true)
    }

    fn take_last(
        &mut self,
        limit: usize,
        mut visit: impl FnMut(u32, V, Generation) -> ControlFlow<()>,
    ) -> Result<bool, RingError> {
        // A ring's worth at most: a sender that is faster must not keep this side draining.
        let mut more = true;
        for _ in 0..self.source.size() {
            let Some((slot, value, generation)) = self.next()? else {
                more = false;
                break;
            };
            // The slot is below their number: it was decoded.
            if self.drained[slot as usize]
                .replace((value, generation))
                .is_none()
            {
                self.changed.push_back(slot);
            }
        }
        for _ in 0..limit.max(1) {
            let Some(slot) = self.changed.pop_front() else {
                return Ok(more);
            };
            if let Some((value, generation)) = self.drained[slot as usize].take()
                && visit(slot, value, generation).is_break()
            {
                break;
            }
        }
        Ok(more || !self.changed.is_empty())
    }

    fn next(&mut self) -> Result<Option<(u32, V, Generation)>, RingError> {
        let mut bytes = [0; MOST_BYTES];
        if !self.source.next(&mut bytes)? {
            return Ok(None);
        }
        Ok(Some(decode(&bytes, &mut self.last)?))
    }
}
