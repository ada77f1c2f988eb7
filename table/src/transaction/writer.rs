//! The one writing side of a table with transactions.

use core::sync::atomic::Ordering::{Relaxed, Release};

use shmbus_shm::slot::{
    Epoch, Generation, HeadStore, NumberedSlotWriter, PublishError, WriteCursor,
};
use shmbus_shm::{Field, Notify, Window};

use super::staging::Staging;
use crate::error::TableError;
use crate::flags::TableFlags;
use crate::header::Header;
use crate::layout::{COMMIT_OFFSET, TableLayout};
use crate::writer::{TableWriter, TreeHead};

/// Of a word that stands for a slot's last generation, the bit that no generation has: the slot is staged.
const STAGED: u64 = 1 << 63;

/// The one writer of a table with transactions. `S` is storage of words, a `Vec<u64>` or a `&mut [u64]`.
///
/// What a transaction is to write is kept in the writer's own memory until it is committed, and then written in one go,
/// no slot twice. So a transaction that is dropped has written nothing, and nothing that was not committed can look as
/// if it were. A writer that dies in the middle leaves the last committed state to [`TransactionWriter::resume`], in
/// new memory: in the old one, a later transaction would commit what the dead one did not come to.
#[derive(Debug)]
pub struct TransactionWriter<W, S> {
    pub(super) table: TableWriter<W, S>,
    commit: Field<u64, W>,
    /// The last committed transaction.
    number: WriteCursor,
    staging: Staging<S>,
}

impl<W: Window, S: AsRef<[u64]> + AsMut<[u64]>> TransactionWriter<W, S> {
    /// Sets up a table with transactions, as [`TableWriter::create`] sets up one without. `cursors` has a word for each
    /// slot; `staging` is what values wait in for their transaction:
    /// [`staging_words`](TransactionWriter::staging_words) words.
    ///
    /// # Errors
    ///
    /// [`TableError::Kind`] if `layout` is of a table without transactions, [`TableError::Window`] and
    /// [`TableError::Storage`].
    pub fn create(
        window: W,
        layout: TableLayout,
        type_id: u32,
        epoch: Epoch,
        cursors: S,
        staging: S,
    ) -> Result<Self, TableError> {
        layout.check_kind(TableFlags::TRANSACTIONS)?;
        let header = Header {
            layout,
            type_id,
            epoch,
        };
        let writer = Self::format(&window, header, cursors, staging)?;
        header.announce(&window, writer.table.beats)?;
        Ok(writer)
    }

    /// Sets up everything but the header, which makes a table of it.
    pub(super) fn format(
        window: &W,
        header: Header,
        cursors: S,
        staging: S,
    ) -> Result<Self, TableError> {
        let table = TableWriter::format(window, header, cursors)?;
        let commit = Field::new(window, COMMIT_OFFSET)?;
        commit.store(0, Relaxed);
        Ok(Self {
            table,
            commit,
            number: WriteCursor::new(header.epoch),
            staging: Staging::new(staging, header.layout.slot_words()),
        })
    }

    /// How many words of storage transactions of up to `slots` slots need. Publishing single slots needs none.
    pub fn staging_words(layout: TableLayout, slots: usize) -> usize {
        slots * (1 + layout.slot_words())
    }

