//! Chains that lie in a table of their own.

use shmbus_shm::AddressSpace;

use crate::descriptor::{Buffer, Descriptor, INDIRECT, NEXT};
use crate::device::{ChainBuilder, IndirectTable};
use crate::fault::ChainError;

/// Walks an indirect table, whose descriptors are in any order.
///
/// A chain has at most as many descriptors as `chain` takes, so at most that many chunks of the table are copied,
/// whatever order a hostile one has them in.
pub(super) fn walk_table(
    space: &impl AddressSpace,
    table: Buffer,
    chain: &mut ChainBuilder<'_>,
) -> Result<(), ChainError> {
    let mut table = IndirectTable::new(space, table)?;
    // `next` has 16 bits: what lies behind descriptor 65535 cannot be reached.
    let descriptors = u16::try_from(table.descriptors()).unwrap_or(u16::MAX);
    let mut index = 0;
    loop {
        let descriptor = Descriptor::from_bytes(table.load(u32::from(index))?);
        if descriptor.has(INDIRECT) {
            return Err(ChainError::NestedIndirect { descriptor: index });
        }
        chain.push(index, descriptor.buffer, descriptor.flags)?;
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
