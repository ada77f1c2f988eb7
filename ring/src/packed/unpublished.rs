//! What a side has written and not yet published.

use core::sync::atomic::Ordering::{Relaxed, Release};

use shmbus_shm::Window;

use super::areas::{Descriptors, State};
use super::cursor::Cursor;

/// Descriptors behind which the other side has not seen anything yet. It looks at the first one alone, so that one's
/// state is kept here and is stored last, when all that follows is there (virtio 1.4, section 2.8.17).
#[derive(Debug)]
pub(super) struct Unpublished {
    /// Where the next descriptor goes.
    next: Cursor,
    /// The first descriptor that is not published.
    from: Cursor,
    /// By how many descriptors `next` is ahead of it.
    count: u16,
    /// The state of the first of them.
    first: State,
}

/// A run of descriptors that was published.
#[derive(Clone, Copy, Debug)]
pub(super) struct Published {
    pub(super) from: Cursor,
    pub(super) count: u16,
}

impl Unpublished {
    /// Nothing, and the next descriptor goes to `position`.
    pub(super) fn starting_at(position: Cursor) -> Self {
        Self {
            next: position,
            from: position,
            count: 0,
            first: State::new(0, 0, 0, 0),
        }
    }

    /// Where the next descriptor goes.
    #[inline(always)]
    pub(super) fn next(&self) -> Cursor {
        self.next
    }

    /// The first descriptor that is not published.
    #[inline(always)]
    pub(super) fn from(&self) -> Cursor {
        self.from
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
        if self.count == 0 {
            self.first = state;
        } else {
            descriptors.store_state(self.next, state, Relaxed);
        }
        self.next = self.next.forward(count, size);
        self.count += count;
    }

    /// Shows the other side all that was written, if there is anything.
    #[inline(always)]
    pub(super) fn publish<W: Window>(&mut self, descriptors: &Descriptors<W>) -> Option<Published> {
        let count = core::mem::take(&mut self.count);
        if count == 0 {
            return None;
        }
        let from = core::mem::replace(&mut self.from, self.next);
        // Release: whoever sees the first descriptor sees its address, all descriptors behind it, and the buffers' bytes.
        // Its length, id and flags are one store, so none can be seen without the others.
        descriptors.store_state(from, self.first, Release);
        Some(Published { from, count })
    }
}
