//! Where a device was that died, from what it left in shared memory.

use core::sync::atomic::Ordering::Acquire;

use shmbus_shm::{RingFormat, Window};

use super::areas::Areas;
use crate::kind::RingKind;
use crate::record::{Record, recover_chains};
use crate::state::{DeviceState, DeviceStateWriter, SavedDevice, StateError};

/// The state of the device side of a split ring whose device died, from its areas and its record: written to `to`, which
/// is at most [`DeviceState::max_bytes`] long. Nothing is written elsewhere, so read-only mappings do.
///
/// No chain is lost, and none that the driver was shown comes up again. A chain that was completed and not shown is in
/// flight: the device that is restored does it once more.
///
/// # Errors
///
/// [`StateError`], naming what the record has wrong, or that it is not this ring's.
pub fn recover<'b, W: Window, R: Window>(
    areas: &Areas<W>,
    record: &Record<R>,
    to: &'b mut [u8],
) -> Result<DeviceState<'b>, StateError> {
    record.check(RingKind::plain(RingFormat::Split), areas.size)?;
    let publication = record.publication();
    let used = areas.used.idx.load(Acquire);
    // The index is the device's, and one store moved it.
    if used != publication.from && used != publication.to {
        return Err(StateError::Field {
            field: "publication",
            found: u64::from(publication.to),
            expected: "what moves the used index to or from where it is",
        });
    }
    let shown = used == publication.to;
    let available = |used: u16, taken: u32| used.wrapping_add(taken as u16);
    recover_chains(record, shown, used, available, to)
}

/// As [`recover`], for a ring in order: the used index says all, and no record is needed. All chains that the driver was
/// not shown are taken anew.
///
/// # Errors
///
/// [`StateError::Length`].
pub fn recover_in_order<'b, W: Window>(
    areas: &Areas<W>,
    to: &'b mut [u8],
) -> Result<DeviceState<'b>, StateError> {
    let used = areas.used.idx.load(Acquire);
    DeviceStateWriter::new(to).finish(SavedDevice {
        kind: RingKind::in_order(RingFormat::Split),
        size: areas.size,
        available: used,
        used,
    })
}
