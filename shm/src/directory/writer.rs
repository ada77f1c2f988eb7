//! The side that registers regions.

use core::sync::atomic::Ordering::Relaxed;

use super::entry::encode;
use super::header::{DirectoryHeader, Writing};
use super::layout::{DirectoryError, DirectoryLayout};
use crate::field::RecordGroups;
use crate::region::Region;
use crate::slot::{Epoch, Generation, HeadAt, SlotWriter, WriteCursor};
use crate::tree::TreeWriter;
use crate::window::Window;

/// The one writer of a directory. `S` is storage of a word for each entry, a `Vec<u64>` or a `&mut [u64]`.
#[derive(Debug)]
pub struct DirectoryWriter<W, S> {
    layout: DirectoryLayout,
    tree: TreeWriter<W>,
    entries: RecordGroups<W>,
    cursors: S,
}

impl<W: Window, S: AsMut<[u64]>> DirectoryWriter<W, S> {
    /// Formats the start of `window` as a directory with vacant places only, whatever lay there before.
    ///
    /// # Errors
    ///
    /// [`DirectoryError::Window`], [`DirectoryError::Storage`].
    pub fn create(
        window: &W,
        layout: DirectoryLayout,
        epoch: Epoch,
        cursors: S,
    ) -> Result<Self, DirectoryError> {
        let header = DirectoryHeader {
            layout,
            epoch,
            writing: Writing::Enforced,
        };
        Self::create_with(window, header, cursors)
    }

    /// As [`DirectoryWriter::create`], with all that a header says.
    ///
    /// # Errors
    ///
    /// As for [`DirectoryWriter::create`].
    pub fn create_with(
        window: &W,
        header: DirectoryHeader,
        mut cursors: S,
    ) -> Result<Self, DirectoryError> {
        let DirectoryHeader { layout, epoch, .. } = header;
        let storage = cursors.as_mut();
        layout.check_storage(storage)?;
        storage.fill(WriteCursor::new(epoch).word());
        DirectoryHeader::withdraw(window)?;
        let directory = Self {
            layout,
            tree: TreeWriter::create(&layout.tree_window(window)?, layout.tree())?,
            entries: layout.carve_entries(window)?,
            cursors,
        };
        directory.forget_copies();
        header.announce(window)?;
        Ok(directory)
    }

    /// The directory's geometry.
    pub fn layout(&self) -> DirectoryLayout {
        self.layout
    }

    /// Puts a region in a place, or changes what is said of it there. A region's place is its
    /// handle's (`RegionHandle::slot`). Wait-free; reads nothing back.
    ///
    /// # Errors
    ///
    /// [`DirectoryError::NoSuchPlace`], and [`DirectoryError::Publish`] after 2^48 changes of one place.
    pub fn publish(&mut self, place: u32, region: &Region) -> Result<Generation, DirectoryError> {
        self.write(place, Some(region))
    }

    /// Makes a place vacant.
    ///
    /// # Errors
    ///
    /// As for [`DirectoryWriter::publish`].
    pub fn withdraw(&mut self, place: u32) -> Result<Generation, DirectoryError> {
        self.write(place, None)
    }

    /// A sequence that a former writer left behind could pass for one of ours.
    fn forget_copies(&self) {
        for index in 0..self.entries.len() {
            if let Some(copies) = self.entries.get(index) {
                for copy in 0..copies.count() {
                    copies.store_header(copy, 0, Relaxed);
                }
            }
        }
    }

    fn write(&mut self, place: u32, region: Option<&Region>) -> Result<Generation, DirectoryError> {
        let no_such_place = DirectoryError::NoSuchPlace {
            place,
            entries: self.layout.entries(),
        };
        let index = place as usize;
        let copies = self.entries.get(index).ok_or(no_such_place)?;
        let stored = self.cursors.as_mut().get_mut(index).ok_or(no_such_place)?;
        let mut cursor = WriteCursor::from_word(*stored);
        let head = HeadAt::new(self.tree.leaves(), index);
        let generation = SlotWriter::new(copies, head).publish(&mut cursor, &encode(region))?;
        *stored = cursor.word();
        self.tree.mark_parents(place);
        Ok(generation)
    }
}
