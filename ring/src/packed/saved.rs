//! Chains in a state: their descriptors are copied out of the ring, and walked from the copy.

use shmbus_shm::{AddressSpace, Window};

use super::areas::{Descriptors, State};
use super::cursor::Cursor;
use super::device_ring::Walked;
use crate::descriptor::{Buffer, DESCRIPTOR_BYTES, INDIRECT, NEXT};
use crate::device::{ChainBuilder, check_table_place, walk_rows};
use crate::fault::ChainError;
use crate::positions::Positions;
use crate::state::{DeviceStateWriter, SavedChain, StateError};

/// What a ring of `size` descriptors has in flight lies from `used` on, `taken` descriptors of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct InFlight {
    pub(super) used: Cursor,
    pub(super) taken: u16,
    pub(super) size: u16,
}

/// Copies the descriptors of a chain, unless used ones lie there.
pub(super) fn copy<W: Window>(
    descriptors: &Descriptors<W>,
    in_flight: InFlight,
    chain: SavedChain<'_>,
    to: &mut DeviceStateWriter<'_>,
) -> Result<(), StateError> {
    let InFlight { used, taken, size } = in_flight;
    let overwritten = StateError::Overwritten { id: chain.id };
    let mut at = Cursor::from_bits(chain.position, size).ok_or(overwritten)?;
    if used.distance_to(at, size) >= u32::from(taken) {
        return Err(overwritten);
    }
    for _ in 0..chain.entries {
        to.push_descriptor(descriptors.load_row(at))?;
        at = at.forward(1, size);
    }
    Ok(())
}

/// Walks a chain's copied descriptors; it takes up as many entries as the state says.
pub(super) fn walk(
    space: &impl AddressSpace,
    chain: SavedChain<'_>,
    indirect: bool,
    segments: &mut [Buffer],
    size: u16,
) -> Result<Walked, ChainError> {
    let mut builder = ChainBuilder::new(segments, size);
    let (rows, _) = chain.descriptors.as_chunks::<DESCRIPTOR_BYTES>();
    let mut count = 0;
    for row in rows {
        let (buffer, state) = State::from_row(*row);
        count += 1;
        if state.has(INDIRECT) {
            check_table_place(indirect, count - 1, state.flags(), count)?;
            walk_rows(space, buffer, &mut builder)?;
            break;
        }
        builder.push(count - 1, buffer, state.flags())?;
        if !state.has(NEXT) {
            break;
        }
    }
    if count != chain.entries {
        return Err(ChainError::NotAvailable { descriptor: count });
    }
    Ok((chain.id, count, builder.finish()?))
}

/// A state's positions as cursors, available and used; they lie as far apart as the chains in flight take up entries.
pub(super) fn cursors(
    positions: Positions,
    entries: impl Iterator<Item = u16>,
    size: u16,
) -> Result<(Cursor, Cursor), StateError> {
    let cursor = |field, bits| {
        Cursor::from_bits(bits, size).ok_or(StateError::Field {
            field,
            found: u64::from(bits),
            expected: "a position in the ring",
        })
    };
    let available = cursor("available", positions.available)?;
    let used = cursor("used", positions.used)?;
    let taken: u32 = entries.map(u32::from).sum();
    if used.distance_to(available, size) != taken {
        return Err(StateError::Field {
            field: "available",
            found: u64::from(positions.available),
            expected: "behind used by the entries of the chains in flight",
        });
    }
    Ok((available, used))
}
