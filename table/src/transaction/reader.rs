//! A reader of a table with transactions.

use core::ops::ControlFlow;

use shmbus_shm::slot::{
    Epoch, Generation, HeadAt, NumberedSlotReader, ReadCursor, ReadError, TRIES, load_commit,
};
use shmbus_shm::{Field, RecordGroups, Scan, TreeReader, Window};

use super::error::SnapshotError;
use crate::age::{Age, AgeError, Ages};
use crate::error::TableError;
use crate::flags::TableFlags;
use crate::header::{Header, Life};
use crate::layout::{COMMIT_OFFSET, TableLayout};
use crate::reader::scan;
use crate::slots::Values;
use crate::writer::tree_area;

/// A reader of a table with transactions: a read-only mapping is enough. `S` is storage of a word for each slot, a
/// `Vec<u64>` or a `&mut [u64]`.
///
/// Whatever it reads in one call is as of one committed transaction, and never as of an earlier one than it read
/// before.
#[derive(Debug)]
pub struct SnapshotReader<W, S> {
    layout: TableLayout,
    type_id: u32,
    tree: TreeReader<W, S>,
    parts: Parts<W>,
    /// The place in the history of transactions.
    last: ReadCursor,
    cursors: S,
}

/// What lies in the writer's memory, besides the tree.
#[derive(Debug)]
struct Parts<W> {
    life: Life<W>,
    ages: Option<Ages<W>>,
    commit: Field<u64, W>,
    copies: RecordGroups<W>,
}

impl<W: Window> Parts<W> {
    fn new(window: &W, layout: TableLayout) -> Result<Self, TableError> {
        Ok(Self {
            life: Life::new(window)?,
            ages: Ages::new(window, layout)?,
            commit: Field::new(window, COMMIT_OFFSET)?,
            copies: Values::new(window, layout)?.copies,
        })
    }
}

