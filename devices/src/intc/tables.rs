//! Setting up and reading tables of one value for each line.

use core::ops::ControlFlow;

use shmbus_shm::Window;
use shmbus_shm::slot::ReadError as SlotError;
use shmbus_table::{
    Epoch, Header, ReadError, Scan, TableError, TypedReadError, TypedReader, TypedWriter, Value,
    layout_of,
};

/// A table that this side writes.
pub(super) type Written<V, W> = TypedWriter<V, W, Vec<u64>>;

/// Sets up a table in this side's own memory, under the epoch after that of a table that was there, so that whoever
/// waits for the new one does not take the old one for it.
pub(super) fn set_up<V: Value, W: Window>(
    window: W,
    lines: u32,
) -> Result<Written<V, W>, TableError> {
    let epoch = Header::read(&window)
        .ok()
        .and_then(|header| header.epoch.next())
        .unwrap_or(Epoch::FIRST);
    TypedWriter::create(window, lines, epoch, vec![0; lines as usize])
}

/// A table that the other side writes, with its changes taken in.
#[derive(Debug)]
pub(super) struct Read<V, W: Window> {
    table: TypedReader<V, W, Vec<u64>>,
    /// Scratch: what changed, as far as it was looked at.
    changed: Vec<u32>,
    /// The last scan stopped at its limit.
    paused: bool,
}

/// A slot of the other side's cannot be read: where, and why not.
pub(super) type Unreadable = (u32, TypedReadError);

impl<V: Value, W: Window> Read<V, W> {
    /// Attaches to a table of exactly `lines` slots.
    pub(super) fn attach(window: W, lines: u32) -> Result<Self, TableError> {
        let (expected, found) = (layout_of::<V>(lines)?, Header::read(&window)?.layout);
        if expected.slots() != found.slots() {
            return Err(TableError::Geometry { expected, found });
        }
        let storage = || vec![0; lines as usize];
        Ok(Self {
            table: TypedReader::attach(window, storage(), storage())?,
            changed: Vec::with_capacity(lines as usize),
            paused: false,
        })
    }

    /// Hands on the newest values of slots that changed since the last call, at most `limit` (at least one); one load if
    /// there are none. Returns whether there may be more.
    pub(super) fn take(
        &mut self,
        limit: usize,
        mut visit: impl FnMut(u32, V),
    ) -> Result<bool, Unreadable> {
        let Self {
            table,
            changed,
            paused,
        } = self;
        changed.clear();
        let scan = table.scan(|slot, _| {
            changed.push(slot);
            if changed.len() < limit {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        });
        // What changed behind the point where a scan was paused is found by the one after it.
        let resumed = core::mem::replace(paused, scan == Scan::Paused);
        let more = *paused || resumed;
        for index in 0..self.changed.len() {
            let slot = self.changed[index];
            if let Some(value) = self.newest(slot)? {
                visit(slot, value);
            }
        }
        Ok(more)
    }

    /// A slot's newest value. There is none while the writer goes on overwriting it: what it writes last is reported as
    /// a change again.
    pub(super) fn newest(&mut self, slot: u32) -> Result<Option<V>, Unreadable> {
        match self.table.read(slot) {
            Ok((value, _)) => Ok(Some(value)),
            Err(TypedReadError::Read(ReadError::Slot(
                SlotError::Lapped | SlotError::NeverWritten,
            ))) => Ok(None),
            Err(error) => Err((slot, error)),
        }
    }
}

/// The host's table, which is there once the device is activated.
#[derive(Debug)]
pub(super) enum Awaited<V, W: Window> {
    NotYet {
        window: W,
        /// The epoch of what an earlier life of the device left there.
        left_over: Option<Epoch>,
    },
    Attached(Box<Read<V, W>>),
}

impl<V: Value, W: Window> Awaited<V, W> {
    pub(super) fn new(window: W) -> Self {
        let left_over = Header::read(&window).ok().map(|header| header.epoch);
        Self::NotYet { window, left_over }
    }

    /// The table, if it is there.
    pub(super) fn attached(&mut self, lines: u32) -> Result<Option<&mut Read<V, W>>, TableError> {
        if let Self::NotYet { window, left_over } = self {
            match Header::read(window) {
                Err(TableError::Magic { found: 0 }) => return Ok(None),
                Ok(header) if Some(header.epoch) == *left_over => return Ok(None),
                _ => *self = Self::Attached(Box::new(Read::attach(window.clone(), lines)?)),
            }
        }
        match self {
            Self::Attached(table) => Ok(Some(table)),
            Self::NotYet { .. } => Ok(None),
        }
    }
}
