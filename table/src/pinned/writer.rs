//! The one writing side of a table whose values can be pinned.

use core::sync::atomic::Ordering::Relaxed;

use shmbus_shm::slot::pinned::{AnnouncementAt, CopyOrder, PinnableWriter, max_subscribed};
use shmbus_shm::slot::{Epoch, Generation, WriteCursor};
use shmbus_shm::{Entries, Notify, TreeWriter, Window};

use super::parts::{Parts, SEATS, announcements};
use super::seat::Seat;
use crate::error::TableError;
use crate::flags::TableFlags;
use crate::header::{FIRST_BEAT, Header, Life};
use crate::layout::TableLayout;
use crate::writer::{TreeHead, tree_area};

/// The one writer of a table whose values can be pinned. `W` is the table's memory, `A` that of readers' announcements. `S`
/// is storage of a word for each slot, a `Vec<u64>` or a `&mut [u64]`.
///
/// What it has written it keeps there; in steady state it loads nothing but a word for each subscribed reader.
#[derive(Debug)]
pub struct PinnedTableWriter<W, A, S> {
    header: Header,
    life: Life<W>,
    pub(super) beats: u64,
    tree: TreeWriter<W>,
    parts: Parts<W>,
    cursors: S,
    orders: S,
    heard: [Option<Heard<A>>; SEATS],
    given: u64,
}

/// A subscribed reader.
#[derive(Debug)]
struct Heard<A> {
    seat: Seat,
    announcements: Entries<u64, A>,
}

impl<W: Window, A: Window, S: AsRef<[u64]> + AsMut<[u64]>> PinnedTableWriter<W, A, S> {
    /// Sets up a table of `type_id` values at the start of `window`, in which no slot was ever written and to which no reader
    /// is subscribed. Whatever the memory held before is overwritten; its readers are told nothing.
    ///
    /// # Errors
    ///
    /// [`TableError::Kind`] if the layout is not one with pins, [`TableError::Window`] and [`TableError::Storage`].
    pub fn create(
        window: W,
        layout: TableLayout,
        type_id: u32,
        epoch: Epoch,
        cursors: S,
        orders: S,
    ) -> Result<Self, TableError> {
        let header = Header {
            layout,
            type_id,
            epoch,
        };
        let table = Self::format(&window, header, cursors, orders)?;
        header.announce(&window, table.beats)?;
        Ok(table)
    }

    /// Sets up everything but the header, which makes a table of it.
    pub(super) fn format(
        window: &W,
        header: Header,
        mut cursors: S,
        mut orders: S,
    ) -> Result<Self, TableError> {
        let layout = header.layout;
        layout.check_kind(TableFlags::PINNED)?;
        layout.check_fits(window.len())?;
        let found = cursors.as_ref().len().min(orders.as_ref().len());
        if found < layout.slots() as usize {
            return Err(TableError::Storage {
                expected: layout.slots(),
                found,
            });
        }
        Header::withdraw(window)?;
        cursors.as_mut().fill(WriteCursor::new(header.epoch).word());
        orders.as_mut().fill(CopyOrder::FIRST.word());
        let area = tree_area(window, layout)?;
        let table = Self {
            header,
            life: Life::new(window)?,
            beats: FIRST_BEAT,
            tree: TreeWriter::create(&area, layout.tree())?,
            parts: Parts::new(window, layout)?,
            cursors,
            orders,
            heard: [const { None }; SEATS],
            given: 0,
        };
        for index in 0..SEATS {
            table.parts.seats.store(index, 0, Relaxed);
        }
        for (copies, place) in (0..layout.slots()).filter_map(|slot| table.parts.slot(slot)) {
            for copy in 0..copies.count() {
                copies.store_header(copy, 0, Relaxed);
            }
            place.reset(CopyOrder::FIRST, layout.physical_copies());
        }
        Ok(table)
    }

    /// Publishes `value`, which fills the slot, in a copy that no subscribed reader has pinned, and says whether the table's
    /// channel is to be told. Wait-free: the slot's `words + 5` stores and one for each level of the generation tree, and a
    /// load for each subscribed reader.
    ///
    /// # Errors
    ///
    /// [`TableError::NoSuchSlot`] and [`TableError::Publish`]; nothing was written then.
    #[inline]
    pub fn publish(
        &mut self,
        slot: u32,
        value: &[u64],
    ) -> Result<(Generation, Notify), TableError> {
        let index = slot as usize;
        if let Some((copies, place)) = self.parts.slot(slot)
            && let Some(cursor_word) = self.cursors.as_mut().get_mut(index)
            && let Some(order_word) = self.orders.as_mut().get_mut(index)
        {
            let mut cursor = WriteCursor::from_word(*cursor_word);
            let mut order = CopyOrder::from_word(*order_word);
            let head = TreeHead {
                tree: &mut self.tree,
                ages: None,
                beats: self.beats,
                slot,
            };
            let announced = (self.heard.iter().flatten())
                .map(|heard| AnnouncementAt::new(&heard.announcements, index));
            let generation = PinnableWriter::new(copies, place, head).publish(
                &mut cursor,
                &mut order,
                value,
                announced,
            )?;
            *cursor_word = cursor.word();
            *order_word = order.word();
            // Who listens, and whether it is to be told, is the channel's part.
            return Ok((generation, Notify::Yes));
        }
        let slots = self.header.layout.slots();
        Err(TableError::NoSuchSlot { slot, slots })
    }

    /// Hears from now on what a reader announces at the start of `window`, memory that the reader writes. The seat is to be
    /// given to it.
    ///
    /// # Errors
    ///
    /// [`TableError::SeatsTaken`], and [`TableError::Window`] if the memory is smaller than
    /// [`TableLayout::announcements_bytes`].
    pub fn subscribe(&mut self, window: A) -> Result<Seat, TableError> {
        let seats = max_subscribed(self.header.layout.physical_copies());
        let free = self.heard.iter_mut().enumerate().take(seats);
        let (index, free) = free
            .into_iter()
            .find(|(_, heard)| heard.is_none())
            .ok_or(TableError::SeatsTaken { seats })?;
        let announcements = announcements(&window, self.header.layout)?;
        let seat = Seat::new(self.header.epoch, self.given, index);
        self.given += 1;
        *free = Some(Heard {
            seat,
            announcements,
        });
        // Relaxed: the fence behind a reader's announcement orders it.
        self.parts.seats.store(index, seat.word(), Relaxed);
        Ok(seat)
    }

    /// No longer hears the reader that has this seat; returns whether it did. What that reader has pinned may be overwritten
    /// from the next publication on, and it is told so when it pins again or checks what it has pinned.
    pub fn unsubscribe(&mut self, seat: Seat) -> bool {
        let heard = self.heard.get_mut(seat.index());
        match heard.and_then(|heard| heard.take_if(|heard| heard.seat == seat)) {
            Some(_) => {
                self.parts.seats.store(seat.index(), 0, Relaxed);
                true
            }
            None => false,
        }
    }

    /// How many readers are subscribed.
    pub fn subscribed(&self) -> usize {
        self.heard.iter().flatten().count()
    }

    /// Shows readers that the writer lives, though it has nothing new to say.
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
}
