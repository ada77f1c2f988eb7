//! The end of a lane out of which values come.

use core::ops::ControlFlow;

use shmbus_shm::{Notify, Window};
use shmbus_table::{Generation, TableError, TypedReadError, Value};

use super::ends::{DeviceSource, DriverSource, RingError};
use super::memory::{Lane, LaneError};
use super::ring_inlet::RingInlet;
use super::table_inlet::TableInlet;

/// What the other side sends is not what it must be. Whoever meets it stops listening until the lane is set up anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InletError {
    /// There is no table, or not for as many slots.
    #[error("the table: {0}")]
    NoTable(TableError),
    /// A slot could not be read.
    #[error("slot {slot}: {error}")]
    Slot {
        /// Which one.
        slot: u32,
        /// What was wrong.
        error: TypedReadError,
    },
    /// The ring, or an element in it, breaks the rules.
    #[error("the ring: {0}")]
    Ring(#[from] RingError),
}

/// The end of a lane out of which values come.
#[derive(Debug)]
pub(crate) enum Inlet<V, W: Window> {
    /// A table that the other side writes.
    Table(TableInlet<V, W>),
    /// A ring whose device this side is.
    Device(RingInlet<V, DeviceSource<W>>),
    /// A ring whose driver this side is.
    Driver(RingInlet<V, DriverSource<W>>),
}

impl<V: Value, W: Window> Inlet<V, W> {
    /// The host's end of a lane from the guest, who has set up its part.
    ///
    /// # Errors
    ///
    /// [`LaneError`].
    pub(crate) fn at_host(lane: Lane<W>, slots: u32) -> Result<Self, LaneError> {
        match lane {
            Lane::Table(window) => Ok(Self::Table(TableInlet::attach(window, slots)?)),
            Lane::Ring(ring) => {
                let reading = ring.reading;
                let source = DeviceSource::new::<V>(ring)?;
                Ok(Self::Device(RingInlet::new(source, slots, reading)))
            }
        }
    }

    /// The guest's end of a lane from the host, who sets up its part when it is told that the driver is ready. Nothing
    /// comes out before; of a ring, nothing may be taken before.
    ///
    /// # Errors
    ///
    /// [`LaneError`].
    pub(crate) fn at_guest(lane: Lane<W>, slots: u32) -> Result<Self, LaneError> {
        match lane {
            Lane::Table(window) => Ok(Self::Table(TableInlet::await_in(window, slots))),
            Lane::Ring(ring) => {
                let reading = ring.reading;
                let source = DriverSource::new::<V>(ring)?;
                Ok(Self::Driver(RingInlet::new(source, slots, reading)))
            }
        }
    }

    /// Hands on at most `limit` values (at least one) that came since the last call, until `visit` breaks off; with one
    /// load if there are none. Returns whether there may be more.
    ///
    /// Of a table this is the newest value of each slot that changed; of a ring, as its [`Reading`](super::Reading) says.
    ///
    /// # Errors
    ///
    /// [`InletError`]; what was handed on before stands.
    pub(crate) fn take(
        &mut self,
        limit: usize,
        visit: impl FnMut(u32, V, Generation) -> ControlFlow<()>,
    ) -> Result<bool, InletError> {
        match self {
            Self::Table(inlet) => inlet.take(limit, visit),
            Self::Device(inlet) => Ok(inlet.take(limit, visit)?),
            Self::Driver(inlet) => Ok(inlet.take(limit, visit)?),
        }
    }

    /// Hands on what there is to know of `slot` now: of a table its newest value, although it was handed on before; of a
    /// ring what is in it, other slots' values among them.
    ///
    /// # Errors
    ///
    /// [`InletError`].
    pub(crate) fn catch_up(
        &mut self,
        slot: u32,
        mut visit: impl FnMut(u32, V, Generation) -> ControlFlow<()>,
    ) -> Result<(), InletError> {
        match self {
            Self::Table(inlet) => {
                if let Some((value, generation)) = inlet.newest(slot)? {
                    let _ = visit(slot, value, generation);
                }
                Ok(())
            }
            Self::Device(inlet) => Ok(inlet.catch_up(visit)?),
            Self::Driver(inlet) => Ok(inlet.catch_up(visit)?),
        }
    }

    /// Shows the other side of a ring the buffers that were returned, and answers whether it must be told.
    pub(crate) fn flush(&mut self) -> Notify {
        match self {
            Self::Table(_) => Notify::No,
            Self::Device(inlet) => inlet.flush(),
            Self::Driver(inlet) => inlet.flush(),
        }
    }

    /// Ends this side's use of the lane. Of a ring it leaves its part as a driver finds it that begins anew in the same
    /// memory, and looks at it before this side has started again.
    pub(crate) fn close(self) {
        match self {
            Self::Table(_) => {}
            Self::Device(inlet) => inlet.close(),
            Self::Driver(inlet) => inlet.close(),
        }
    }
}
