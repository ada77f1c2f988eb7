//! Where a device was that died, from what it left in shared memory.

use core::sync::atomic::Ordering::Acquire;

use shmbus_shm::{RingFormat, Window};

use super::areas::Areas;
use super::cursor::Cursor;
use crate::kind::RingKind;
use crate::record::{Record, recover_chains};
use crate::state::{DeviceState, StateError};

/// The state of the device side of a packed ring whose device died, from its areas and its record: written to `to`, which
/// is at most [`DeviceState::max_bytes`] long. Nothing is written elsewhere, so read-only mappings do.
///
/// A ring in order has a record too, of its positions alone. No chain is lost, and none that the driver was shown comes up
/// again. A chain that was completed and not shown is in flight: the device that is restored does it once more.
///
/// # Errors
///
/// [`StateError`], naming what the record has wrong, or that it is not this ring's.
pub fn recover<'b, W: Window, R: Window>(
    areas: &Areas<W>,
    record: &Record<R>,
    to: &'b mut [u8],
) -> Result<DeviceState<'b>, StateError> {
    let size = areas.size;
    record.check(
        RingKind {
            format: RingFormat::Packed,
            in_order: record.kind().in_order,
        },
        size,
    )?;
    let publication = record.publication();
    let cursor = |bits| {
        Cursor::from_bits(bits, size).ok_or(StateError::Field {
            field: "publication",
            found: u64::from(bits),
            expected: "a position in the ring",
        })
    };
    let (from, next) = (cursor(publication.from)?, cursor(publication.to)?);
    // The first descriptor of a batch is stored last. Until then it says available, of this lap; afterwards it says used,
    // or what the driver made of it in the next lap.
    let state = areas.descriptors.load_state(from, Acquire);
    let shown = from == next || !state.is_available(from);
    let used = if shown { next } else { from };
    // The state's check refuses chains that take up more than a lap.
    let available = |_, taken: u32| {
        used.forward(taken.min(u32::from(size)) as u16, size)
            .to_bits()
    };
    recover_chains(record, shown, used.to_bits(), available, to)
}
