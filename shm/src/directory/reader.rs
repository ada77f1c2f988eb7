//! Everybody who wants to know what there is.

use super::entry::{ENTRY_WORDS, EntryError, decode};
use super::header::DirectoryHeader;
use super::layout::DirectoryError;
use crate::field::RecordGroups;
use crate::region::Region;
use crate::slot::{HeadAt, ReadCursor, ReadError, SlotReader};
use crate::tree::{Scan, TreeReader};
use crate::window::Window;

/// A reader of a directory. `S` is storage of a word for each entry, a `Vec<u64>` or a `&mut [u64]`.
#[derive(Debug)]
pub struct DirectoryReader<W, S> {
    header: DirectoryHeader,
    tree: TreeReader<W, S>,
    entries: RecordGroups<W>,
    cursors: S,
}

impl<W: Window, S: AsMut<[u64]>> DirectoryReader<W, S> {
    /// Reads the directory at the start of `window`. Its geometry is checked and frozen here.
    ///
    /// # Errors
    ///
    /// [`DirectoryError`].
    pub fn attach(window: &W, seen: S, mut cursors: S) -> Result<Self, DirectoryError> {
        let header = DirectoryHeader::read(window)?;
        let layout = header.layout;
        layout.check_storage(cursors.as_mut())?;
        cursors.as_mut().fill(ReadCursor::default().word());
        Ok(Self {
            header,
            tree: TreeReader::new(&layout.tree_window(window)?, layout.tree(), seen)?,
            entries: layout.carve_entries(window)?,
            cursors,
        })
    }

    /// What the directory said of itself when it was attached.
    pub fn header(&self) -> DirectoryHeader {
        self.header
    }

    /// Reports the place and the contents of each entry that changed since it was last reported: a region, a vacant
    /// place, or why neither could be read.
    ///
    /// One load when nothing changed. Otherwise the work is proportional to what changed, and bounded by the
    /// directory's size whatever its writer does. A place may be reported again with what was reported before. It never
    /// pauses: [`Scan::Finished`] means everything that had changed when the call began.
    pub fn changed(
        &mut self,
        mut report: impl FnMut(u32, Result<Option<Region>, EntryError>),
    ) -> Scan {
        let Self {
            tree,
            entries,
            cursors,
            ..
        } = self;
        let heads = tree.leaves().clone();
        tree.changed(|place, _| {
            let head = HeadAt::new(&heads, place as usize);
            if let Some(entry) = read(entries, head, place as usize, cursors.as_mut()) {
                report(place, entry);
            }
        })
    }

    /// Whether nothing is left to report. One load.
    pub fn is_unchanged(&self) -> bool {
        self.tree.is_unchanged()
    }

    /// Reads one entry.
    ///
    /// # Errors
    ///
    /// [`DirectoryError::NoSuchPlace`]; the inner result is the entry's.
    pub fn entry(
        &mut self,
        place: u32,
    ) -> Result<Result<Option<Region>, EntryError>, DirectoryError> {
        let index = place as usize;
        let head = HeadAt::new(self.tree.leaves(), index);
        read(&self.entries, head, index, self.cursors.as_mut()).ok_or(DirectoryError::NoSuchPlace {
            place,
            entries: self.header.layout.entries(),
        })
    }
}

/// Reads the entry at `index`; `None` if there is no such place.
fn read<W: Window>(
    entries: &RecordGroups<W>,
    head: HeadAt<'_, W>,
    index: usize,
    cursors: &mut [u64],
) -> Option<Result<Option<Region>, EntryError>> {
    let copies = entries.get(index)?;
    let stored = cursors.get_mut(index)?;
    let mut cursor = ReadCursor::from_word(*stored);
    let slot = SlotReader::new(copies, head);
    let mut words = [0; ENTRY_WORDS];
    let mut outcome = slot.read(&mut cursor, &mut words);
    if matches!(outcome, Err(ReadError::Restarted { .. })) {
        // The next read goes on under the new epoch; entries say all that there is to know of it.
        outcome = slot.read(&mut cursor, &mut words);
    }
    *stored = cursor.word();
    Some(match outcome {
        Ok(_) => decode(&words),
        Err(ReadError::NeverWritten) => Ok(None),
        Err(error) => Err(error.into()),
    })
}
