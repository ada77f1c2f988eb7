//! Memory that an emulated device can access.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shmbus_shm::{Access, AddressError, AddressSpace, Bytes, Mapped, SharedBytes, Window, heap};

use super::super::dma::{DmaError, DmaMemory, DmaRegion};

const PAGE: usize = 4096;
/// No address has 32 bits, and none is an offset into something.
const FIRST_ADDRESS: u64 = 0x12_3400_0000;

#[derive(Debug)]
struct Regions {
    next: u64,
    by_address: BTreeMap<u64, Mapped>,
}

/// Memory of this process at addresses of its own, with gaps between, as behind an IOMMU. A clone is the same memory.
#[derive(Clone, Debug)]
pub struct EmulatedDma {
    regions: Arc<Mutex<Regions>>,
    limit: usize,
}

impl EmulatedDma {
    /// Room for `limit` bytes in one allocation.
    pub fn new(limit: usize) -> Self {
        let regions = Regions {
            next: FIRST_ADDRESS,
            by_address: BTreeMap::new(),
        };
        Self {
            regions: Arc::new(Mutex::new(regions)),
            limit,
        }
    }

    fn regions(&self) -> MutexGuard<'_, Regions> {
        self.regions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many allocations the device can reach.
    pub fn mapped(&self) -> usize {
        self.regions().by_address.len()
    }

    /// The memory behind `len` bytes at `address`, if all of it is in one allocation.
    pub fn window(&self, address: u64, len: usize) -> Option<Mapped> {
        let regions = self.regions();
        let (start, window) = regions.by_address.range(..=address).next_back()?;
        let offset = usize::try_from(address - start).ok()?;
        window.narrow(offset, len).ok()
    }
}

/// Takes the device's access away when the last window is dropped.
struct Unmap {
    dma: EmulatedDma,
    address: u64,
}

impl Drop for Unmap {
    fn drop(&mut self) {
        self.dma.regions().by_address.remove(&self.address);
    }
}

impl DmaMemory for EmulatedDma {
    fn allocate(&self, bytes: usize) -> Result<DmaRegion, DmaError> {
        if bytes == 0 || bytes > self.limit {
            return Err(DmaError::Size { bytes });
        }
        let len = bytes.next_multiple_of(PAGE);
        let memory = heap(len);
        let mut regions = self.regions();
        let address = regions.next;
        regions.next += (len + PAGE) as u64;
        regions.by_address.insert(address, memory.clone());
        drop(regions);
        let window = memory.leased(Unmap {
            dma: self.clone(),
            address,
        });
        Ok(DmaRegion { window, address })
    }
}

/// Bytes that an emulated device accesses.
#[derive(Clone, Debug)]
pub struct DmaBytes(Mapped);

impl SharedBytes for DmaBytes {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn copy_to(&self, skip: usize, to: &mut [u8]) -> usize {
        Bytes::new(&self.0, 0, self.0.len()).map_or(0, |bytes| bytes.copy_to(skip, to))
    }

    fn copy_from(&self, skip: usize, from: &[u8]) -> usize {
        Bytes::new(&self.0, 0, self.0.len()).map_or(0, |bytes| bytes.copy_from(skip, from))
    }
}

impl AddressSpace for EmulatedDma {
    type Slice<'a> = DmaBytes;

    fn translate(&self, address: u64, len: u32, _: Access) -> Result<DmaBytes, AddressError> {
        if len == 0 {
            return Err(AddressError::Empty { address });
        }
        let window = self.window(address, len as usize);
        window
            .map(DmaBytes)
            .ok_or(AddressError::Unmapped { address, len })
    }
}
