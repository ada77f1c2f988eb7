//! Memory and pci-driver: what it maps for a function, and what it maps of one.
#![allow(unsafe_code)]

use core::ptr::NonNull;
use std::io;
use std::sync::Arc;

use pci_driver::backends::vfio::VfioContainer;
use pci_driver::regions::{MappedOwningPciRegion, Permissions};
use shmbus_shm::{Mapped, MemoryType};

use super::super::mapping::Mapper;

impl Mapper for Arc<VfioContainer> {
    unsafe fn map(&self, iova: u64, base: NonNull<u8>, len: usize) -> io::Result<()> {
        let access = Permissions::ReadWrite;
        // SAFETY: the caller's contract.
        unsafe { self.iommu().map(iova, len, base.as_ptr(), access) }
    }

    fn unmap(&self, iova: u64, len: usize) -> io::Result<()> {
        self.iommu().unmap(iova, len)
    }

    fn mappings_left(&self, mapped: u32) -> io::Result<Option<u32>> {
        Ok(Some(self.iommu().max_num_mappings().saturating_sub(mapped)))
    }
}

/// A window on a mapped part of a BAR, which keeps it mapped.
pub(super) fn window(region: MappedOwningPciRegion, memory_type: MemoryType) -> io::Result<Mapped> {
    let base = NonNull::new(region.as_mut_ptr()).ok_or(io::ErrorKind::AddrNotAvailable)?;
    let (len, keep) = (region.len(), Arc::new(region));
    // SAFETY: the region stays mapped, readable and writable, until it is dropped, and nobody has a reference into it.
    Ok(unsafe { Mapped::new(base, len, memory_type, keep) })
}
