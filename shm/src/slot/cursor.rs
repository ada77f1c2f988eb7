//! What each side keeps of a slot in its own memory: one word.

use super::generation::{Epoch, Generation};
use super::reader::ReadError;
use super::writer::PublishError;

/// Bits below the epoch's.
const EPOCH_SHIFT: u32 = 48;

/// A reader's private place in a slot's history: the generation it was given last.
///
/// One word, so that a caller without an allocator can keep cursors in plain `u64` storage. A new one is cold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct ReadCursor(
    /// Zero when cold; a bare epoch, count 0, after that epoch was announced as a restart.
    u64,
);

impl ReadCursor {
    /// The cursor that [`ReadCursor::word`] gave; 0 is a cold one.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// The cursor as a word to be stored.
    #[inline(always)]
    pub const fn word(self) -> u64 {
        self.0
    }

    /// The generation that was returned last in the current epoch.
    #[inline(always)]
    pub const fn generation(self) -> Option<Generation> {
        Generation::from_word(self.0)
    }

    #[inline(always)]
    pub(super) fn advance(&mut self, to: Generation) {
        self.0 = to.word();
    }

    /// Judges a head word: may this reader go on to the generation it names?
    #[inline(always)]
    pub(super) fn accept(&mut self, head: u64) -> Result<Generation, ReadError> {
        let Some(found) = Generation::from_word(head) else {
            return Err(if head == 0 {
                ReadError::NeverWritten
            } else {
                ReadError::NoGeneration { word: head }
            });
        };
        if head ^ self.0 >= 1 << EPOCH_SHIFT && self.0 != 0 {
            return Err(self.announce_restart(found));
        }
        match self.generation() {
            Some(last) if found < last => Err(ReadError::Backwards { last, found }),
            _ => Ok(found),
        }
    }

    #[cold]
    fn announce_restart(&mut self, found: Generation) -> ReadError {
        let epoch = (self.0 >> EPOCH_SHIFT) as u16;
        self.0 = u64::from(found.epoch().get()) << EPOCH_SHIFT;
        match Epoch::new(epoch) {
            Some(from) => ReadError::Restarted {
                from,
                to: found.epoch(),
            },
            // Only a word that no cursor ever gave has no epoch.
            None => ReadError::NoGeneration { word: 0 },
        }
    }
}

/// A writer's private place in a slot's history: the generation it wrote last. It is never read back from shared
/// memory, but after a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct WriteCursor(
    /// Epoch and count; the count is 0 before the first value.
    u64,
);

impl WriteCursor {
    /// Before a slot's first value, in `epoch`.
    pub const fn new(epoch: Epoch) -> Self {
        Self((epoch.get() as u64) << EPOCH_SHIFT)
    }

    /// After `last`, which an earlier writer wrote to the same copies: the count goes on in the new epoch, so that the
    /// next value goes to the copy that `last` does not lie in.
    pub const fn after(last: Generation, epoch: Epoch) -> Self {
        Self((epoch.get() as u64) << EPOCH_SHIFT | last.count())
    }

    /// The cursor that [`WriteCursor::word`] gave.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// The cursor as a word to be stored.
    #[inline(always)]
    pub const fn word(self) -> u64 {
        self.0
    }

    /// The generation that was written last in this epoch.
    pub const fn generation(self) -> Option<Generation> {
        Generation::from_word(self.0)
    }

    /// The generation to be written next, if the count goes so far.
    #[inline(always)]
    pub const fn next(self) -> Option<Generation> {
        if self.0 & Generation::MAX_COUNT == Generation::MAX_COUNT {
            return None;
        }
        Generation::from_word(self.0 + 1)
    }

    /// That `generation` can come next, with others passed over.
    pub(super) fn check_later(self, generation: Generation) -> Result<(), PublishError> {
        if generation.word() <= self.0 {
            return Err(PublishError::NotLater {
                last: self.0,
                asked: generation,
            });
        }
        Ok(())
    }

    #[inline(always)]
    pub(super) fn advance(&mut self, to: Generation) {
        self.0 = to.word();
    }
}
