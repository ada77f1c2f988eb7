//! What a reader says it has pinned.

use core::sync::atomic::Ordering::{Relaxed, Release};

use crate::field::Entries;
use crate::window::Window;

/// The announcement of one reader for one slot, a word in a dense array in the reader's own memory: 0 for nothing, else the
/// number of the pinned copy and one.
#[derive(Debug)]
pub struct AnnouncementAt<'a, A> {
    words: &'a Entries<u64, A>,
    index: usize,
}

impl<A> Clone for AnnouncementAt<'_, A> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<A> Copy for AnnouncementAt<'_, A> {}

impl<'a, A: Window> AnnouncementAt<'a, A> {
    /// The announcement at `index` modulo the array's length.
    #[inline(always)]
    pub fn new(words: &'a Entries<u64, A>, index: usize) -> Self {
        Self { words, index }
    }

    /// The copy announced, as a bit; no bit if the word, which may be anything, names none of `copies`.
    #[inline(always)]
    pub(super) fn load(&self, copies: usize) -> u64 {
        match self.words.load(self.index, Relaxed) {
            word if (1..=copies as u64).contains(&word) => 1 << (word - 1),
            _ => 0,
        }
    }

    /// Announces `copy`. What orders this is the fence behind it.
    #[inline(always)]
    pub(super) fn pin(&self, copy: u64) {
        self.words.store(self.index, copy + 1, Relaxed);
    }

    /// Release: the writer that finds this overwrites the copy only after what was read from it.
    #[inline(always)]
    pub fn unpin(&self) {
        self.words.store(self.index, 0, Release);
    }
}
