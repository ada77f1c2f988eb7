//! Where a device was that died, from what it left in shared memory.

use core::sync::atomic::Ordering::Acquire;

use shmbus_shm::{RingFormat, Window};

use super::areas::Areas;
use crate::kind::RingKind;
use crate::record::{Record, recover_chains};
use crate::state::{DeviceState, StateError};

/// The state of the device side of a tagged ring whose device died, from its areas and its record: written to `to`,
/// which is at most [`DeviceState::max_bytes`] long. Nothing is written elsewhere, so read-only mappings do.
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
    record.check(RingKind::plain(RingFormat::Tagged), areas.size)?;
    let publication = record.publication();
    let (from, next) = (publication.from, publication.to);
    // The first entry of a batch was claimed before the batch was announced, and is stored last when it is shown. After
    // that it says used, or what the driver made of it in the next lap: not claimed, until the next batch is announced.
    let shown = from == next || !areas.descriptors.load_label(from, Acquire).is_claimed();
    let used = if shown { next } else { from };
    // The state's check refuses chains that take up more than a lap.
    let available = |used: u16, taken: u32| used.wrapping_add(taken as u16);
    recover_chains(record, shown, used, available, to)
}
