//! The reading side of a pinnable slot, with a pin or by copying.

use core::sync::atomic::Ordering::{Acquire, Relaxed, SeqCst};

use super::announcement::AnnouncementAt;
use super::place::PlaceAt;
use crate::field::Records;
use crate::slot::{Epoch, Generation, ReadCursor, ReadError, TRIES, complete};
use crate::window::Window;

/// The most loads that a read by copying makes, whatever the writer does: for each try the place, and the payload with its
/// sequence before and after.
pub const fn max_read_loads(payload_words: usize) -> usize {
    TRIES * (1 + 1 + payload_words + 1)
}

/// The most loads that pinning makes, whatever the writer does: for each try the place, the place again and the sequence.
/// It makes at most one store for each try, and one to withdraw the last announcement.
pub const MAX_PIN_LOADS: usize = TRIES * 3;

/// A pinnable slot as a reader sees it: made of borrowed views for a call or for longer, at no cost. The slot's memory may
/// be mapped read-only; pins are announced in other memory, the reader's own.
#[derive(Debug)]
pub struct PinnableReader<'w, W> {
    copies: Records<'w, W>,
    place: PlaceAt<'w, W>,
}

impl<W> Clone for PinnableReader<'_, W> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<W> Copy for PinnableReader<'_, W> {}

impl<'w, W: Window> PinnableReader<'w, W> {
    /// The slot with these copies and this place.
    #[inline(always)]
    pub fn new(copies: Records<'w, W>, place: PlaceAt<'w, W>) -> Self {
        Self { copies, place }
    }

    /// Reads a complete value into `value`, as many words as that and the slot both have, and returns its generation: at
    /// least the last one that was complete when the call began, and never older than one returned before through this
    /// cursor. At most [`max_read_loads`] loads. Who reads like this need not be subscribed.
    ///
    /// # Errors
    ///
    /// [`ReadError`], but never `Inconsistent`; `value` holds nothing meaningful then.
    #[inline]
    pub fn read(
        &self,
        cursor: &mut ReadCursor,
        value: &mut [u64],
    ) -> Result<Generation, ReadError> {
        for _ in 0..TRIES {
            let place = self.place.load();
            // Pairs with the Release of the place: the copy that it names is complete.
            self.copies.fence(Acquire);
            let copy = place.copy();
            let before = self.copies.load_header(copy, Relaxed);
            // A newer one may be complete and not yet be named, and after that one an older one might be read.
            if let Some(word) = place.named_by(before) {
                let generation = cursor.accept(word)?;
                self.copies.load_payload(copy, value);
                // Pairs with the writer's fence: if a word came from a later write, the sequence shows it.
                self.copies.fence(Acquire);
                if self.copies.load_header(copy, Relaxed) == before {
                    cursor.advance(generation);
                    return Ok(generation);
                }
            }
            // Pairs with the Release of the sequence that sent us here: the place is as new as that.
            self.copies.fence(Acquire);
        }
        Err(ReadError::Lapped)
    }

