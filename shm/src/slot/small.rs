//! Slots of up to 8 bytes, or of 16 where the machine promises to move as many at once: one access needs no copies.

use core::sync::atomic::Ordering;

use super::cursor::{ReadCursor, WriteCursor};
use super::generation::{Epoch, Generation};
use super::head::{HeadLoad, HeadStore};
use super::reader::ReadError;
use super::writer::PublishError;
use crate::field::{Entries, Pairs};
use crate::window::Window;

/// An array of values, each of which is loaded and stored by one access.
pub trait Cells {
    /// A value.
    type Value;

    /// Loads the value at `index` modulo the array's length, unordered.
    fn load_cell(&self, index: usize) -> Self::Value;

    /// Stores the value at `index` modulo the array's length, unordered.
    fn store_cell(&self, index: usize, value: Self::Value);

    /// Orders this thread's accesses to the memory that the array lies in.
    fn fence(&self, order: Ordering);
}

impl<W: Window> Cells for Entries<u64, W> {
    type Value = u64;

    #[inline(always)]
    fn load_cell(&self, index: usize) -> u64 {
        self.load(index, Ordering::Relaxed)
    }

    #[inline(always)]
    fn store_cell(&self, index: usize, value: u64) {
        self.store(index, value, Ordering::Relaxed);
    }

    #[inline(always)]
    fn fence(&self, order: Ordering) {
        Entries::fence(self, order);
    }
}

impl<W: Window> Cells for Pairs<W> {
    type Value = [u64; 2];

    #[inline(always)]
    fn load_cell(&self, index: usize) -> [u64; 2] {
        self.load(index)
    }

    #[inline(always)]
    fn store_cell(&self, index: usize, value: [u64; 2]) {
        self.store(index, value);
    }

    #[inline(always)]
    fn fence(&self, order: Ordering) {
        Pairs::fence(self, order);
    }
}

/// The writing side of a slot that is one cell of a dense array.
#[derive(Debug)]
pub struct SmallSlotWriter<'w, C, H> {
    values: &'w C,
    index: usize,
    head: H,
}

impl<'w, C: Cells, H: HeadStore> SmallSlotWriter<'w, C, H> {
    /// The slot whose value is cell `index` (modulo the array's length) of `values`.
    #[inline(always)]
    pub fn new(values: &'w C, index: usize, head: H) -> Self {
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
        value: C::Value,
    ) -> Result<Generation, PublishError> {
        let generation = cursor.next().ok_or(PublishError::Exhausted)?;
        self.write(generation, value);
        cursor.advance(generation);
        Ok(generation)
    }

    /// Publishes `value` as `generation`, which is later than the last one but not always the next; as
    /// [`SlotWriter::publish_as`](super::SlotWriter::publish_as), with two stores.
    ///
    /// # Errors
    ///
    /// [`PublishError::NotLater`]; nothing was written then.
    pub fn publish_as(
        &mut self,
        cursor: &mut WriteCursor,
        generation: Generation,
        value: C::Value,
    ) -> Result<(), PublishError> {
        cursor.check_later(generation)?;
        self.write(generation, value);
        cursor.advance(generation);
        Ok(())
    }

    #[inline(always)]
    fn write(&mut self, generation: Generation, value: C::Value) {
        self.values.store_cell(self.index, value);
        self.head.store(generation);
    }
}

/// The reading side of a slot that is one cell of a dense array.
#[derive(Debug)]
pub struct SmallSlotReader<'w, C, H> {
    values: &'w C,
    index: usize,
    head: H,
}

impl<'w, C: Cells, H: HeadLoad> SmallSlotReader<'w, C, H> {
    /// The slot whose value is cell `index` (modulo the array's length) of `values`.
    #[inline(always)]
    pub fn new(values: &'w C, index: usize, head: H) -> Self {
        Self {
            values,
            index,
            head,
        }
    }

    /// Reads the value. Wait-free: the head and the value.
    ///
    /// The generation is loaded first, so it is a *lower bound*: the value is that generation's or a newer one's.
    /// Whoever needs the exact one uses a larger slot.
    ///
    /// # Errors
    ///
    /// [`ReadError`], but never `Lapped` nor `Inconsistent`.
    #[inline(always)]
    pub fn read(&self, cursor: &mut ReadCursor) -> Result<(C::Value, Generation), ReadError> {
        let head = self.head.load();
        // Pairs with the Release of the head: the value is not older than the generation.
        self.values.fence(Ordering::Acquire);
        let generation = cursor.accept(head)?;
        let value = self.values.load_cell(self.index);
        cursor.advance(generation);
        Ok((value, generation))
    }

    /// Finds the value that a writer of `epoch` or earlier left behind; it may be newer than its generation says. For
    /// restarts: the contents are looked at as hostile.
    ///
    /// # Errors
    ///
    /// [`ReadError`]; a slot whose first value was not completed was never written.
    pub fn recover(&self, epoch: Epoch) -> Result<(C::Value, Generation), ReadError> {
        let (value, generation) = self.read(&mut ReadCursor::default())?;
        if generation.epoch() > epoch {
            return Err(ReadError::NoGeneration {
                word: generation.word(),
            });
        }
        Ok((value, generation))
    }
}
