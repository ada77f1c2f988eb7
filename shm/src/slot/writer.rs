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
        let expected = self.copies.payload_words();
        if value.len() != expected {
            return Err(PublishError::WrongLength {
                expected,
                found: value.len(),
            });
        }
        let generation = cursor.next().ok_or(PublishError::Exhausted)?;
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
        cursor.advance(generation);
        Ok(generation)
    }

    /// Takes the last step of a writer that died before it: names `last`, which
    /// [`SlotReader::recover`](super::SlotReader::recover) found complete, in the head. Readers may have been given
    /// `last` already, so the head must reach it before the copy after it is touched.
    pub fn finish(&mut self, last: Generation) {
        self.head.store(last);
    }
}
