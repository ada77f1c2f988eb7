//! A reader of a table whose values can be pinned.

use core::cell::Cell;
use core::ops::{ControlFlow, Deref};
use core::sync::atomic::Ordering::Relaxed;

use shmbus_shm::slot::pinned::{AnnouncementAt, PinnableReader, Pinned};
use shmbus_shm::slot::{Epoch, Generation, ReadCursor};
use shmbus_shm::{Entries, Scan, TreeReader, Window};

use super::parts::{Parts, announcements};
use super::seat::Seat;
use crate::error::{ReadError, TableError};
use crate::flags::TableFlags;
use crate::header::{Header, Life};
use crate::layout::TableLayout;
use crate::reader::scan;
use crate::writer::tree_area;

/// The bit of a slot's cursor word that says that it is pinned. No generation has it.
const PINNED: u64 = 1 << 63;

/// Nothing was pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PinError {
    /// The reader has no seat, or the writer has taken it back.
    #[error("the table's writer does not hear this reader; it has to be subscribed")]
    NotSubscribed,
    /// The reader has a value of this slot pinned, or has leaked what it had pinned. Each slot can be pinned once.
    #[error("slot {slot} is pinned already")]
    AlreadyPinned {
        /// The slot asked for.
        slot: u32,
    },
    /// There is no such slot, or it gave no value.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// A reader of a table whose values can be pinned. A read-only mapping of the table is enough; pins are announced in memory
/// of the reader's own. `C` is storage of a cell for each slot, `S` storage of a word for each slot.
///
/// It has its own place in each slot and its own record of the changes it has seen, so readers are independent.
#[derive(Debug)]
pub struct PinnedTableReader<W, A, C, S> {
    layout: TableLayout,
    type_id: u32,
    life: Life<W>,
    tree: TreeReader<W, S>,
    parts: Parts<W>,
    cursors: C,
    own: Option<Own<A>>,
}

/// What a subscribed reader has.
#[derive(Debug)]
struct Own<A> {
    seat: Seat,
    announcements: Entries<u64, A>,
}