impl<W: Window, S: AsRef<[u64]> + AsMut<[u64]>> SnapshotReader<W, S> {
    /// Reads the table at the start of `window`, as [`TableReader::attach`](crate::TableReader::attach) does.
    ///
    /// # Errors
    ///
    /// [`TableError`]; [`TableError::Kind`] if the table has no transactions.
    pub fn attach(window: W, mut cursors: S, seen: S) -> Result<Self, TableError> {
        let header = Header::read(&window)?;
        let layout = header.layout;
        layout.check_kind(TableFlags::TRANSACTIONS)?;
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
            tree: TreeReader::new(&area, layout.tree(), seen)?,
            parts: Parts::new(&window, layout)?,
            last: ReadCursor::default(),
            cursors,
        })
    }

    /// Goes over to the writer's new memory, as [`TableReader::rebind`](crate::TableReader::rebind) does. A restart is
    /// reported once for the table ([`SnapshotError::Restarted`]).
    ///
    /// # Errors
    ///
    /// [`TableError`]; the reader then stays with the old memory.
    pub fn rebind(&mut self, window: W) -> Result<Epoch, TableError> {
        let header = Header::read(&window)?;
        header.check_successor(self.layout, self.type_id)?;
        let parts = Parts::new(&window, self.layout)?;
        self.tree.rebind(&tree_area(&window, self.layout)?)?;
        self.parts = parts;
        Ok(header.epoch)
    }

    /// Reads a slot's value as of the last committed transaction into `value`, as many words as that and the slot both
    /// have. At most [`max_snapshot_loads`](super::max_snapshot_loads) of one slot.
    ///
    /// # Errors
    ///
    /// [`SnapshotError`]; `value` holds nothing meaningful then.
    pub fn read(&mut self, slot: u32, value: &mut [u64]) -> Result<Generation, SnapshotError> {
        self.check_slot(slot)?;
        for _ in 0..TRIES {
            let commit = load_commit(&self.parts.commit, &mut self.last)
                .map_err(SnapshotError::of_commit)?;
            match self.read_as_of(commit, slot, value) {
                Ok(Some(generation)) => return Ok(generation),
                Ok(None) => return Err(SnapshotError::NeverWritten),
                Err(SnapshotError::Lapped { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Err(SnapshotError::Lapped { slot })
    }

    /// Reads several slots as one, and returns the transaction that they are as of: `None` if there was none yet. The
    /// values go into `values`, one after the other; their generations into `generations`, `None` for a slot that had
    /// no value then. At most [`max_snapshot_loads`](super::max_snapshot_loads) loads.
    ///
    /// The snapshot is at least as new as the last transaction that was committed when the call began. It is disturbed,
    /// and begun anew, only when one of the slots is written in as many transactions as it has copies while it is
    /// taken.
    ///
    /// # Errors
    ///
    /// [`SnapshotError`]; the buffers hold nothing meaningful then.
    pub fn read_together(
        &mut self,
        slots: &[u32],
        values: &mut [u64],
        generations: &mut [Option<Generation>],
    ) -> Result<Option<Generation>, SnapshotError> {
        let words = slots.len() * self.layout.slot_words();
        if values.len() != words || generations.len() != slots.len() {
            return Err(SnapshotError::Buffers {
                slots: slots.len(),
                words,
                found_words: values.len(),
                found_generations: generations.len(),
            });
        }
        slots.iter().try_for_each(|slot| self.check_slot(*slot))?;
        let mut lapped = SnapshotError::NeverWritten;
        for _ in 0..TRIES {
            let commit = match load_commit(&self.parts.commit, &mut self.last) {
                Ok(commit) => commit,
                Err(ReadError::NeverWritten) => {
                    generations.fill(None);
                    return Ok(None);
                }
                Err(error) => return Err(SnapshotError::of_commit(error)),
            };
            match self.read_all_as_of(commit, slots, values, generations) {
                Ok(()) => return Ok(Some(commit)),
                Err(error @ SnapshotError::Lapped { .. }) => lapped = error,
                Err(error) => return Err(error),
            }
        }
        Err(lapped)
    }

    fn read_all_as_of(
        &mut self,
        commit: Generation,
        slots: &[u32],
        values: &mut [u64],
        generations: &mut [Option<Generation>],
    ) -> Result<(), SnapshotError> {
        let values = values.chunks_exact_mut(self.layout.slot_words());
        for ((slot, value), generation) in slots.iter().zip(values).zip(generations) {
            *generation = self.read_as_of(commit, *slot, value)?;
        }
        Ok(())
    }

    #[inline]
    fn read_as_of(
        &mut self,
        commit: Generation,
        slot: u32,
        value: &mut [u64],
    ) -> Result<Option<Generation>, SnapshotError> {
        let index = slot as usize;
        let (Some(copies), Some(stored)) = (
            self.parts.copies.get(index),
            self.cursors.as_mut().get_mut(index),
        ) else {
            let slots = self.layout.slots();
            return Err(SnapshotError::NoSuchSlot { slot, slots });
        };
        let mut cursor = ReadCursor::from_word(*stored);
        let head = HeadAt::new(self.tree.leaves(), index);
        let reader = NumberedSlotReader::new(copies, head);
        match reader.read_as_of(commit, &mut cursor, value) {
            Ok(generation) => {
                *stored = cursor.word();
                Ok(generation)
            }
            Err(ReadError::Lapped) => Err(SnapshotError::Lapped { slot }),
            Err(source) => Err(SnapshotError::Slot { slot, source }),
        }
    }

    fn check_slot(&self, slot: u32) -> Result<(), SnapshotError> {
        let slots = self.layout.slots();
        if slot >= slots {
            return Err(SnapshotError::NoSuchSlot { slot, slots });
        }
        Ok(())
    }

    /// Reports every slot that was written since it was last reported, as
    /// [`TableReader::changed`](crate::TableReader::changed) does. What is reported is committed: what is read then is
    /// at least as new.
    pub fn changed(&mut self, mut report: impl FnMut(u32, Generation)) -> Scan {
        self.scan(|slot, generation| {
            report(slot, generation);
            ControlFlow::Continue(())
        })
    }

    /// Reports as [`SnapshotReader::changed`] does, until `visit` breaks off; see
    /// [`TableReader::scan`](crate::TableReader::scan).
    pub fn scan(&mut self, visit: impl FnMut(u32, Generation) -> ControlFlow<()>) -> Scan {
        scan(&mut self.tree, visit)
    }

    /// How long ago a slot was last published, as [`TableReader::age`](crate::TableReader::age) says.
    ///
    /// # Errors
    ///
    /// [`AgeError`].
    pub fn age(&self, slot: u32) -> Result<Age, AgeError> {
        Ages::age(
            self.parts.ages.as_ref(),
            &self.parts.life,
            self.layout,
            slot,
        )
    }

    /// The generation that was read last from a slot.
    pub fn generation(&self, slot: u32) -> Option<Generation> {
        let word = self.cursors.as_ref().get(slot as usize)?;
        ReadCursor::from_word(*word).generation()
    }

    /// The newest transaction that a read was as of.
    pub fn committed(&self) -> Option<Generation> {
        self.last.generation()
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
        self.parts.life.epoch()
    }

    /// The writer's heartbeat, for [`Silence`](crate::Silence).
    pub fn heartbeat(&self) -> u64 {
        self.parts.life.heartbeat()
    }
}
