//! The clocks in their table, as the host publishes them.

use shmbus_shm::{Notify, Window};
use shmbus_table::{Epoch, LayoutError, TableError, TableLayout, TypedWriter, layout_of};

use super::counter::{Counter, Ticks};
use super::host::HostClocks;
use super::sample::{ClockKind, ClockSample};

pub(super) const SLOTS: u32 = ClockKind::ALL.len() as u32;

/// The layout of a table of clocks: a slot for each [`ClockKind`], at its number.
///
/// # Errors
///
/// [`LayoutError`]; none is expected, as the size is fixed.
pub fn clock_table() -> Result<TableLayout, LayoutError> {
    layout_of::<ClockSample>(SLOTS)
}

/// The host's side: its clocks, and the table that tells them to every guest.
#[derive(Debug)]
pub struct ClockPublisher<W: Window, C = Counter> {
    clocks: HostClocks<C>,
    table: TypedWriter<ClockSample, W, Vec<u64>>,
}

impl<W: Window, C: Ticks> ClockPublisher<W, C> {
    /// Sets up the table in `window`, and publishes each clock for the first time.
    ///
    /// # Errors
    ///
    /// [`TableError`]: the memory does not fit.
    pub fn new(window: W, clocks: HostClocks<C>) -> Result<Self, TableError> {
        let table = TypedWriter::create(window, SLOTS, Epoch::FIRST, vec![0; SLOTS as usize])?;
        let mut publisher = Self { clocks, table };
        let _ = publisher.publish()?;
        Ok(publisher)
    }

    /// Measures the clocks and publishes them. Ten to twenty times a second keep the bound small; a call costs a few
    /// microseconds.
    ///
    /// # Errors
    ///
    /// [`TableError::Publish`] once 2^48 samples have been published.
    pub fn publish(&mut self) -> Result<Notify, TableError> {
        let mut notify = Notify::No;
        for sample in self.clocks.measure().into_iter().flatten() {
            let (_, decision) = self.table.publish(sample.clock.slot(), &sample)?;
            notify = notify.or(decision);
        }
        Ok(notify)
    }

    /// The clocks that are published.
    pub fn clocks(&self) -> &HostClocks<C> {
        &self.clocks
    }
}