impl<W, A, C, S> PinnedTableReader<W, A, C, S>
where
    W: Window,
    A: Window,
    C: AsRef<[Cell<u64>]>,
    S: AsRef<[u64]> + AsMut<[u64]>,
{
    /// Reads the table at the start of `window`. Its header is checked as hostile input, and its geometry frozen. The reader
    /// copies values until it [has a seat](PinnedTableReader::take_seat).
    ///
    /// `cursors` and `seen` are storage for each slot, of which [`Header::read`] tells how many there are.
    ///
    /// # Errors
    ///
    /// [`TableError`].
    pub fn attach(window: W, cursors: C, seen: S) -> Result<Self, TableError> {
        let header = Header::read(&window)?;
        let layout = header.layout;
        layout.check_kind(TableFlags::PINNED)?;
        let found = cursors.as_ref().len();
        if found < layout.slots() as usize {
            return Err(TableError::Storage {
                expected: layout.slots(),
                found,
            });
        }
        for cursor in cursors.as_ref() {
            cursor.set(ReadCursor::default().word());
        }
        let area = tree_area(&window, layout)?;
        Ok(Self {
            layout,
            type_id: header.type_id,
            life: Life::new(&window)?,
            tree: TreeReader::new(&area, layout.tree(), seen)?,
            parts: Parts::new(&window, layout)?,
            cursors,
            own: None,
        })
    }

    /// Announces from now on in `window`, this reader's own memory, which the writer has subscribed as `seat`. What was
    /// announced there before is withdrawn.
    ///
    /// # Errors
    ///
    /// [`TableError::Window`] if the memory is smaller than [`TableLayout::announcements_bytes`].
    pub fn take_seat(&mut self, window: A, seat: Seat) -> Result<(), TableError> {
        let announcements = announcements(&window, self.layout)?;
        for slot in 0..announcements.count() {
            AnnouncementAt::new(&announcements, slot).unpin();
        }
        self.forget_pins();
        self.own = Some(Own {
            seat,
            announcements,
        });
        Ok(())
    }

    /// Goes over to the writer's new memory, which must hold a table of the same shape and type. There the reader has no seat
    /// yet. Where the new writer is of another epoch, each slot that was read before says so once; the next change scan
    /// reports every slot that was ever written.
    ///
    /// # Errors
    ///
    /// [`TableError`]; the reader then stays with the old memory.
    pub fn rebind(&mut self, window: W) -> Result<Epoch, TableError> {
        let header = Header::read(&window)?;
        if header.layout != self.layout {
            return Err(TableError::Geometry {
                expected: self.layout,
                found: header.layout,
            });
        }
        if header.type_id != self.type_id {
            return Err(TableError::Type {
                expected: self.type_id,
                found: header.type_id,
            });
        }
        let life = Life::new(&window)?;
        let parts = Parts::new(&window, self.layout)?;
        self.tree.rebind(&tree_area(&window, self.layout)?)?;
        self.life = life;
        self.parts = parts;
        self.own = None;
        self.forget_pins();
        Ok(header.epoch)
    }

    /// Pins were leaked if there are some here, since each borrows the reader.
    fn forget_pins(&self) {
        for cursor in self.cursors.as_ref() {
            cursor.set(cursor.get() & !PINNED);
        }
    }

    /// Pins a slot's newest complete value where it lies, at least as new as the last one that was complete when the call
    /// began, and never older than one read before. At most [`MAX_PIN_LOADS`](super::MAX_PIN_LOADS) loads and one of the seat.
    ///
    /// # Errors
    ///
    /// [`PinError`]; nothing is pinned then.
    #[inline]
    pub fn pin(&self, slot: u32) -> Result<PinnedValue<'_, W, A>, PinError> {
        let (reader, stored) = self.slot(slot)?;
        if stored.get() & PINNED != 0 {
            return Err(PinError::AlreadyPinned { slot });
        }
        let own = self.own.as_ref().ok_or(PinError::NotSubscribed)?;
        let seat = self.parts.seats.load(own.seat.index(), Relaxed);
        if seat != own.seat.word() {
            return Err(PinError::NotSubscribed);
        }
        let announcement = AnnouncementAt::new(&own.announcements, slot as usize);
        let mut cursor = ReadCursor::from_word(stored.get());
        let outcome = reader.pin(&mut cursor, announcement);
        stored.set(cursor.word());
        let pinned = outcome.map_err(ReadError::from)?;
        stored.set(cursor.word() | PINNED);
        Ok(PinnedValue { pinned, stored })
    }

    /// Reads a slot's newest complete value into `value`, as many words as that and the slot both have: as new as
    /// [`PinnedTableReader::pin`] promises. Within [`max_read_loads`](super::max_read_loads) loads. The slot may be pinned
    /// meanwhile.
    ///
    /// # Errors
    ///
    /// [`ReadError`]; `value` holds nothing meaningful then.
    #[inline]
    pub fn read(&self, slot: u32, value: &mut [u64]) -> Result<Generation, ReadError> {
        let (reader, stored) = self.slot(slot)?;
        let is_pinned = stored.get() & PINNED;
        let mut cursor = ReadCursor::from_word(stored.get() & !PINNED);
        let outcome = reader.read(&mut cursor, value);
        stored.set(cursor.word() | is_pinned);
        Ok(outcome?)
    }

    #[inline(always)]
    fn slot(&self, slot: u32) -> Result<(PinnableReader<'_, W>, &Cell<u64>), ReadError> {
        if let Some((copies, place)) = self.parts.slot(slot)
            && let Some(stored) = self.cursors.as_ref().get(slot as usize)
        {
            return Ok((PinnableReader::new(copies, place), stored));
        }
        let slots = self.layout.slots();
        Err(ReadError::NoSuchSlot { slot, slots })
    }

    /// Reports every slot that was written since it was last reported, as
    /// [`TableReader::changed`](crate::TableReader::changed) does.
    pub fn changed(&mut self, mut report: impl FnMut(u32, Generation)) -> Scan {
        scan(&mut self.tree, |slot, generation| {
            report(slot, generation);
            ControlFlow::Continue(())
        })
    }

    /// The generation that was read or pinned last.
    pub fn generation(&self, slot: u32) -> Option<Generation> {
        let stored = self.cursors.as_ref().get(slot as usize)?;
        ReadCursor::from_word(stored.get() & !PINNED).generation()
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

/// A slot's value, pinned until this is dropped: see [`Pinned`]. If it is leaked, the slot stays pinned until its reader takes
/// another seat; that costs the reader the pins of this slot, and nobody else anything.
#[derive(Debug)]
pub struct PinnedValue<'a, W, A: Window> {
    pinned: Pinned<'a, W, A>,
    stored: &'a Cell<u64>,
}

impl<'a, W, A: Window> Deref for PinnedValue<'a, W, A> {
    type Target = Pinned<'a, W, A>;

    fn deref(&self) -> &Self::Target {
        &self.pinned
    }
}

impl<W, A: Window> Drop for PinnedValue<'_, W, A> {
    fn drop(&mut self) {
        self.stored.set(self.stored.get() & !PINNED);
    }
}
