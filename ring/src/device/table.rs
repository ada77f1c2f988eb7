//! Tables of descriptors in the driver's memory.

use shmbus_shm::{Access, AddressError, AddressSpace, SharedBytes};

use super::ChainBuilder;
use super::slices::next_piece;
use crate::descriptor::{Buffer, DESCRIPTOR_BYTES, NEXT, Row};
use crate::fault::ChainError;

/// How many descriptors are copied at a time: most tables are no longer.
const CHUNK: u32 = 16;

/// An indirect table: bytes in the driver's memory, at any alignment and possibly in pieces. It is copied chunk by
/// chunk, and what is looked at is the copy.
pub(crate) struct IndirectTable<'a, A> {
    space: &'a A,
    address: u64,
    descriptors: u32,
    copy: [u8; DESCRIPTOR_BYTES * CHUNK as usize],
    /// Which descriptor the copy starts with.
    copied: Option<u32>,
}

impl<'a, A: AddressSpace> IndirectTable<'a, A> {
    /// The table that a descriptor refers to.
    pub(crate) fn new(space: &'a A, table: Buffer) -> Result<Self, ChainError> {
        let len = table.len;
        if len == 0 || !len.is_multiple_of(DESCRIPTOR_BYTES as u32) {
            return Err(ChainError::IndirectLength { len });
        }
        Ok(Self {
            space,
            address: table.address,
            descriptors: len / DESCRIPTOR_BYTES as u32,
            copy: [0; DESCRIPTOR_BYTES * CHUNK as usize],
            copied: None,
        })
    }

    /// How many descriptors the table has.
    pub(crate) fn descriptors(&self) -> u32 {
        self.descriptors
    }

    /// The descriptor at `index`, which is below [`Self::descriptors`].
    pub(crate) fn load(&mut self, index: u32) -> Result<[u8; DESCRIPTOR_BYTES], AddressError> {
        let first = index - index % CHUNK;
        if self.copied != Some(first) {
            let count = self.descriptors.saturating_sub(first).min(CHUNK);
            let bytes = &mut self.copy[..DESCRIPTOR_BYTES * count as usize];
            let offset = DESCRIPTOR_BYTES as u64 * u64::from(first);
            copy_out(self.space, self.address.wrapping_add(offset), bytes)?;
            self.copied = Some(first);
        }
        let (rows, _) = self.copy.as_chunks::<DESCRIPTOR_BYTES>();
        Ok(rows[(index % CHUNK) as usize])
    }
}

/// Whether an indirect table may be at `descriptor`, which has these flags and is the `count`th of its chain: where chains
/// follow one another, one has a single table or none (virtio 1.4, section 2.8.19).
pub(crate) fn check_table_place(
    negotiated: bool,
    descriptor: u16,
    flags: u16,
    count: u16,
) -> Result<(), ChainError> {
    if !negotiated {
        return Err(ChainError::IndirectNotNegotiated);
    }
    if flags & NEXT != 0 {
        return Err(ChainError::IndirectWithNext { descriptor });
    }
    if count > 1 {
        return Err(ChainError::IndirectInChain { descriptor });
    }
    Ok(())
}

/// Walks an indirect table whose rows follow one another. Other flags than WRITE are ignored (virtio 1.4, section
/// 2.8.7).
pub(crate) fn walk_rows(
    space: &impl AddressSpace,
    table: Buffer,
    chain: &mut ChainBuilder<'_>,
) -> Result<(), ChainError> {
    let mut table = IndirectTable::new(space, table)?;
    // `push` refuses a table that is longer than a chain may be.
    for index in 0..table.descriptors() {
        let row = Row::from_bytes(table.load(index)?);
        chain.push(index as u16, row.buffer, row.flags)?;
    }
    Ok(())
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
