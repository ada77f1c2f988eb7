//! Chains that lie in a table of their own.

use shmbus_shm::{Access, AddressError, AddressSpace, SharedBytes};

use crate::descriptor::{Buffer, DESCRIPTOR_BYTES, Descriptor, INDIRECT, NEXT};
use crate::device::{ChainBuilder, next_piece};
use crate::fault::ChainError;

/// How many descriptors are copied at a time: most tables are no longer.
const CHUNK: u16 = 16;

/// Walks an indirect table. The table is bytes in the driver's memory, at any alignment and possibly in pieces; it is
/// copied chunk by chunk, and what is looked at is the copy.
///
/// A chain has at most as many descriptors as `chain` takes, so at most that many chunks are copied, whatever order a
/// hostile table has them in.
pub(super) fn walk_table(
    space: &impl AddressSpace,
    table: Buffer,
    chain: &mut ChainBuilder<'_>,
) -> Result<(), ChainError> {
    let len = table.len;
    if len == 0 || !len.is_multiple_of(DESCRIPTOR_BYTES as u32) {
        return Err(ChainError::IndirectLength { len });
    }
    // `next` has 16 bits: what lies behind descriptor 65535 cannot be reached.
    let descriptors = u16::try_from(len / DESCRIPTOR_BYTES as u32).unwrap_or(u16::MAX);
    let mut copy = [0; DESCRIPTOR_BYTES * CHUNK as usize];
    let mut copied = None;
    let mut index = 0;
    loop {
        let first = index - index % CHUNK;
        if copied != Some(first) {
            let count = (descriptors - first).min(CHUNK);
            let bytes = &mut copy[..DESCRIPTOR_BYTES * usize::from(count)];
            let offset = DESCRIPTOR_BYTES as u64 * u64::from(first);
            copy_out(space, table.address.wrapping_add(offset), bytes)?;
            copied = Some(first);
        }
        let (rows, _) = copy.as_chunks::<DESCRIPTOR_BYTES>();
        let descriptor = Descriptor::from_bytes(rows[usize::from(index % CHUNK)]);
        if descriptor.has(INDIRECT) {
            return Err(ChainError::NestedIndirect { descriptor: index });
        }
        chain.push(index, descriptor)?;
        if !descriptor.has(NEXT) {
            return Ok(());
        }
        index = descriptor.next;
        if index >= descriptors {
            return Err(ChainError::Next {
                next: index,
                descriptors,
            });
        }
    }
}

fn copy_out(
    space: &impl AddressSpace,
    address: u64,
    mut to: &mut [u8],
) -> Result<(), AddressError> {
    let mut address = address;
    while !to.is_empty() {
        let piece = next_piece(space, address, to.len() as u32, Access::Read)?;
        let count = piece.copy_to(0, to);
        if count == 0 {
            return Err(AddressError::Unmapped {
                address,
                len: to.len() as u32,
            });
        }
        address = address.wrapping_add(count as u64);
        to = &mut to[count..];
    }
    Ok(())
}
