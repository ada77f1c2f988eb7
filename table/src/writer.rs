//! The one writing side of a table.

use core::sync::atomic::Ordering::{Relaxed, Release};

use shmbus_shm::slot::{
    Epoch, Generation, HeadStore, PublishError, SlotWriter, SmallSlotWriter, WriteCursor,
};
use shmbus_shm::{Notify, TreeWriter, Window};

use crate::age::Ages;
use crate::error::TableError;
use crate::flags::TableFlags;
use crate::header::{FIRST_BEAT, Header, Life};
use crate::layout::TableLayout;
use crate::resume::next_life;
use crate::slots::Values;

/// The one writer of a table. `S` is storage of a word for each slot, a `Vec<u64>` or a `&mut [u64]`.
///
/// What it has written it keeps there, and in steady state it loads nothing from the shared memory.
#[derive(Debug)]
pub struct TableWriter<W, S> {
    pub(crate) header: Header,
    life: Life<W>,
    /// The heartbeat: 1 in a new table, so that 0 is before all.
    pub(crate) beats: u64,
    pub(crate) ages: Option<Ages<W>>,
    pub(crate) tree: TreeWriter<W>,
    pub(crate) values: Values<W>,
    pub(crate) cursors: S,
}

impl<W: Window, S: AsRef<[u64]> + AsMut<[u64]>> TableWriter<W, S> {
    /// Sets up a table of `type_id` values at the start of `window`, in which no slot was ever written. Whatever the
    /// memory held before is overwritten; its readers are told nothing.
    ///
    /// # Errors
    ///
    /// [`TableError::Kind`], [`TableError::Window`] and [`TableError::Storage`].
    pub fn create(
        window: W,
        layout: TableLayout,
        type_id: u32,
        epoch: Epoch,
        cursors: S,
    ) -> Result<Self, TableError> {
        let header = Header {
            layout,
            type_id,
            epoch,
        };
        layout.check_kind(TableFlags::NONE)?;
        let table = Self::format(&window, header, cursors)?;
        header.announce(&window, table.beats)?;
        Ok(table)
    }

    /// Sets up everything but the header, which makes a table of it.
    pub(crate) fn format(window: &W, header: Header, cursors: S) -> Result<Self, TableError> {
        header.layout.check_fits(window.len())?;
        // Before anything is written: whether the machine promises what the layout needs.
        Values::new(window, header.layout)?;
        Header::withdraw(window)?;
        let area = tree_area(window, header.layout)?;
        let tree = TreeWriter::create(&area, header.layout.tree())?;
        let table = Self::over(window, header, tree, cursors)?;
        table.clear();
        Ok(table)
    }

    /// A writer over memory that is set up.
    pub(crate) fn over(
        window: &W,
        header: Header,
        tree: TreeWriter<W>,
        mut cursors: S,
    ) -> Result<Self, TableError> {
        let slots = header.layout.slots();
        let found = cursors.as_ref().len();
        if found < slots as usize {
            return Err(TableError::Storage {
                expected: slots,
                found,
            });
        }
        cursors.as_mut().fill(WriteCursor::new(header.epoch).word());
        Ok(Self {
            header,
            life: Life::new(window)?,
            beats: FIRST_BEAT,
            ages: Ages::new(window, header.layout)?,
            tree,
            values: Values::new(window, header.layout)?,
            cursors,
        })
    }

    /// Zeroes the sequences, so that no reader takes a copy that some earlier table left for one of this epoch.
    fn clear(&self) {
        if let Some(ages) = &self.ages {
            ages.clear();
        }
        match (&self.values.words, &self.values.pairs) {
            (Some(words), _) => {
                for slot in 0..words.count() {
                    words.store(slot, 0, Relaxed);
                }
            }
            (None, Some(pairs)) => {
                for slot in 0..pairs.count() {
                    pairs.store(slot, [0; 2]);
                }
            }
            (None, None) => {
                let groups = &self.values.copies;
                for copies in (0..groups.len()).filter_map(|slot| groups.get(slot)) {
                    for copy in 0..copies.count() {
                        copies.store_header(copy, 0, Relaxed);
                    }
                }
            }
        }
    }

    /// Publishes `value`, which fills the slot, and says whether the table's channel is to be told. Wait-free, without
    /// a load: the slot's `words + 3` stores and one for each level of the generation tree, and one for its age.
    ///
    /// # Errors
    ///
    /// [`TableError::NoSuchSlot`] and [`TableError::Publish`]; nothing was written then.
    #[inline(always)]
    pub fn publish(
        &mut self,
        slot: u32,
        value: &[u64],
    ) -> Result<(Generation, Notify), TableError> {
        self.publish_at(self.beats, slot, value)
    }

    /// Publishes a value that is as old as heartbeat `beats`.
    #[inline(always)]
    pub(crate) fn publish_at(
        &mut self,
        beats: u64,
        slot: u32,
        value: &[u64],
    ) -> Result<(Generation, Notify), TableError> {
        // Larger slots are inlined where the value's length may be known.
        let index = slot as usize;
        if let Some(copies) = self.values.copies.get(index)
            && let Some(stored) = self.cursors.as_mut().get_mut(index)
        {
            let head = TreeHead {
                tree: &mut self.tree,
                ages: self.ages.as_ref(),
                beats,
                slot,
            };
            let mut cursor = WriteCursor::from_word(*stored);
            let generation = SlotWriter::new(copies, head).publish(&mut cursor, value)?;
            *stored = cursor.word();
            // A table does not know who listens: suppressing what nobody waits for is the channel's part.
            return Ok((generation, Notify::Yes));
        }
        Ok((self.publish_cell(beats, slot, value)?, Notify::Yes))
    }

