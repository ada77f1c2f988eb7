//! The end of a lane into which values go.

use core::mem;

use shmbus_shm::{Notify, Window};
use shmbus_table::{Epoch, Generation, Header, TableError, TypedWriter, Value};

use super::Reading;
use super::ends::{DeviceSink, DriverSink, RingError};
use super::memory::{Lane, LaneError};
use super::ring_outlet::{RingOutlet, WhenFull};

/// A value cannot be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutletError {
    /// There is no such slot.
    #[error("there is no slot {slot}: there are {slots}")]
    NoSuchSlot {
        /// Which one was meant.
        slot: u32,
        /// How many there are.
        slots: u32,
    },
    /// Its table cannot be written.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The other side of its ring broke the rules.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// Its ring is full, and every element counts: wait for a signal, flush, then try again.
    #[error("the ring is full: the other side has all its elements yet to take")]
    Full,
    /// The slot has had all the values that it can have.
    #[error("slot {slot} has had 2^48 values")]
    UsedUp {
        /// The slot.
        slot: u32,
    },
}

/// The end of a lane into which values go.
#[derive(Debug)]
pub(crate) enum Outlet<V, W: Window> {
    /// A table that this side writes.
    Table(TableOutlet<V, W>),
    /// A ring whose device this side is.
    Device(RingOutlet<V, DeviceSink<W>>),
    /// A ring whose driver this side is.
    Driver(RingOutlet<V, DriverSink<W>>),
}

/// A table, and what its publications since the last flush decided.
#[derive(Debug)]
pub(crate) struct TableOutlet<V, W: Window> {
    table: TypedWriter<V, W, Vec<u64>>,
    notify: Notify,
}

impl<V: Value, W: Window> Outlet<V, W> {
    /// The host's end of a lane to the guest.
    ///
    /// # Errors
    ///
    /// [`LaneError`].
    pub(crate) fn at_host(lane: Lane<W>, slots: u32) -> Result<Self, LaneError> {
        match lane {
            Lane::Table(window) => Self::over_table(window, slots),
            // A host never waits for a guest.
            Lane::Ring(ring) => Ok(Self::Device(RingOutlet::new(
                DeviceSink::new(ring)?,
                slots,
                WhenFull::KeepNewest,
            ))),
        }
    }

    /// The guest's end of a lane to the host.
    ///
    /// # Errors
    ///
    /// [`LaneError`].
    pub(crate) fn at_guest(lane: Lane<W>, slots: u32) -> Result<Self, LaneError> {
        match lane {
            Lane::Table(window) => Self::over_table(window, slots),
            Lane::Ring(ring) => {
                let when_full = match ring.reading {
                    Reading::Every => WhenFull::Refuse,
                    Reading::Last => WhenFull::KeepNewest,
                };
                let sink = DriverSink::new::<V>(ring)?;
                Ok(Self::Driver(RingOutlet::new(sink, slots, when_full)))
            }
        }
    }

    /// Sets up a table in this side's own memory, under the epoch after that of a table that was there: generations of
    /// two lives are never equal, so no answer to an old value is taken for one to a new value.
    fn over_table(window: W, slots: u32) -> Result<Self, LaneError> {
        let epoch = Header::read(&window)
            .ok()
            .and_then(|header| header.epoch.next())
            .unwrap_or(Epoch::FIRST);
        Ok(Self::Table(TableOutlet {
            table: TypedWriter::create(window, slots, epoch, vec![0; slots as usize])?,
            notify: Notify::No,
        }))
    }

    /// How many slots there are.
    pub(crate) fn slots(&self) -> u32 {
        match self {
            Self::Table(outlet) => outlet.table.table().layout().slots(),
            Self::Device(outlet) => outlet.slots(),
            Self::Driver(outlet) => outlet.slots(),
        }
    }

    /// Puts in a value, which takes the place of the slot's last; the other side is sure to see it after the next
    /// [`flush`](Self::flush).
    ///
    /// # Errors
    ///
    /// [`OutletError`]; nothing was put in then.
    #[inline]
    pub(crate) fn place(&mut self, slot: u32, value: V) -> Result<Generation, OutletError> {
        match self {
            Self::Table(outlet) => {
                let (generation, notify) = outlet.table.publish(slot, &value)?;
                outlet.notify = outlet.notify.or(notify);
                Ok(generation)
            }
            Self::Device(outlet) => outlet.place(slot, value),
            Self::Driver(outlet) => outlet.place(slot, value),
        }
    }

    /// As [`place`](Self::place), of a value that the other side need not hear of before the next one: over a table nobody
    /// is told of it. A ring has to tell who asked for the next element, but does so no sooner than it is flushed.
    ///
    /// # Errors
    ///
    /// As for [`place`](Self::place).
    pub(crate) fn place_silently(
        &mut self,
        slot: u32,
        value: V,
    ) -> Result<Generation, OutletError> {
        match self {
            Self::Table(outlet) => Ok(outlet.table.publish(slot, &value)?.0),
            Self::Device(outlet) => outlet.place(slot, value),
            Self::Driver(outlet) => outlet.place(slot, value),
        }
    }

    /// As [`place`](Self::place), but never refuses for want of room: for values that are put in anew because the other
    /// side has lost them.
    ///
    /// # Errors
    ///
    /// [`OutletError`], but not [`OutletError::Full`].
    pub(crate) fn keep(&mut self, slot: u32, value: V) -> Result<Generation, OutletError> {
        match self {
            Self::Table(_) => self.place(slot, value),
            Self::Device(outlet) => outlet.keep(slot, value),
            Self::Driver(outlet) => outlet.keep(slot, value),
        }
    }

    /// Shows the other side what was put in, and answers whether it must be told. Values that wait for room go out as
    /// far as there is room now.
    ///
    /// # Errors
    ///
    /// [`OutletError::Ring`].
    #[inline]
    pub(crate) fn flush(&mut self) -> Result<Notify, OutletError> {
        match self {
            Self::Table(outlet) => Ok(mem::replace(&mut outlet.notify, Notify::No)),
            Self::Device(outlet) => outlet.flush(),
            Self::Driver(outlet) => outlet.flush(),
        }
    }

    /// How many slots have a value that waits for room in a ring.
    pub(crate) fn waiting(&self) -> usize {
        match self {
            Self::Table(_) => 0,
            Self::Device(outlet) => outlet.waiting(),
            Self::Driver(outlet) => outlet.waiting(),
        }
    }

    /// Ends this side's use of the lane. Of a ring it leaves its part as a driver finds it that begins anew in the same
    /// memory, and looks at it before this side has started again.
    pub(crate) fn close(self) {
        match self {
            Self::Table(_) => {}
            Self::Device(outlet) => outlet.close(),
            Self::Driver(outlet) => outlet.close(),
        }
    }
}
