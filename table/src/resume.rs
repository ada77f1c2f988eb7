//! Going on after a writer's death.
//!
//! What it left is looked at as hostile input: every slot's last complete value is recovered by the slot's own checks,
//! and published again under the next epoch. Publishing a value twice is harmless, so dying here is, too.

use shmbus_shm::slot::{
    Epoch, Generation, HeadAt, ReadError, SlotReader, SlotWriter, SmallSlotReader, WriteCursor,
};
use shmbus_shm::{Entries, TreeWriter, Window};

use crate::age::Ages;
use crate::error::TableError;
use crate::flags::TableFlags;
use crate::header::{FIRST_BEAT, Header, Life};
use crate::layout::TableLayout;
use crate::slots::Values;
use crate::writer::{TableWriter, tree_area};

pub(crate) const MAX_SLOT_WORDS: usize = TableLayout::MAX_SLOT_BYTES as usize / 8;

/// What a new writer found of its predecessor's values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Slots whose last complete value was taken over.
    pub values: u32,
    /// Slots that had been written, but held nothing consistent: they count as never written. A writer's death does
    /// not do that; the memory was tampered with.
    pub lost: u32,
}

impl<W: Window, S: AsRef<[u64]> + AsMut<[u64]>> TableWriter<W, S> {
    /// Goes on in `window`, new memory, with the values of the table at the start of `from`. The new table is of the
    /// next epoch; readers of the old one go over to it by [`TableReader::rebind`](crate::TableReader::rebind).
    ///
    /// This is how a writer restarts that has lost its writable mapping, as one of sealed memory does.
    ///
    /// # Errors
    ///
    /// [`TableError`]: `from` is no table, its epochs are used up, or `window` or `cursors` is too small.
    pub fn resume<F: Window>(
        from: &F,
        window: W,
        cursors: S,
    ) -> Result<(Self, Recovered), TableError> {
        let old = Header::read(from)?;
        old.layout.check_kind(TableFlags::NONE)?;
        let header = next_life(old)?;
        let mut table = Self::format(&window, header, cursors)?;
        let contents = Contents::new(from, old)?;
        // A restart is a beat, and what is published again is as old as it was.
        table.beats = contents.beats + 1;
        let mut value = [0; MAX_SLOT_WORDS];
        let value = &mut value[..header.layout.slot_words()];
        let mut recovered = Recovered::default();
        for slot in 0..header.layout.slots() {
            match contents.recover(slot, value) {
                Ok(_) => {
                    // Nobody reads the new memory yet: there is nobody to be told.
                    let _ = table.publish_at(contents.published(slot), slot, value)?;
                    recovered.values += 1;
                }
                Err(ReadError::NeverWritten) => {}
                Err(_) => recovered.lost += 1,
            }
        }
        header.announce(&window, table.beats)?;
        Ok((table, recovered))
    }

    /// Goes on in the dead writer's memory, under its readers' eyes. Each slot keeps a complete value all the time,
    /// also if this writer dies in turn. Readers that sleep must be woken once.
    ///
    /// # Errors
    ///
    /// [`TableError`]: `window` holds no table, its epochs are used up, a slot's generations are, or `cursors` is too
    /// short.
    pub fn resume_in_place(window: W, cursors: S) -> Result<(Self, Recovered), TableError> {
        let old = Header::read(&window)?;
        old.layout.check_kind(TableFlags::NONE)?;
        let header = next_life(old)?;
        let contents = Contents::new(&window, old)?;
        let area = tree_area(&window, old.layout)?;
        let tree = TreeWriter::resume(&area, old.layout.tree())?;
        let mut table = Self::over(&window, header, tree, cursors)?;
        // First, so that the next life is always later than any generation in the slots.
        table.enter_epoch();
        let mut value = [0; MAX_SLOT_WORDS];
        let value = &mut value[..header.layout.slot_words()];
        let mut recovered = Recovered::default();
        for slot in 0..header.layout.slots() {
            match contents.recover(slot, value) {
                Ok(last) => {
                    table.take_over(slot, last);
                    let _ = table.publish_at(contents.published(slot), slot, value)?;
                    recovered.values += 1;
                }
                Err(ReadError::NeverWritten) => {}
                Err(_) => {
                    table.give_up(slot);
                    recovered.lost += 1;
                }
            }
        }
        Ok((table, recovered))
    }

