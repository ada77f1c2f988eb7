//! The reading side of a slot. It needs no more than a read-only mapping.

use core::sync::atomic::Ordering;

use super::complete;
use super::cursor::ReadCursor;
use super::generation::{Epoch, Generation};
use super::head::HeadLoad;
use crate::field::Records;
use crate::window::Window;

/// How many copies a reader walks forward before it reads the head.
pub const WALK_STEPS: usize = 3;

/// How often a reader starts again from the head, because the copy was overwritten meanwhile, before it gives up.
pub const TRIES: usize = 8;

/// From how many words on a reader that polls looks at the head: while a large value is being written, a look at its copy
/// would take the first line away from the writer, which needs it again. With smaller values the look brings a part of the
/// value along.
const LARGE: usize = 128;

/// The most loads that one read makes, whatever the writer does: a look at the following copy for each walking step,
/// the payload and its sequence; then for each try the head, the payload and its sequence.
pub const fn max_loads(payload_words: usize) -> usize {
    WALK_STEPS + (payload_words + 1) + TRIES * (1 + payload_words + 1)
}

/// Why a read gave no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// No value has been published yet.
    #[error("the slot was never written")]
    NeverWritten,
    /// The writer wrote so many values during the copying that the copy was overwritten, in each of [`TRIES`] tries.
    #[error("the writer overwrote the value in each of {TRIES} tries to copy it")]
    Lapped,
    /// The writer has restarted. Reported once; the next read goes on under the new epoch.
    #[error("the writer of epoch {from} has restarted as epoch {to}")]
    Restarted {
        /// The epoch of the value returned last.
        from: Epoch,
        /// The epoch that the next read returns values of.
        to: Epoch,
    },
    /// The head names an older generation than one already returned. No honest writer does that.
    #[error("the slot went back from generation {last} to {found}")]
    Backwards {
        /// The generation returned last.
        last: Generation,
        /// What the head names.
        found: Generation,
    },
    /// The head holds a word that is no generation. No honest writer does that.
    #[error("the slot's head {word:#x} is no generation")]
    NoGeneration {
        /// The word found.
        word: u64,
    },
    /// The head names a generation that its copy has not reached. No honest writer does that.
    #[error("the slot's head names generation {head}, but its copy has sequence {sequence:#x}")]
    Inconsistent {
        /// The generation that the head names.
        head: Generation,
        /// The sequence word of that generation's copy.
        sequence: u64,
    },
}

/// What a reader saw in the copy that follows its cursor's, when it could not stay with the value it has.
#[derive(Debug)]
pub struct Glimpse(
    /// The copy's sequence.
    u64,
);

impl Glimpse {
    /// No generation has this sequence.
    const NONE: Self = Self(0);
}

/// A slot as a reader sees it: made of borrowed views for a call or for longer, at no cost.
#[derive(Debug)]
pub struct SlotReader<'w, W, H> {
    copies: Records<'w, W>,
    head: H,
}

impl<W, H: Copy> Clone for SlotReader<'_, W, H> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<W, H: Copy> Copy for SlotReader<'_, W, H> {}

impl<'w, W: Window, H: HeadLoad> SlotReader<'w, W, H> {
    /// The slot with these copies and this head.
    #[inline(always)]
    pub fn new(copies: Records<'w, W>, head: H) -> Self {
        Self { copies, head }
    }

    /// Reads a complete value into `value`, as many words as that and the slot both have, and returns its generation:
    /// at least the last one that was complete when the call began, and never older than one returned before through
    /// this cursor. At most [`max_loads`] loads.
    ///
    /// # Errors
    ///
    /// [`ReadError`]; `value` holds nothing meaningful then.
    #[inline(always)]
    pub fn read(
        &self,
        cursor: &mut ReadCursor,
        value: &mut [u64],
    ) -> Result<Generation, ReadError> {
        match self.read_unchanged(*cursor, value) {
            Ok(last) => Ok(last),
            Err(glimpse) => self.read_changed(glimpse, cursor, value),
        }
    }

    /// Whether a read would return the value that the cursor is at: for who polls, since it costs one load of a line
    /// that stays cached until there is news, and no copy of the value. An answer that there is news may be a read's
    /// [`ReadError`], or the value that the cursor is at once more.
    #[inline(always)]
    pub fn is_unchanged(&self, cursor: ReadCursor) -> bool {
        let Some(last) = cursor.generation() else {
            return false;
        };
        if self.copies.payload_words() >= LARGE {
            return self.head.load() == last.word();
        }
        let following = last.next();
        following.is_some_and(|following| {
            self.copies.load_header(following.word(), Ordering::Relaxed) < complete(following)
        })
    }

