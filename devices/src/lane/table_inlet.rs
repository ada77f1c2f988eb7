//! Receiving values over a table.

use core::ops::ControlFlow;

use shmbus_shm::Window;
use shmbus_shm::slot::ReadError as SlotError;
use shmbus_table::{
    Epoch, Generation, Header, ReadError, Scan, TableError, TypedReadError, TypedReader, Value,
    layout_of,
};

use super::inlet::InletError;

type Table<V, W> = TypedReader<V, W, Vec<u64>>;

/// A table that the other side writes.
#[derive(Debug)]
pub(crate) struct TableInlet<V, W: Window> {
    table: State<V, W>,
    slots: u32,
    changed: Vec<u32>,
    paused: bool,
}

#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "there is one for each lane, and nearly all of its life it is attached"
)]
enum State<V, W: Window> {
    /// The other side has not set it up yet.
    Awaited {
        window: W,
        /// The epoch of what an earlier life of the other side left there.
        left_over: Option<Epoch>,
    },
    Attached(Table<V, W>),
}

impl<V: Value, W: Window> TableInlet<V, W> {
    /// Attaches to a table of exactly `slots` slots.
    pub(super) fn attach(window: W, slots: u32) -> Result<Self, TableError> {
        let table = attach(window, slots)?;
        Ok(Self::new(State::Attached(table), slots))
    }

    /// Waits for the other side to set one up in `window`, in place of what it finds there now.
    pub(super) fn await_in(window: W, slots: u32) -> Self {
        let left_over = Header::read(&window).ok().map(|header| header.epoch);
        Self::new(State::Awaited { window, left_over }, slots)
    }

    fn new(table: State<V, W>, slots: u32) -> Self {
        Self {
            table,
            slots,
            changed: Vec::with_capacity(slots as usize),
            paused: false,
        }
    }

    pub(super) fn take(
        &mut self,
        limit: usize,
        mut visit: impl FnMut(u32, V, Generation) -> ControlFlow<()>,
    ) -> Result<bool, InletError> {
        let Some(table) = self.table.attached(self.slots)? else {
            return Ok(false);
        };
        let changed = &mut self.changed;
        changed.clear();
        let scan = table.scan(|slot, _| {
            changed.push(slot);
            if changed.len() < limit {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        });
        for &slot in &self.changed {
            if let Some((value, generation)) = newest(table, slot)?
                && visit(slot, value, generation).is_break()
            {
                break;
            }
        }
        // What changed behind the point where a scan was paused is found by the one after it.
        let resumed = core::mem::replace(&mut self.paused, scan == Scan::Paused);
        Ok(self.paused || resumed)
    }

    /// The slot's newest value, whether it was handed on before or not.
    pub(super) fn newest(&mut self, slot: u32) -> Result<Option<(V, Generation)>, InletError> {
        match self.table.attached(self.slots)? {
            Some(table) => newest(table, slot),
            None => Ok(None),
        }
    }
}

impl<V: Value, W: Window> State<V, W> {
    /// The table, if it is there.
    fn attached(&mut self, slots: u32) -> Result<Option<&mut Table<V, W>>, InletError> {
        if let Self::Awaited { window, left_over } = self {
            match Header::read(window) {
                Err(TableError::Magic { found: 0 }) => return Ok(None),
                Ok(header) if Some(header.epoch) == *left_over => return Ok(None),
                _ => {
                    let attached = attach(window.clone(), slots).map_err(InletError::NoTable)?;
                    *self = Self::Attached(attached);
                }
            }
        }
        match self {
            Self::Attached(table) => Ok(Some(table)),
            Self::Awaited { .. } => Ok(None),
        }
    }
}

fn attach<V: Value, W: Window>(window: W, slots: u32) -> Result<Table<V, W>, TableError> {
    let (expected, found) = (layout_of::<V>(slots)?, Header::read(&window)?.layout);
    if expected.slots() != found.slots() {
        return Err(TableError::Geometry { expected, found });
    }
    let storage = || vec![0; slots as usize];
    TypedReader::attach(window, storage(), storage())
}

/// A slot's newest value.
///
/// There is none while the writer goes on overwriting it: what it writes last is reported as a change again. A writer
/// that has restarted is reported once, and read on.
fn newest<V: Value, W: Window>(
    table: &mut Table<V, W>,
    slot: u32,
) -> Result<Option<(V, Generation)>, InletError> {
    let outcome = match table.read(slot) {
        Err(TypedReadError::Read(ReadError::Slot(SlotError::Restarted { .. }))) => table.read(slot),
        outcome => outcome,
    };
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(TypedReadError::Read(ReadError::Slot(SlotError::Lapped | SlotError::NeverWritten))) => {
            Ok(None)
        }
        Err(error) => Err(InletError::Slot { slot, error }),
    }
}