    /// Publishes the value of a slot that is accessed at once.
    #[inline(never)]
    fn publish_cell(
        &mut self,
        beats: u64,
        slot: u32,
        value: &[u64],
    ) -> Result<Generation, TableError> {
        let (index, expected) = (slot as usize, self.header.layout.slot_words());
        let (stored, values, head) = self.place(beats, slot)?;
        let mut cursor = WriteCursor::from_word(*stored);
        let generation = match (&values.words, &values.pairs, value) {
            (Some(words), _, &[word]) => {
                SmallSlotWriter::new(words, index, head).publish(&mut cursor, word)?
            }
            (_, Some(pairs), &[first, second]) => {
                SmallSlotWriter::new(pairs, index, head).publish(&mut cursor, [first, second])?
            }
            _ => {
                return Err(TableError::Publish(PublishError::WrongLength {
                    expected,
                    found: value.len(),
                }));
            }
        };
        *stored = cursor.word();
        Ok(generation)
    }

    /// Publishes a value that is as old as heartbeat `beats`, as a generation that is later than the slot's last one but
    /// need not be the next: what another writer published.
    pub(crate) fn publish_as(
        &mut self,
        beats: u64,
        slot: u32,
        generation: Generation,
        value: &[u64],
    ) -> Result<(), TableError> {
        let (index, expected) = (slot as usize, self.header.layout.slot_words());
        let (stored, values, head) = self.place(beats, slot)?;
        let mut cursor = WriteCursor::from_word(*stored);
        match (
            &values.words,
            &values.pairs,
            values.copies.get(index),
            value,
        ) {
            (Some(words), _, _, &[word]) => SmallSlotWriter::new(words, index, head).publish_as(
                &mut cursor,
                generation,
                word,
            )?,
            (_, Some(pairs), _, &[first, second]) => SmallSlotWriter::new(pairs, index, head)
                .publish_as(&mut cursor, generation, [first, second])?,
            (_, _, Some(copies), value) => {
                SlotWriter::new(copies, head).publish_as(&mut cursor, generation, value)?;
            }
            _ => {
                return Err(TableError::Publish(PublishError::WrongLength {
                    expected,
                    found: value.len(),
                }));
            }
        }
        *stored = cursor.word();
        Ok(())
    }

    /// What belongs to a slot: its cursor, the values that its own is among, and its head.
    fn place(
        &mut self,
        beats: u64,
        slot: u32,
    ) -> Result<(&mut u64, &Values<W>, TreeHead<'_, W>), TableError> {
        let slots = self.header.layout.slots();
        let stored = self.cursors.as_mut().get_mut(slot as usize);
        let Some(stored) = stored.filter(|_| slot < slots) else {
            return Err(TableError::NoSuchSlot { slot, slots });
        };
        let head = TreeHead {
            tree: &mut self.tree,
            ages: self.ages.as_ref(),
            beats,
            slot,
        };
        Ok((stored, &self.values, head))
    }

    /// Shows readers that the writer lives, though it has nothing new to say. In a table with ages this is to be called
    /// every [`TableLayout::beat_ns`] nanoseconds: slots count their age in such beats.
    pub fn beat(&mut self) {
        self.beats = self.beats.wrapping_add(1);
        self.life.set_heartbeat(self.beats);
    }

    /// The generation last published in a slot in this epoch.
    pub fn generation(&self, slot: u32) -> Option<Generation> {
        let word = self.cursors.as_ref().get(slot as usize)?;
        WriteCursor::from_word(*word).generation()
    }

    /// The table's geometry.
    pub fn layout(&self) -> TableLayout {
        self.header.layout
    }

    /// What the table's values mean.
    pub fn type_id(&self) -> u32 {
        self.header.type_id
    }

    /// The writer's life.
    pub fn epoch(&self) -> Epoch {
        self.header.epoch
    }

    /// Passes on the heartbeat of another writer.
    pub(crate) fn set_beats(&mut self, beats: u64) {
        self.beats = beats;
        self.life.set_heartbeat(beats);
    }

    /// Goes on under the next epoch.
    pub(crate) fn go_on(&mut self) -> Result<(), TableError> {
        self.header = next_life(self.header)?;
        self.life.set_epoch(self.header.epoch);
        Ok(())
    }

    /// Begins a new life in memory that readers are attached to.
    pub(crate) fn enter_epoch(&mut self) {
        self.life.set_epoch(self.header.epoch);
        self.beats = self.life.last_heartbeat();
        self.beat();
    }
}

/// The window of the generation tree, which starts on a line of its own if the table does.
pub(crate) fn tree_area<W: Window>(window: &W, layout: TableLayout) -> Result<W, TableError> {
    Ok(window.narrow(layout.tree_offset(), layout.tree().bytes())?)
}

/// A slot's head is its leaf: naming a generation also marks the way to it.
pub(crate) struct TreeHead<'a, W> {
    pub(crate) tree: &'a mut TreeWriter<W>,
    pub(crate) ages: Option<&'a Ages<W>>,
    pub(crate) beats: u64,
    pub(crate) slot: u32,
}

impl<W: Window> HeadStore for TreeHead<'_, W> {
    #[inline(always)]
    fn store(&mut self, generation: Generation) {
        let Some(ages) = self.ages else {
            self.tree.mark(self.slot, generation.word());
            return;
        };
        self.tree
            .leaves()
            .store(self.slot as usize, generation.word(), Release);
        // After the head: who finds the age finds a value that is not older. Before the stamps: who is told of the
        // change finds its age.
        ages.set(self.slot, self.beats);
        self.tree.mark_parents(self.slot);
    }
}