    /// The first half of [`SlotReader::read`]: the whole of it as long as there is no news, and little enough to be
    /// inlined where that counts. Otherwise the second half is [`SlotReader::read_changed`].
    ///
    /// # Errors
    ///
    /// What the second half goes on with; `value` holds nothing meaningful then.
    #[inline(always)]
    pub fn read_unchanged(
        &self,
        cursor: ReadCursor,
        value: &mut [u64],
    ) -> Result<Generation, Glimpse> {
        // A generation that was complete when the call began shows in its copy's sequence, or a newer one does. So if
        // the copy after the cursor's holds nothing newer, there was nothing newer: one look, at a line that stays
        // cached until there is news.
        let Some((last, following)) = cursor.generation().and_then(|it| Some((it, it.next()?)))
        else {
            return Err(Glimpse::NONE);
        };
        let sequence = self.copies.load_header(following.word(), Ordering::Relaxed);
        // No fence before the payload: that `last` is complete was learnt by an earlier read.
        if sequence < complete(following) && self.copy_out(last, value) == complete(last) {
            return Ok(last);
        }
        Err(Glimpse(sequence))
    }

    /// Whether a read through this cursor would return the generation that it returned last, as
    /// [`SlotReader::is_unchanged`] says; with a second load it also notices that the memory was set up anew. For
    /// readers that keep what they made of a value for as long as it is the newest.
    #[inline(always)]
    pub fn still_holds(&self, cursor: ReadCursor) -> bool {
        let Some((last, following)) = cursor.generation().and_then(|it| Some((it, it.next()?)))
        else {
            return false;
        };
        // As in `read_unchanged`, without the payload.
        let ahead = self.copies.load_header(following.word(), Ordering::Relaxed);
        let own = self.copies.load_header(last.word(), Ordering::Relaxed);
        ahead < complete(following) && own == complete(last)
    }

    /// The second half of [`SlotReader::read`], for the same cursor.
    ///
    /// # Errors
    ///
    /// As for [`SlotReader::read`].
    #[inline]
    pub fn read_changed(
        self,
        glimpse: Glimpse,
        cursor: &mut ReadCursor,
        value: &mut [u64],
    ) -> Result<Generation, ReadError> {
        if let Some(following) = cursor.generation().and_then(Generation::next)
            && glimpse.0 == complete(following)
            && let Some(newest) = self.walk(following)
            && self.copy_out(newest, value) == complete(newest)
        {
            cursor.advance(newest);
            return Ok(newest);
        }
        self.read_by_head(cursor, value)
    }

    /// Walks from a complete generation, one step ahead of the cursor, to the newest. `None` if that is too far.
    #[inline(always)]
    fn walk(&self, from: Generation) -> Option<Generation> {
        let mut at = from;
        for _ in 1..WALK_STEPS {
            let following = at.next()?;
            let sequence = self.copies.load_header(following.word(), Ordering::Relaxed);
            if sequence > complete(following) {
                return None;
            }
            if sequence < complete(following) {
                // Pairs with the Release of the sequences seen: the payload is not older.
                self.copies.fence(Ordering::Acquire);
                return Some(at);
            }
            at = following;
        }
        None
    }

    /// Copies the payload of `generation` and returns the sequence that its copy has afterwards.
    #[inline(always)]
    fn copy_out(&self, generation: Generation, value: &mut [u64]) -> u64 {
        let copy = generation.word();
        self.copies.load_payload(copy, value);
        // Pairs with the writer's fence: if a word came from a later write, the sequence shows it.
        self.copies.fence(Ordering::Acquire);
        self.copies.load_header(copy, Ordering::Relaxed)
    }

    #[cold]
    #[inline(never)]
    fn read_by_head(
        self,
        cursor: &mut ReadCursor,
        value: &mut [u64],
    ) -> Result<Generation, ReadError> {
        for _ in 0..TRIES {
            // Pairs with the Release of the sequence that sent us here: the head is as new as that.
            self.copies.fence(Ordering::Acquire);
            let head = self.head.load();
            // Pairs with the Release of the head: the copy that it names is complete.
            self.copies.fence(Ordering::Acquire);
            let newest = cursor.accept(head)?;
            let sequence = self.copy_out(newest, value);
            if sequence == complete(newest) {
                cursor.advance(newest);
                return Ok(newest);
            }
            if sequence < complete(newest) {
                return Err(ReadError::Inconsistent {
                    head: newest,
                    sequence,
                });
            }
        }
        Err(ReadError::Lapped)
    }

    /// Finds the last complete value that a writer of `epoch` or earlier left behind, which may lie one step ahead of
    /// the head. For restarts: the contents are looked at as hostile, and a value must pass the same checks as in a
    /// read.
    ///
    /// # Errors
    ///
    /// [`ReadError`]; a slot whose first value was not completed was never written.
    pub fn recover(&self, epoch: Epoch, value: &mut [u64]) -> Result<Generation, ReadError> {
        let word = self.head.load();
        let head = ReadCursor::default().accept(word)?;
        if head.epoch() > epoch {
            return Err(ReadError::NoGeneration { word });
        }
        // The writer may have died after it completed a copy and before it named it in the head.
        let ahead = head.next().filter(|next| {
            self.copies.load_header(next.word(), Ordering::Relaxed) == complete(*next)
        });
        // Pairs with the Release of the head and of the sequence ahead: what they name is complete.
        self.copies.fence(Ordering::Acquire);
        for candidate in ahead.into_iter().chain([head]) {
            if self.copy_out(candidate, value) == complete(candidate) {
                return Ok(candidate);
            }
        }
        let sequence = self.copies.load_header(head.word(), Ordering::Relaxed);
        Err(ReadError::Inconsistent { head, sequence })
    }
}
