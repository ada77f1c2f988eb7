//! Slots of up to 8 bytes: one atomic word needs no copies.

use core::sync::atomic::Ordering;

use super::cursor::{ReadCursor, WriteCursor};
use super::generation::{Epoch, Generation};
use super::head::{HeadLoad, HeadStore};
use super::reader::ReadError;
use super::writer::PublishError;
use crate::field::Entries;
use crate::window::Window;

/// The writing side of a slot that is one word in a dense array.
#[derive(Debug)]
pub struct SmallSlotWriter<'w, W, H> {
    values: &'w Entries<u64, W>,
    index: usize,
    head: H,
}

impl<'w, W: Window, H: HeadStore> SmallSlotWriter<'w, W, H> {
    /// The slot whose value is word `index` (modulo the array's length) of `values`.
    #[inline(always)]
    pub fn new(values: &'w Entries<u64, W>, index: usize, head: H) -> Self {
        Self {
            values,
            index,
            head,
        }
    }

    /// Publishes the next value. Wait-free: two stores.
    ///
    /// # Errors
    ///
    /// [`PublishError::Exhausted`]; nothing was written then.
    #[inline(always)]
    pub fn publish(
        &mut self,
        cursor: &mut WriteCursor,
        value: u64,
    ) -> Result<Generation, PublishError> {
        let generation = cursor.next().ok_or(PublishError::Exhausted)?;
        self.values.store(self.index, value, Ordering::Relaxed);
        self.head.store(generation);
        cursor.advance(generation);
        Ok(generation)
    }
}

/// The reading side of a slot that is one word in a dense array.
#[derive(Debug)]
pub struct SmallSlotReader<'w, W, H> {
    values: &'w Entries<u64, W>,
    index: usize,
    head: H,
}

impl<'w, W: Window, H: HeadLoad> SmallSlotReader<'w, W, H> {
    /// The slot whose value is word `index` (modulo the array's length) of `values`.
    #[inline(always)]
    pub fn new(values: &'w Entries<u64, W>, index: usize, head: H) -> Self {
        Self {
            values,
            index,
            head,
        }
    }

    /// Reads the value. Wait-free: two loads.
    ///
    /// The generation is loaded first, so it is a *lower bound*: the value is that generation's or a newer one's.
    /// Whoever needs the exact one uses a larger slot.
    ///
    /// # Errors
    ///
    /// [`ReadError`], but never `Lapped` nor `Inconsistent`.
    #[inline(always)]
    pub fn read(&self, cursor: &mut ReadCursor) -> Result<(u64, Generation), ReadError> {
        let head = self.head.load();
        // Pairs with the Release of the head: the value is not older than the generation.
        self.values.fence(Ordering::Acquire);
        let generation = cursor.accept(head)?;
        let value = self.values.load(self.index, Ordering::Relaxed);
        cursor.advance(generation);
        Ok((value, generation))
    }

    /// Finds the value that a writer of `epoch` or earlier left behind; it may be newer than its generation says. For
    /// restarts: the contents are looked at as hostile.
    ///
    /// # Errors
    ///
    /// [`ReadError`]; a slot whose first value was not completed was never written.
    pub fn recover(&self, epoch: Epoch) -> Result<(u64, Generation), ReadError> {
        let (value, generation) = self.read(&mut ReadCursor::default())?;
        if generation.epoch() > epoch {
            return Err(ReadError::NoGeneration {
                word: generation.word(),
            });
        }
        Ok((value, generation))
    }
}
