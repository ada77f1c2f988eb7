//! A reader of a table.

use core::hint;
use core::ops::ControlFlow;

use shmbus_shm::slot::{
    Epoch, Generation, Glimpse, HeadAt, ReadCursor, SlotReader, SmallSlotReader,
};
use shmbus_shm::{Scan, TreeReader, Window};

use crate::age::{Age, AgeError, Ages};
use crate::error::{ReadError, TableError};
use crate::flags::TableFlags;
use crate::header::{Header, Life};
use crate::layout::TableLayout;
use crate::slots::Values;
use crate::writer::tree_area;

/// A reader of a table: a read-only mapping is enough. `S` is storage of a word for each slot, a `Vec<u64>` or a
/// `&mut [u64]`.
///
/// It has its own place in each slot and its own record of the changes it has seen, so readers are independent.
#[derive(Debug)]
pub struct TableReader<W, S> {
    layout: TableLayout,
    type_id: u32,
    life: Life<W>,
    pub(crate) ages: Option<Ages<W>>,
    tree: TreeReader<W, S>,
    values: Values<W>,
    cursors: S,
}

impl<W: Window, S: AsRef<[u64]> + AsMut<[u64]>> TableReader<W, S> {
    /// Reads the table at the start of `window`. Its header is checked as hostile input, and its geometry frozen.
    ///
    /// `cursors` and `seen` are storage of a word for each slot, which [`Header::read`] tells.
    ///
    /// # Errors
    ///
    /// [`TableError`].
    pub fn attach(window: W, mut cursors: S, seen: S) -> Result<Self, TableError> {
        let header = Header::read(&window)?;
        let layout = header.layout;
        layout.check_kind(TableFlags::NONE)?;
        let found = cursors.as_ref().len();
        if found < layout.slots() as usize {
            return Err(TableError::Storage {
                expected: layout.slots(),
                found,
            });
        }
        cursors.as_mut().fill(ReadCursor::default().word());
        let area = tree_area(&window, layout)?;
        Ok(Self {
            layout,
            type_id: header.type_id,
            life: Life::new(&window)?,
            ages: Ages::new(&window, layout)?,
            tree: TreeReader::new(&area, layout.tree(), seen)?,
            values: Values::new(&window, layout)?,
            cursors,
        })
    }

    /// Goes over to the writer's new memory, which must hold a table of the same shape and type. Where the new writer
    /// is of another epoch, each slot that was read before says so once
    /// ([`Restarted`](shmbus_shm::slot::ReadError::Restarted)); the next change scan reports every slot that was
    /// ever written.
    ///
    /// # Errors
    ///
    /// [`TableError`]; the reader then stays with the old memory.
    pub fn rebind(&mut self, window: W) -> Result<Epoch, TableError> {
        let header = Header::read(&window)?;
        header.check_successor(self.layout, self.type_id)?;
        let life = Life::new(&window)?;
        let ages = Ages::new(&window, self.layout)?;
        let values = Values::new(&window, self.layout)?;
        self.tree.rebind(&tree_area(&window, self.layout)?)?;
        self.life = life;
        self.ages = ages;
        self.values = values;
        Ok(header.epoch)
    }

    /// Begins anew with a table that was set up anew, in new memory or in the same: no slot counts as read.
    pub(crate) fn begin_anew(&mut self, window: W) -> Result<(), TableError> {
        self.rebind(window)?;
        self.cursors.as_mut().fill(ReadCursor::default().word());
        Ok(())
    }

    /// Reads a slot's newest complete value into `value`, as many words as that and the slot both have. The value is
    /// at least as new as the last one that was complete when the call began, and never older than one read before.
    ///
    /// A slot of 8 bytes, or of 16 in a table of pairs, is read without waiting for anything, and the generation returned is a lower bound of its
    /// value's. A larger one is read within [`max_loads`](shmbus_shm::slot::max_loads) loads.
    ///
    /// # Errors
    ///
    /// [`ReadError`]; `value` holds nothing meaningful then.
    #[inline(always)]
    pub fn read(&mut self, slot: u32, value: &mut [u64]) -> Result<Generation, ReadError> {
        // What is done most often is inlined where the value's length may be known: there is nothing new, and the
        // value has the length of its slot.
        let index = slot as usize;
        if let Some(copies) = self.values.copies.get(index)
            && let Some(stored) = self.cursors.as_ref().get(index)
            && value.len() == copies.payload_words()
        {
            let head = HeadAt::new(self.tree.leaves(), index);
            let cursor = ReadCursor::from_word(*stored);
            return match SlotReader::new(copies, head).read_unchanged(cursor, value) {
                Ok(generation) => Ok(generation),
                Err(glimpse) => {
                    hint::cold_path();
                    self.read_on(slot, value, Some(glimpse))
                }
            };
        }
        self.read_on(slot, value, None)
    }