    /// Pins a complete value, where it lies: at least the last one that was complete when the call began, and never older
    /// than one returned before through this cursor. At most [`MAX_PIN_LOADS`] loads.
    ///
    /// `announcement` is this reader's for this slot, and holds at most one pin: another one that is made through it takes
    /// the first one's place. A reader that is not subscribed is not heard: what it pins may be overwritten at any time.
    ///
    /// # Errors
    ///
    /// [`ReadError`], but never `Inconsistent`; nothing is pinned then.
    #[inline]
    pub fn pin<A: Window>(
        &self,
        cursor: &mut ReadCursor,
        announcement: AnnouncementAt<'w, A>,
    ) -> Result<Pinned<'w, W, A>, ReadError> {
        let pin = Pin(announcement);
        for _ in 0..TRIES {
            let copy = self.place.load().copy();
            pin.0.pin(copy);
            // Either the writer finds the announcement, or its intent is found here.
            self.copies.fence(SeqCst);
            let place = self.place.load();
            // Pairs with the Release of the place: what was done to the copy before that intent shows in its sequence.
            self.copies.fence(Acquire);
            if place.intends(copy) {
                continue;
            }
            let sequence = self.copies.load_header(copy, Relaxed);
            // Pairs with the Release of the sequence. For a reader that was unsubscribed meanwhile: it may find a value here
            // that was not named when it looked at the place.
            self.copies.fence(Acquire);
            if sequence.is_multiple_of(2) {
                let generation = cursor.accept(sequence / 2)?;
                cursor.advance(generation);
                return Ok(Pinned {
                    copies: self.copies,
                    copy,
                    generation,
                    _pin: pin,
                });
            }
        }
        Err(ReadError::Lapped)
    }

    /// Finds the last complete value that a writer of `epoch` or earlier left behind. For restarts: the contents are looked at
    /// as hostile.
    ///
    /// # Errors
    ///
    /// [`ReadError`]; a slot whose first value was not completed was never written.
    pub fn recover(&self, epoch: Epoch, value: &mut [u64]) -> Result<Generation, ReadError> {
        let generation = self.read(&mut ReadCursor::default(), value)?;
        if generation.epoch() > epoch {
            return Err(ReadError::NoGeneration {
                word: generation.word(),
            });
        }
        Ok(generation)
    }
}

/// An announcement that is withdrawn when it is dropped.
#[derive(Debug)]
struct Pin<'w, A: Window>(AnnouncementAt<'w, A>);

impl<A: Window> Drop for Pin<'_, A> {
    fn drop(&mut self) {
        self.0.unpin();
    }
}

/// A value that its writer leaves alone until this is dropped. Its words are looked at where they lie, each by an atomic load.
///
/// *An honest writer* that has this reader subscribed does not touch the value, whatever else happens, also when it dies:
/// loading a word twice gives the same. If it unsubscribes the reader, because it takes it for dead, [`Pinned::check`] says
/// from then on whether the value has been overwritten: as long as it is true, what was loaded before it is of
/// [`Pinned::generation`], whole. *A hostile writer* can change any word at any time, and say anything of it: then
/// every load gives some number, and nothing more is promised. So what a word says is looked at once, in a local; what must
/// not change between two looks is copied, as in [`Pinned::copy_to`].
///
/// Dropping this unpins the value. If it is leaked instead, the announcement stays: that keeps one copy from the writer,
/// which has one to spare for each subscribed reader, until this reader pins the same slot again or is unsubscribed.
#[derive(Debug)]
pub struct Pinned<'w, W, A: Window> {
    copies: Records<'w, W>,
    copy: u64,
    generation: Generation,
    _pin: Pin<'w, A>,
}

impl<W: Window, A: Window> Pinned<'_, W, A> {
    /// Which value this is.
    #[inline(always)]
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// How many 8-byte words the value has.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.copies.payload_words()
    }

    /// Whether the value has no words.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Loads word `index`, if there is one.
    #[inline(always)]
    pub fn word(&self, index: usize) -> Option<u64> {
        let mut word = [0];
        (self.copies.load_payload_from(self.copy, index, &mut word) == 1).then_some(word[0])
    }

    /// Loads the words one after the other.
    #[inline]
    pub fn words(&self) -> impl Iterator<Item = u64> {
        (0..self.len()).map_while(|index| self.word(index))
    }

    /// Copies the words from `first` on into `to`, as many as there are in both; returns how many.
    #[inline]
    pub fn copy_to(&self, first: usize, to: &mut [u64]) -> usize {
        self.copies.load_payload_from(self.copy, first, to)
    }

    /// Whether the copy still carries this generation, so that everything that was loaded before is of it: if the writer is
    /// honest. As long as an honest writer has this reader subscribed, it always does.
    #[inline]
    pub fn check(&self) -> bool {
        // Pairs with the writer's fence: if a word came from a later write, the sequence shows it.
        self.copies.fence(Acquire);
        self.copies.load_header(self.copy, Relaxed) == complete(self.generation)
    }
}