    /// Begins a transaction. Until it is committed, nobody notices.
    pub fn begin(&mut self) -> Transaction<'_, W, S> {
        self.forget_staged();
        Transaction { writer: self }
    }

    /// Publishes `value`, which fills the slot, in a transaction of its own, and says whether the table's channel is to
    /// be told. Wait-free, without a load: the `words + 4` stores of slot and head, one for the commit word, one for
    /// each level of the generation tree, and one for the slot's age.
    ///
    /// # Errors
    ///
    /// [`TableError::NoSuchSlot`], [`TableError::Publish`] and [`TableError::TransactionsUsedUp`]; nothing was written
    /// then.
    pub fn publish(
        &mut self,
        slot: u32,
        value: &[u64],
    ) -> Result<(Generation, Notify), TableError> {
        self.forget_staged();
        let generation = self.check(slot, value)?;
        let number = self.next_number()?;
        write(&self.table, slot, number, value);
        self.commit(number);
        name(&mut self.table, slot);
        Ok((generation, Notify::Yes))
    }

    /// The transaction committed last, in this epoch.
    pub fn committed(&self) -> Option<Generation> {
        self.number.generation()
    }

    /// The generation last published in a slot in this epoch.
    pub fn generation(&self, slot: u32) -> Option<Generation> {
        let word = self.table.cursors.as_ref().get(slot as usize)?;
        WriteCursor::from_word(word & !STAGED).generation()
    }

    /// Shows readers that the writer lives, as [`TableWriter::beat`] does.
    pub fn beat(&mut self) {
        self.table.beat();
    }

    /// The table's geometry.
    pub fn layout(&self) -> TableLayout {
        self.table.layout()
    }

    /// What the table's values mean.
    pub fn type_id(&self) -> u32 {
        self.table.type_id()
    }

    /// The writer's life.
    pub fn epoch(&self) -> Epoch {
        self.table.epoch()
    }

    /// That `value` can be published; the generation that it will get.
    fn check(&self, slot: u32, value: &[u64]) -> Result<Generation, TableError> {
        let (slots, expected) = (self.layout().slots(), self.layout().slot_words());
        let stored = self.table.cursors.as_ref().get(slot as usize);
        let Some(stored) = stored.filter(|_| slot < slots) else {
            return Err(TableError::NoSuchSlot { slot, slots });
        };
        if value.len() != expected {
            let found = value.len();
            return Err(PublishError::WrongLength { expected, found }.into());
        }
        next(*stored).ok_or(TableError::Publish(PublishError::Exhausted))
    }

    pub(super) fn next_number(&self) -> Result<Generation, TableError> {
        self.number.next().ok_or(TableError::TransactionsUsedUp)
    }

    /// Makes visible what was written as `number`.
    pub(super) fn commit(&mut self, number: Generation) {
        // Release: who finds this number finds the copies of its transaction, and the heads of those before.
        self.commit.store(number.word(), Release);
        self.number = WriteCursor::after(number, number.epoch());
    }

    /// Forgets what a transaction staged that was not committed: nothing happens when one is dropped, so it may be
    /// leaked.
    fn forget_staged(&mut self) {
        let cursors = self.table.cursors.as_mut();
        for slot in self.staging.slots() {
            if let Some(stored) = cursors.get_mut(slot as usize) {
                *stored &= !STAGED;
            }
        }
        self.staging.clear();
    }

    fn stage(&mut self, slot: u32, value: &[u64]) -> Result<(), TableError> {
        self.check(slot, value)?;
        let Some(stored) = self.table.cursors.as_mut().get_mut(slot as usize) else {
            let slots = self.layout().slots();
            return Err(TableError::NoSuchSlot { slot, slots });
        };
        if *stored & STAGED != 0 {
            self.staging.replace(slot, value);
        } else if self.staging.add(slot, value) {
            *stored |= STAGED;
        } else {
            let capacity = self.staging.capacity();
            return Err(TableError::Staging { capacity });
        }
        Ok(())
    }

    fn commit_staged(&mut self) -> Result<(Generation, Notify), TableError> {
        let number = self.next_number()?;
        for (slot, value) in self.staging.writes() {
            write(&self.table, slot, number, value);
        }
        self.commit(number);
        for slot in self.staging.slots() {
            name(&mut self.table, slot);
        }
        let is_empty = self.staging.len() == 0;
        self.staging.clear();
        Ok((number, if is_empty { Notify::No } else { Notify::Yes }))
    }
}

/// The generation after that of a slot's word.
fn next(stored: u64) -> Option<Generation> {
    WriteCursor::from_word(stored & !STAGED).next()
}

/// Writes the next copy of a slot that was checked. Nobody takes it before its number is committed.
pub(super) fn write<W: Window, S: AsRef<[u64]>>(
    table: &TableWriter<W, S>,
    slot: u32,
    number: Generation,
    value: &[u64],
) {
    let stored = table.cursors.as_ref().get(slot as usize);
    if let Some(generation) = stored.and_then(|stored| next(*stored))
        && let Some(copies) = table.values.copies.get(slot as usize)
    {
        NumberedSlotWriter::new(copies).write(generation, number, value);
    }
}

/// Names the generation that was written and committed in the slot's head, and announces it.
fn name<W: Window, S: AsRef<[u64]> + AsMut<[u64]>>(table: &mut TableWriter<W, S>, slot: u32) {
    let beats = table.beats;
    name_at(table, beats, slot);
}

/// The same of a value that is as old as heartbeat `beats`.
pub(super) fn name_at<W: Window, S: AsRef<[u64]> + AsMut<[u64]>>(
    table: &mut TableWriter<W, S>,
    beats: u64,
    slot: u32,
) {
    let stored = table.cursors.as_mut().get_mut(slot as usize);
    if let Some(stored) = stored
        && let Some(generation) = next(*stored)
    {
        // Also no longer staged.
        *stored = generation.word();
        let mut head = TreeHead {
            tree: &mut table.tree,
            ages: table.ages.as_ref(),
            beats,
            slot,
        };
        head.store(generation);
    }
}

/// Values of several slots, which become visible together, when and if they are committed. Dropped, it changes nothing.
#[must_use = "a transaction that is not committed changes nothing"]
#[derive(Debug)]
pub struct Transaction<'t, W, S> {
    writer: &'t mut TransactionWriter<W, S>,
}

impl<W: Window, S: AsRef<[u64]> + AsMut<[u64]>> Transaction<'_, W, S> {
    /// Adds `value`, which fills the slot. A slot that was staged before gets this value instead, at the cost of
    /// finding it among those staged.
    ///
    /// # Errors
    ///
    /// [`TableError::NoSuchSlot`], [`TableError::Publish`] and [`TableError::Staging`]; the transaction is as it was.
    pub fn stage(&mut self, slot: u32, value: &[u64]) -> Result<(), TableError> {
        self.writer.stage(slot, value)
    }

    /// How many slots are staged.
    pub fn len(&self) -> usize {
        self.writer.staging.len()
    }

    /// Whether no slot is staged.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes all that was staged, and makes it visible by one store. Returns the transaction's number, and whether the
    /// table's channel is to be told. Without a load: for each slot the stores of
    /// [`publish`](TransactionWriter::publish), and one for the commit word.
    ///
    /// # Errors
    ///
    /// [`TableError::TransactionsUsedUp`]; nothing was written then.
    pub fn commit(self) -> Result<(Generation, Notify), TableError> {
        self.writer.commit_staged()
    }
}