    /// Takes the dead writer's last step in a slot, so that no reader has seen more than the head names, and continues
    /// its count, so that the next write spares the copy of `last`.
    fn take_over(&mut self, slot: u32, last: Generation) {
        if let Some(copies) = self.values.copies.get(slot as usize) {
            SlotWriter::new(copies, HeadAt::new(self.tree.leaves(), slot as usize)).finish(last);
        }
        if let Some(cursor) = self.cursors.as_mut().get_mut(slot as usize) {
            *cursor = WriteCursor::after(last, self.header.epoch).word();
        }
    }

    /// Makes a slot that holds nothing consistent one that was never written.
    fn give_up(&mut self, slot: u32) {
        self.tree.mark(slot, 0);
        if let Some(ages) = &self.ages {
            ages.set(slot, 0);
        }
        if let Some(copies) = self.values.copies.get(slot as usize) {
            for copy in 0..copies.count() {
                copies.store_header(copy, 0, core::sync::atomic::Ordering::Relaxed);
            }
        }
    }
}

pub(crate) fn next_life(old: Header) -> Result<Header, TableError> {
    let epoch = old.epoch.next().ok_or(TableError::EpochsUsedUp)?;
    Ok(Header { epoch, ..old })
}

/// What a dead writer left.
pub(crate) struct Contents<W> {
    pub(crate) epoch: Epoch,
    /// The last heartbeat.
    pub(crate) beats: u64,
    ages: Option<Ages<W>>,
    pub(crate) heads: Entries<u64, W>,
    pub(crate) values: Values<W>,
}

impl<W: Window> Contents<W> {
    pub(crate) fn new(window: &W, header: Header) -> Result<Self, TableError> {
        let tree = header.layout.tree();
        let heads = header.layout.tree_offset() + tree.offset(tree.levels());
        Ok(Self {
            epoch: header.epoch,
            beats: Life::new(window)?.last_heartbeat(),
            ages: Ages::new(window, header.layout)?,
            heads: Entries::new(window, heads, tree.nodes(tree.levels()))?,
            values: Values::new(window, header.layout)?,
        })
    }

    /// The heartbeat at which a slot was last published, as far as that can be.
    pub(crate) fn published(&self, slot: u32) -> u64 {
        let beats = self.ages.as_ref().map_or(self.beats, |ages| ages.get(slot));
        beats.clamp(FIRST_BEAT, self.beats)
    }

    /// Reads a slot's last complete value into `value`, whatever the slot holds.
    fn recover(&self, slot: u32, value: &mut [u64]) -> Result<Generation, ReadError> {
        let index = slot as usize;
        let head = HeadAt::new(&self.heads, index);
        match (&self.values.words, &self.values.pairs) {
            (None, None) => {
                let copies = self
                    .values
                    .copies
                    .get(index)
                    .ok_or(ReadError::NeverWritten)?;
                SlotReader::new(copies, head).recover(self.epoch, value)
            }
            (None, Some(pairs)) => {
                let (pair, generation) =
                    SmallSlotReader::new(pairs, index, head).recover(self.epoch)?;
                for (to, word) in value.iter_mut().zip(pair) {
                    *to = word;
                }
                Ok(generation)
            }
            (Some(words), _) => {
                let (word, generation) =
                    SmallSlotReader::new(words, index, head).recover(self.epoch)?;
                value.fill(word);
                Ok(generation)
            }
        }
    }
}
