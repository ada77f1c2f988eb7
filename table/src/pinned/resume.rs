//! Going on after a writer's death, in new memory.

use shmbus_shm::Window;
use shmbus_shm::slot::ReadError;
use shmbus_shm::slot::pinned::PinnableReader;

use super::parts::Parts;
use super::writer::PinnedTableWriter;
use crate::error::TableError;
use crate::flags::TableFlags;
use crate::header::{Header, Life};
use crate::layout::TableLayout;
use crate::resume::{Recovered, next_life};

impl<W: Window, A: Window, S: AsRef<[u64]> + AsMut<[u64]>> PinnedTableWriter<W, A, S> {
    /// Goes on in `window`, new memory, with the values of the table at the start of `from`, which are looked at as hostile
    /// input. The new table is of the next epoch, and nobody is subscribed to it; readers of the old one go over to it by
    /// [`PinnedTableReader::rebind`](super::PinnedTableReader::rebind). What they have pinned stays in the old memory, which nobody
    /// writes any more. For that reason there is no going on in place: the dead writer's readers would not be heard.
    ///
    /// # Errors
    ///
    /// [`TableError`]: `from` is no such table, its epochs are used up, or `window` or the storage is too small.
    pub fn resume<F: Window>(
        from: &F,
        window: W,
        cursors: S,
        orders: S,
    ) -> Result<(Self, Recovered), TableError> {
        let old = Header::read(from)?;
        old.layout.check_kind(TableFlags::PINNED)?;
        let header = next_life(old)?;
        let mut table = Self::format(&window, header, cursors, orders)?;
        table.beats = Life::new(from)?.last_heartbeat() + 1;
        let parts = Parts::new(from, old.layout)?;
        let mut value = [0; TableLayout::MAX_SLOT_BYTES as usize / 8];
        let value = &mut value[..header.layout.slot_words()];
        let mut recovered = Recovered::default();
        for slot in 0..header.layout.slots() {
            let Some((copies, place)) = parts.slot(slot) else {
                continue;
            };
            match PinnableReader::new(copies, place).recover(old.epoch, value) {
                Ok(_) => {
                    // Nobody reads the new memory yet: there is nobody to be told.
                    let _ = table.publish(slot, value)?;
                    recovered.values += 1;
                }
                Err(ReadError::NeverWritten) => {}
                Err(_) => recovered.lost += 1,
            }
        }
        header.announce(&window, table.beats)?;
        Ok((table, recovered))
    }
}
