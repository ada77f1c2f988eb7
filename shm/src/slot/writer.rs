//! The writing side of a slot.

use core::sync::atomic::Ordering;

use super::complete;
use super::cursor::WriteCursor;
use super::generation::Generation;
use super::head::HeadStore;
use crate::field::Records;
use crate::window::Window;

/// A value was not published; the slot keeps the previous one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// A value fills its slot, or the rest would be left over from an older one.
    #[error("a value of {found} words was given to a slot of {expected} words")]
    WrongLength {
        /// The slot's payload, in 8-byte words.
        expected: usize,
        /// The value's length, in 8-byte words.
        found: usize,
    },
    /// 2^48 values have been written: the writer must go on under the next epoch, in new memory.
    #[error("the slot's generations are used up; restart the writer under the next epoch")]
    Exhausted,
    /// The generation to be published under is not later than the slot's last one.
    #[error("the slot is at generation {last:#x} and cannot go to {asked}")]
    NotLater {
        /// The writer's place: its epoch and count, as in a generation.
        last: u64,
        /// The generation asked for.
        asked: Generation,
    },
}

/// A slot as its one writer sees it: made of borrowed views for a call or for longer, at no cost.
#[derive(Debug)]
pub struct SlotWriter<'w, W, H> {
    copies: Records<'w, W>,
    head: H,
}

impl<'w, W: Window, H: HeadStore> SlotWriter<'w, W, H> {
    /// The slot with these copies and this head.
    #[inline(always)]
    pub fn new(copies: Records<'w, W>, head: H) -> Self {
        Self { copies, head }
    }

    /// Publishes the next value. Wait-free: `words + 3` stores, and no load.
    ///
    /// # Errors
    ///
    /// [`PublishError`]; nothing was written then.
    #[inline(always)]
    pub fn publish(
        &mut self,
        cursor: &mut WriteCursor,
        value: &[u64],
    ) -> Result<Generation, PublishError> {
        self.check_length(value)?;
        let generation = cursor.next().ok_or(PublishError::Exhausted)?;
        self.write(generation, value);
        cursor.advance(generation);
        Ok(generation)
    }

    /// Publishes `value` as `generation`, which is later than the last one but not always the next: for who passes on
    /// what another writer published, and not all of it. Wait-free: at most twice the stores of
    /// [`SlotWriter::publish`] and one, and no load.
    ///
    /// Where `generation` belongs to the copy that holds the last value, that copy must stay until another is complete. So
    /// the value is published as the generation after the last one first; a reader that finds it there is given an earlier
    /// generation than the value's.
    ///
    /// # Errors
    ///
    /// [`PublishError`]; nothing was written then.
    pub fn publish_as(
        &mut self,
        cursor: &mut WriteCursor,
        generation: Generation,
        value: &[u64],
    ) -> Result<(), PublishError> {
        self.check_length(value)?;
        cursor.check_later(generation)?;
        let last_of_epoch = Generation::MAX_COUNT - self.copies.count();
        if generation.count() > last_of_epoch {
            return Err(PublishError::Exhausted);
        }
        let copy_of = |word: u64| word % self.copies.count();
        if cursor.generation().is_some() && copy_of(cursor.word()) == copy_of(generation.word()) {
            let between = cursor.next().ok_or(PublishError::Exhausted)?;
            self.write(between, value);
            cursor.advance(between);
        }
        // A reader that has the last value looks for news in the copy after it only. If the value does not go there, the
        // copy is marked as being written, with the next generation that will be. Before the head: who is told of the change
        // finds it. Who finds his copy taken by it finds, by the fence of the last write, the head before that one's at
        // least, whose copy is another.
        let following = cursor.word() + 1;
        let passed_over = following.wrapping_sub(generation.word()) % self.copies.count();
        if passed_over != 0 {
            let sequence = 2 * (generation.word() + passed_over) - 1;
            self.copies
                .store_header(following, sequence, Ordering::Relaxed);
        }
        self.write(generation, value);
        cursor.advance(generation);
        Ok(())
    }

    #[inline(always)]
    fn check_length(&self, value: &[u64]) -> Result<(), PublishError> {
        let expected = self.copies.payload_words();
        if value.len() != expected {
            return Err(PublishError::WrongLength {
                expected,
                found: value.len(),
            });
        }
        Ok(())
    }

    /// Writes a generation whose copy does not hold the last value.
    #[inline(always)]
    fn write(&mut self, generation: Generation, value: &[u64]) {
        let copy = generation.word();
        let sequence = complete(generation);
        // Release, so that a reader that finds this copy gone finds the head that was stored before.
        self.copies
            .store_header(copy, sequence - 1, Ordering::Release);
        // A reader that sees a word of the new payload sees, after its own fence, that the sequence has changed.
        self.copies.fence(Ordering::Release);
        self.copies.store_payload(copy, value);
        self.copies.store_header(copy, sequence, Ordering::Release);
        self.head.store(generation);
    }

    /// Takes the last step of a writer that died before it: names `last`, which
    /// [`SlotReader::recover`](super::SlotReader::recover) found complete, in the head. Readers may have been given
    /// `last` already, so the head must reach it before the copy after it is touched.
    pub fn finish(&mut self, last: Generation) {
        self.head.store(last);
    }
}
