//! What a side has written and not yet published.

use core::sync::atomic::Ordering::{Relaxed, Release};

use shmbus_shm::Window;

use super::areas::{Descriptors, State};
use super::cursor::Cursor;
use crate::event::Untold;

/// Descriptors that the other side has not seen, or of which nobody knows yet whether it must be told.
///
/// Of those that it has not seen, it looks at the first alone. So that one's state is kept here, and is stored last, when
/// all that follows is there (virtio 1.4, section 2.8.17).
#[derive(Debug)]
pub(super) struct Unpublished {
    /// Where the next descriptor goes.
    next: Cursor,
    /// The first descriptor that is not shown.
    from: Cursor,
    /// The state of the first that is not shown.
    first: State,
    /// How many descriptors were written since the start.
    written: u64,
    /// How many of them were shown.
    shown: u64,
    /// Of how many of them it was found out whether to tell.
    told: u64,
}

impl Unpublished {
    /// Nothing, and the next descriptor goes to `position`.
    pub(super) fn starting_at(position: Cursor) -> Self {
        Self {
            next: position,
            from: position,
            first: State::new(0, 0, 0, 0),
            written: 0,
            shown: 0,
            told: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.written == self.told
    }

    /// Where the next descriptor goes.
    #[inline(always)]
    pub(super) fn next(&self) -> Cursor {
        self.next
    }

    /// The first descriptor that is not shown.
    #[inline(always)]
    pub(super) fn from(&self) -> Cursor {
        self.from
    }

    /// How many descriptors were shown since the start.
    #[inline(always)]
    pub(super) fn shown(&self) -> u64 {
        self.shown
    }

    /// Writes the next descriptor's state, and goes on `count` descriptors behind it.
    #[inline(always)]
    pub(super) fn write<W: Window>(
        &mut self,
        descriptors: &Descriptors<W>,
        state: State,
        count: u16,
        size: u16,
    ) {
        if self.written == self.shown {
            self.first = state;
        } else {
            descriptors.store_state(self.next, state, Relaxed);
        }
        self.next = self.next.forward(count, size);
        self.written += u64::from(count);
    }

    /// Shows the other side all that was written.
    #[inline(always)]
    pub(super) fn show<W: Window>(&mut self, descriptors: &Descriptors<W>) {
        if self.written == self.shown {
            return;
        }
        self.shown = self.written;
        let from = core::mem::replace(&mut self.from, self.next);
        // Release: whoever sees the first descriptor sees its address, all descriptors behind it, and the buffers' bytes.
        // Its length, id and flags are one store, so none can be seen without the others.
        descriptors.store_state(from, self.first, Release);
    }

    /// What was shown since the last call.
    #[inline(always)]
    pub(super) fn take_untold(&mut self) -> Untold {
        let told = core::mem::replace(&mut self.told, self.shown);
        Untold::new(self.shown - told)
    }
}
