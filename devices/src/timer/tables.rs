//! Setting up and reading tables of one value for each timer.

use shmbus_shm::Window;
use shmbus_shm::slot::ReadError as SlotError;
use shmbus_table::{
    Epoch, Generation, Header, ReadError, TableError, TypedReadError, TypedReader, TypedWriter,
    Value, layout_of,
};

/// A table that this side writes.
pub(super) type Written<V, W> = TypedWriter<V, W, Vec<u64>>;

/// A table that the other side writes.
pub(super) type Read<V, W> = TypedReader<V, W, Vec<u64>>;

/// Sets up a table in this side's own memory, under the epoch after that of a table that was there: generations of
/// two lives are never equal, so no answer to an old deadline is taken for one to a new deadline.
pub(super) fn set_up<V: Value, W: Window>(
    window: W,
    timers: u32,
) -> Result<Written<V, W>, TableError> {
    let epoch = Header::read(&window)
        .ok()
        .and_then(|header| header.epoch.next())
        .unwrap_or(Epoch::FIRST);
    TypedWriter::create(window, timers, epoch, vec![0; timers as usize])
}

/// Attaches to the other side's table of exactly `timers` slots.
pub(super) fn attach<V: Value, W: Window>(
    window: W,
    timers: u32,
) -> Result<Read<V, W>, TableError> {
    let (expected, found) = (layout_of::<V>(timers)?, Header::read(&window)?.layout);
    if expected.slots() != found.slots() {
        return Err(TableError::Geometry { expected, found });
    }
    let storage = || vec![0; timers as usize];
    TypedReader::attach(window, storage(), storage())
}

/// A slot's newest value.
///
/// There is none while the writer goes on overwriting it: what it writes last is reported as a change again. A writer
/// that has restarted is reported once, and read on.
pub(super) fn newest<V: Value, W: Window>(
    table: &mut Read<V, W>,
    slot: u32,
) -> Result<Option<(V, Generation)>, TypedReadError> {
    let outcome = match table.read(slot) {
        Err(TypedReadError::Read(ReadError::Slot(SlotError::Restarted { .. }))) => table.read(slot),
        outcome => outcome,
    };
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(TypedReadError::Read(ReadError::Slot(SlotError::Lapped | SlotError::NeverWritten))) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
