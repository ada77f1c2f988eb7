//! Going on after the death of a writer of transactions.

use shmbus_shm::slot::{
    Generation, HeadAt, NumberedSlotReader, ReadCursor, ReadError, load_commit,
};
use shmbus_shm::{Field, Window};

use super::writer::{TransactionWriter, name_at, write};
use crate::error::TableError;
use crate::flags::TableFlags;
use crate::header::Header;
use crate::layout::COMMIT_OFFSET;
use crate::resume::{Contents, MAX_SLOT_WORDS, Recovered, next_life};

impl<W: Window, S: AsRef<[u64]> + AsMut<[u64]>> TransactionWriter<W, S> {
    /// Goes on in `window`, new memory, with what the table at the start of `from` had committed; a transaction that
    /// was under way is forgotten. The new table is of the next epoch; readers of the old one go over to it by
    /// [`SnapshotReader::rebind`](crate::SnapshotReader::rebind), and find all values there as of one transaction.
    ///
    /// The old contents are looked at as hostile input, as [`TableWriter::resume`](crate::TableWriter::resume) does.
    ///
    /// # Errors
    ///
    /// [`TableError`]: `from` is no table with transactions, its epochs are used up, or `window` or `cursors` is too
    /// small.
    pub fn resume<F: Window>(
        from: &F,
        window: W,
        cursors: S,
        staging: S,
    ) -> Result<(Self, Recovered), TableError> {
        let old = Header::read(from)?;
        old.layout.check_kind(TableFlags::TRANSACTIONS)?;
        let header = next_life(old)?;
        let mut writer = Self::format(&window, header, cursors, staging)?;
        let contents = Contents::new(from, old)?;
        // A restart is a beat, and what is published again is as old as it was.
        writer.table.beats = contents.beats + 1;
        let commit = load_commit(
            &Field::new(from, COMMIT_OFFSET)?,
            &mut ReadCursor::default(),
        );
        let number = writer.next_number()?;
        let mut value = [0; MAX_SLOT_WORDS];
        let value = &mut value[..header.layout.slot_words()];
        let mut recovered = Recovered::default();
        for slot in 0..header.layout.slots() {
            match contents.recover_committed(commit, slot, value) {
                Ok(Some(_)) => {
                    // Nobody reads the new memory yet: no order is asked for.
                    write(&writer.table, slot, number, value);
                    name_at(&mut writer.table, contents.published(slot), slot);
                    recovered.values += 1;
                }
                Ok(None) => {}
                Err(_) => recovered.lost += 1,
            }
        }
        if recovered.values > 0 {
            writer.commit(number);
        }
        header.announce(&window, writer.table.beats)?;
        Ok((writer, recovered))
    }
}

impl<W: Window> Contents<W> {
    /// Reads a slot's value as of the last committed transaction into `value`, whatever the slot holds.
    fn recover_committed(
        &self,
        commit: Result<Generation, ReadError>,
        slot: u32,
        value: &mut [u64],
    ) -> Result<Option<Generation>, ReadError> {
        let head = HeadAt::new(&self.heads, slot as usize);
        let Some(copies) = self.values.copies.get(slot as usize) else {
            return Ok(None);
        };
        match commit {
            Ok(commit) if commit.epoch() == self.epoch => NumberedSlotReader::new(copies, head)
                .read_as_of(commit, &mut ReadCursor::default(), value),
            Ok(commit) => Err(ReadError::NoGeneration {
                word: commit.word(),
            }),
            Err(ReadError::NeverWritten) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
