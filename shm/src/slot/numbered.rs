//! Slots whose copies say which transaction wrote them, so that several are read as of one transaction.
//!
//! A copy is `{ sequence, number, value }`, and for all slots together there is one *commit* word. The writer's
//! transaction number `n`:
//!
//! 1. each slot's next copy, as [`SlotWriter`](super::SlotWriter) writes it but for the head; no slot twice;
//! 2. `commit = n`, with Release; 3. each slot's head.
//!
//! A reader loads the commit word once and takes of each slot the newest copy whose number is not above it.
//! Transactions follow each other, so when it finds `n` committed, the heads are at least as new as transaction `n - 1`
//! left them: the value as of `n` is the one after the head, the head's, or, if the writer has gone on, one before.
//! Each copy that is passed over is newer than the one that is taken, so it is overwritten later: one look at the
//! sequence of the copy taken, after the copying, covers all that was looked at; where none is taken, one at the oldest
//! passed over. The heads come after the commit word, or a reader could be told of a generation before it can be read.
//!
//! A copy is left alone until its slot is written in as many later transactions as there are copies. A writer that dies
//! before it commits leaves every slot's committed copy, since it writes no slot twice; it must not go on in the same
//! memory, where its uncommitted numbers would become committed ones.

use core::sync::atomic::Ordering;

use super::complete;
use super::cursor::ReadCursor;
use super::generation::Generation;
use super::head::HeadLoad;
use super::reader::{ReadError, WALK_STEPS};
use crate::field::{Field, Records};
use crate::window::Window;

/// The most loads that [`NumberedSlotReader::read_as_of`] makes of a slot with values of `value_words` words and
/// `copies` copies: sequence and number of each walking step; the head; sequence and number of the copy after it and of
/// each before; the value, and its sequence once more.
pub const fn max_loads_as_of(value_words: usize, copies: usize) -> usize {
    2 * WALK_STEPS + 1 + 2 * (copies + 1) + value_words + 1
}

/// Loads the word that names the last committed transaction. What that transaction wrote is visible then. `last` is the
/// reader's place in the history of transactions. One load.
///
/// # Errors
///
/// [`ReadError::NeverWritten`] if there was no transaction yet, and `Restarted`, `Backwards` and `NoGeneration`, which
/// are said of the commit word here.
#[inline]
pub fn load_commit<W: Window>(
    commit: &Field<u64, W>,
    last: &mut ReadCursor,
) -> Result<Generation, ReadError> {
    let word = commit.load(Ordering::Relaxed);
    // Pairs with the Release of the commit word: the copies of its transaction are complete, and the heads of the one
    // before are stored. In a second try it is late for what was overwritten in the first one, so at worst every other
    // try is as of the same transaction again.
    commit.fence(Ordering::Acquire);
    let number = last.accept(word)?;
    last.advance(number);
    Ok(number)
}

/// A slot with numbered copies as its one writer sees it.
#[derive(Debug)]
pub struct NumberedSlotWriter<'w, W> {
    copies: Records<'w, W>,
}

impl<'w, W: Window> NumberedSlotWriter<'w, W> {
    /// The slot with these copies, whose payload is a number and a value.
    #[inline(always)]
    pub fn new(copies: Records<'w, W>) -> Self {
        Self { copies }
    }

    /// Writes a value into the copy of `generation`, the slot's next one, as transaction `number` does: as many words
    /// as it and the slot both have. Readers do not take it until the transaction is committed. Wait-free: `words + 3`
    /// stores.
    #[inline]
    pub fn write(&self, generation: Generation, number: Generation, value: &[u64]) {
        let copy = generation.word();
        let sequence = complete(generation);
        let numbered = self.copies.payloads();
        // Release, so that a reader that finds this copy gone finds the commit word that was stored before.
        self.copies
            .store_header(copy, sequence - 1, Ordering::Release);
        // A reader that sees a word of the new payload sees, after its own fence, that the sequence has changed.
        self.copies.fence(Ordering::Release);
        numbered.store_header(copy, number.word(), Ordering::Relaxed);
        numbered.store_payload(copy, value);
        self.copies.store_header(copy, sequence, Ordering::Release);
    }
}

/// A slot with numbered copies as a reader sees it.
#[derive(Debug)]
pub struct NumberedSlotReader<'w, W, H> {
    copies: Records<'w, W>,
    head: H,
}

/// Where the value as of a transaction is.
enum Found {
    At(Generation),
    /// Too far from where it was looked for.
    Beyond,
}

impl<'w, W: Window, H: HeadLoad> NumberedSlotReader<'w, W, H> {
    /// The slot with these copies, whose payload is a number and a value, and this head.
    #[inline(always)]
    pub fn new(copies: Records<'w, W>, head: H) -> Self {
        Self { copies, head }
    }

