//! Chains in a state: their entries are copied out of the ring, and walked from the copy.

use shmbus_shm::AddressSpace;

use super::label::Label;
use crate::descriptor::{Buffer, DESCRIPTOR_BYTES, INDIRECT, NEXT};
use crate::device::{ChainBuilder, ChainShape, check_table_place, walk_rows};
use crate::fault::ChainError;
use crate::positions::Positions;
use crate::state::{SavedChain, StateError};

/// Walks a chain's copied entries; it takes up as many as the state says.
pub(super) fn walk(
    space: &impl AddressSpace,
    chain: SavedChain<'_>,
    indirect: bool,
    segments: &mut [Buffer],
    size: u16,
) -> Result<(u16, ChainShape), ChainError> {
    let mut builder = ChainBuilder::new(segments, size);
    let (rows, _) = chain.descriptors.as_chunks::<DESCRIPTOR_BYTES>();
    let mut count = 0;
    for row in rows {
        let words = u128::from_le_bytes(*row);
        let label = Label::from_word((words >> 64) as u64);
        let buffer = Buffer::new(words as u64, label.len());
        count += 1;
        if label.has(INDIRECT) {
            check_table_place(indirect, count - 1, label.flags(), count)?;
            walk_rows(space, buffer, &mut builder)?;
            break;
        }
        builder.push(count - 1, buffer, label.flags())?;
        if !label.has(NEXT) {
            break;
        }
    }
    if count != chain.entries {
        return Err(ChainError::NotAvailable { descriptor: count });
    }
    Ok((count, builder.finish()?))
}

/// A state's positions lie as far apart as the chains in flight take up entries, at most `capacity`.
pub(super) fn check_distance(
    positions: Positions,
    entries: impl Iterator<Item = u16>,
    capacity: u16,
) -> Result<(), StateError> {
    let distance = u32::from(positions.available.wrapping_sub(positions.used));
    let wrong = |expected| {
        Err(StateError::Field {
            field: "available",
            found: u64::from(positions.available),
            expected,
        })
    };
    if distance != entries.map(u32::from).sum::<u32>() {
        return wrong("behind used by the entries of the chains in flight");
    }
    if distance > u32::from(capacity) {
        return wrong("behind used by no more entries than may be lent");
    }
    Ok(())
}