    /// Whether [`TableReader::read`] would return the same value again as last time: two loads, and no copying. Never
    /// so for a slot that was not read yet, nor for one of 8 bytes, which costs no more to read.
    #[inline(always)]
    pub fn is_unchanged(&self, slot: u32) -> bool {
        let index = slot as usize;
        let (Some(copies), Some(stored)) = (
            self.values.copies.get(index),
            self.cursors.as_ref().get(index),
        ) else {
            return false;
        };
        let head = HeadAt::new(self.tree.leaves(), index);
        SlotReader::new(copies, head).still_holds(ReadCursor::from_word(*stored))
    }

    /// All of [`TableReader::read`], or what is left of it after a glimpse at the slot.
    #[inline(never)]
    fn read_on(
        &mut self,
        slot: u32,
        value: &mut [u64],
        glimpse: Option<Glimpse>,
    ) -> Result<Generation, ReadError> {
        let slots = self.layout.slots();
        let stored = self.cursors.as_mut().get_mut(slot as usize);
        let Some(stored) = stored.filter(|_| slot < slots) else {
            return Err(ReadError::NoSuchSlot { slot, slots });
        };
        let mut cursor = ReadCursor::from_word(*stored);
        let head = HeadAt::new(self.tree.leaves(), slot as usize);
        let outcome = match (&self.values.words, &self.values.pairs) {
            (None, None) => {
                let Some(copies) = self.values.copies.get(slot as usize) else {
                    return Err(ReadError::NoSuchSlot { slot, slots });
                };
                let reader = SlotReader::new(copies, head);
                match glimpse {
                    Some(glimpse) => reader.read_changed(glimpse, &mut cursor, value),
                    None => reader.read(&mut cursor, value),
                }
            }
            (None, Some(pairs)) => SmallSlotReader::new(pairs, slot as usize, head)
                .read(&mut cursor)
                .map(|(pair, generation)| {
                    for (to, word) in value.iter_mut().zip(pair) {
                        *to = word;
                    }
                    generation
                }),
            (Some(words), _) => SmallSlotReader::new(words, slot as usize, head)
                .read(&mut cursor)
                .map(|(word, generation)| {
                    if let Some(first) = value.first_mut() {
                        *first = word;
                    }
                    generation
                }),
        };
        *stored = cursor.word();
        Ok(outcome?)
    }

    /// Reports every slot that was written since it was last reported, with its generation, in ascending order. Idle,
    /// this is one load. After a scan that paused, this finishes that one, and no more.
    ///
    /// A head that names no generation, which no honest writer stores, is not reported; reading that slot says what is
    /// wrong.
    pub fn changed(&mut self, mut report: impl FnMut(u32, Generation)) -> Scan {
        self.scan(|slot, generation| {
            report(slot, generation);
            ControlFlow::Continue(())
        })
    }

    /// Reports as [`TableReader::changed`] does, until `visit` breaks off. The next call goes on behind the last slot
    /// reported; [`Scan::Finished`] then says that everything was reported which had changed when the *first* of these
    /// calls was made, and slots before may have changed since: scan until [`Scan::Unchanged`].
    pub fn scan(&mut self, visit: impl FnMut(u32, Generation) -> ControlFlow<()>) -> Scan {
        scan(&mut self.tree, visit)
    }

    /// How long ago a slot was last published. Two loads. A value that is read *after* this is at most as old.
    ///
    /// A restarted writer tells of the values that it took over the age that they had. The time in which no writer
    /// lived does not count: the [`epoch`](Self::epoch) tells of that.
    ///
    /// # Errors
    ///
    /// [`AgeError`].
    pub fn age(&self, slot: u32) -> Result<Age, AgeError> {
        Ages::age(self.ages.as_ref(), &self.life, self.layout, slot)
    }

    /// The generation that was read last from a slot.
    pub fn generation(&self, slot: u32) -> Option<Generation> {
        let word = self.cursors.as_ref().get(slot as usize)?;
        ReadCursor::from_word(*word).generation()
    }

    /// The table's geometry.
    pub fn layout(&self) -> TableLayout {
        self.layout
    }

    /// What the table's values mean.
    pub fn type_id(&self) -> u32 {
        self.type_id
    }

    /// The writer's life, as the header says just now; `None` if it says nonsense.
    pub fn epoch(&self) -> Option<Epoch> {
        self.life.epoch()
    }

    /// The writer's heartbeat. Only that it changes means something: the writer lived in between.
    pub fn heartbeat(&self) -> u64 {
        self.life.heartbeat()
    }
}

/// Scans a table's tree. A head that names no generation, which no honest writer stores, is passed over.
pub(crate) fn scan<W: Window, S: AsMut<[u64]>>(
    tree: &mut TreeReader<W, S>,
    mut visit: impl FnMut(u32, Generation) -> ControlFlow<()>,
) -> Scan {
    tree.scan(|slot, word| match Generation::from_word(word) {
        Some(generation) => visit(slot, generation),
        None => ControlFlow::Continue(()),
    })
}
