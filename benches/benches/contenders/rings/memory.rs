//! A guest's memory in several regions, as a VMM has it around its holes.

use std::sync::Arc;

use shmbus_benches::SetUpError;
use shmbus_ring::Buffer;
use shmbus_shm::{Access, AddressError, GuestSpace, Mapped};
use vm_memory::{GuestAddress, GuestMemoryMmap};

use super::BUFFER_BYTES;
use super::format::RING_BYTES;

pub(super) type Memory = GuestMemoryMmap<()>;

const REGION_BYTES: usize = 0x2_0000;
/// The ring lies in the first, buffers and indirect tables in the others by turns.
const REGIONS: [u64; 4] = [0, 0x10_0000, 0x8000_0000, 0x1_0000_0000];

/// Behind the buffers of a region.
const TABLES: u64 = 0x1_0000;
/// Descriptors of the longest table, by 16 bytes.
pub(super) const TABLE_BYTES: u32 = 4 * 16;

/// A memory in which nothing is written yet.
pub(super) fn guest_memory() -> Result<GuestSpace<Memory>, SetUpError> {
    let regions = REGIONS.map(|start| (GuestAddress(start), REGION_BYTES));
    let memory = Memory::from_ranges(&regions)?;
    Ok(GuestSpace::new(Arc::new(memory)))
}

/// Where the ring lies.
pub(super) fn ring_memory(space: &GuestSpace<Memory>) -> Result<Mapped, AddressError> {
    space.window(REGIONS[0], RING_BYTES as u32, Access::ReadWrite)
}

/// The buffer with this number.
pub(super) fn buffer(number: u16) -> Buffer {
    let offset = u64::from(number) * u64::from(BUFFER_BYTES);
    Buffer::new(region(number) + offset, BUFFER_BYTES)
}

/// The address of the indirect table with this number; it has [`TABLE_BYTES`].
pub(super) fn table(number: u16) -> u64 {
    region(number) + TABLES + u64::from(number) * u64::from(TABLE_BYTES)
}

fn region(number: u16) -> u64 {
    REGIONS[1 + usize::from(number) % (REGIONS.len() - 1)]
}