    /// Reads the value as of transaction `commit`, as many words as `value` and the slot both have, and returns its
    /// generation; `None` if the slot had no value then. At most [`max_loads_as_of`] loads. `cursor` is the reader's
    /// place in this slot's history, from reading it as of this or an earlier transaction.
    ///
    /// # Errors
    ///
    /// [`ReadError::Lapped`] if the writer has overwritten the value as of `commit`: in the one attempt that is made,
    /// and only a later transaction can be read then. Else [`ReadError::Backwards`], `NoGeneration` and `Inconsistent`.
    /// `value` holds nothing meaningful then.
    #[inline]
    pub fn read_as_of(
        &self,
        commit: Generation,
        cursor: &mut ReadCursor,
        value: &mut [u64],
    ) -> Result<Option<Generation>, ReadError> {
        // A place from another life is none.
        let last = cursor
            .generation()
            .filter(|last| last.epoch() == commit.epoch());
        let found = match last.map_or(Found::Beyond, |last| self.walk(last, commit)) {
            Found::At(generation) => Some(generation),
            Found::Beyond => self.find_by_head(commit)?,
        };
        let Some(generation) = found else {
            // A slot that had a value has one for ever.
            return match last {
                None => Ok(None),
                Some(_) => Err(ReadError::NoGeneration { word: 0 }),
            };
        };
        if let Some(last) = last.filter(|last| generation < *last) {
            let found = generation;
            return Err(ReadError::Backwards { last, found });
        }
        let sequence = self.copy_out(generation, value);
        if sequence == complete(generation) {
            cursor.advance(generation);
            return Ok(Some(generation));
        }
        Err(lapped_or_lie(generation, sequence))
    }

    /// Walks from a generation that is not newer than `commit` to the newest such.
    #[inline(always)]
    fn walk(&self, from: Generation, commit: Generation) -> Found {
        let mut at = from;
        for _ in 0..WALK_STEPS {
            let Some(following) = at.next() else {
                return Found::At(at);
            };
            let sequence = self.copies.load_header(following.word(), Ordering::Relaxed);
            // What was committed when the commit word was loaded is complete, or overwritten by something newer.
            if sequence < complete(following) {
                return Found::At(at);
            }
            if sequence > complete(following) {
                return Found::Beyond;
            }
            if self.number(following) > commit.word() {
                return Found::At(at);
            }
            at = following;
        }
        Found::Beyond
    }

    /// The number of a copy whose sequence was seen complete.
    #[inline(always)]
    fn number(&self, generation: Generation) -> u64 {
        // Pairs with the Release of the sequence: number and value are not older.
        self.copies.fence(Ordering::Acquire);
        self.copies
            .payloads()
            .load_header(generation.word(), Ordering::Relaxed)
    }

    /// Looks for the value as of `commit` after the head, there, and before, as far as there are copies.
    #[cold]
    #[inline(never)]
    fn find_by_head(&self, commit: Generation) -> Result<Option<Generation>, ReadError> {
        // The fence behind the commit word made the head as new as the transaction before left it.
        let word = self.head.load();
        // Pairs with the Release of the head: the copy that it names is complete.
        self.copies.fence(Ordering::Acquire);
        let epoch = commit.epoch();
        let head = match Generation::from_word(word) {
            None if word == 0 => None,
            Some(head) if head.epoch() == epoch => Some(head),
            _ => return Err(ReadError::NoGeneration { word }),
        };
        let first = match head {
            Some(head) => head.next(),
            None => Generation::new(epoch, 1),
        };
        let mut passed_over = None;
        if let Some(first) = first {
            let sequence = self.copies.load_header(first.word(), Ordering::Relaxed);
            if sequence > complete(first) {
                return Err(ReadError::Lapped);
            }
            if sequence == complete(first) {
                if self.number(first) <= commit.word() {
                    return Ok(Some(first));
                }
                passed_over = Some(first);
            }
        }
        let mut candidate = head;
        for _ in 0..self.copies.count() {
            let Some(at) = candidate else {
                return self.had_no_value(passed_over);
            };
            let sequence = self.copies.load_header(at.word(), Ordering::Relaxed);
            if sequence != complete(at) {
                return Err(lapped_or_lie(at, sequence));
            }
            if self.number(at) <= commit.word() {
                return Ok(Some(at));
            }
            passed_over = candidate;
            candidate = Generation::new(epoch, at.count() - 1);
        }
        Err(ReadError::Lapped)
    }

    /// That a slot had no value, since its first one is of a later transaction: provided that the number seen was that
    /// of its first value, and not of one that has overwritten it.
    fn had_no_value(&self, first: Option<Generation>) -> Result<Option<Generation>, ReadError> {
        let Some(first) = first else {
            return Ok(None);
        };
        // Pairs with the writer's fence, as in `copy_out`.
        self.copies.fence(Ordering::Acquire);
        let sequence = self.copies.load_header(first.word(), Ordering::Relaxed);
        if sequence == complete(first) {
            return Ok(None);
        }
        Err(lapped_or_lie(first, sequence))
    }

    /// Copies the value of `generation` and returns the sequence that its copy has afterwards.
    #[inline(always)]
    fn copy_out(&self, generation: Generation, value: &mut [u64]) -> u64 {
        let copy = generation.word();
        self.copies.payloads().load_payload(copy, value);
        // Pairs with the writer's fence: if a word came from a later write, the sequence shows it.
        self.copies.fence(Ordering::Acquire);
        self.copies.load_header(copy, Ordering::Relaxed)
    }
}

/// What a copy means that does not hold `generation`, though it was complete: it is overwritten, or was never written.
fn lapped_or_lie(generation: Generation, sequence: u64) -> ReadError {
    if sequence > complete(generation) {
        return ReadError::Lapped;
    }
    ReadError::Inconsistent {
        head: generation,
        sequence,
    }
}
