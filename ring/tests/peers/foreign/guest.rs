//! A guest's memory: mapped, or on the heap under Miri, which maps none.

use vm_memory::{GuestAddress, GuestMemoryMmap};

#[cfg(not(miri))]
pub fn memory(ranges: &[(GuestAddress, usize)]) -> GuestMemoryMmap<()> {
    GuestMemoryMmap::from_ranges(ranges).unwrap()
}

#[cfg(miri)]
pub fn memory(ranges: &[(GuestAddress, usize)]) -> GuestMemoryMmap<()> {
    use std::sync::{Mutex, PoisonError};

    use shmbus_shm::{Mapped, heap};
    use vm_memory::{GuestRegionMmap, MmapRegion};

    const PAGE: usize = 4096;
    static KEPT: Mutex<Vec<Mapped>> = Mutex::new(Vec::new());

    let regions = ranges.iter().map(|(start, bytes)| {
        let memory = heap(bytes + PAGE);
        let base = memory.as_ptr();
        let pages = base.as_ptr().wrapping_add(base.align_offset(PAGE));
        KEPT.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(memory);
        // SAFETY: there are `bytes` bytes from the first page on, and they are kept until the program ends.
        let region = unsafe { MmapRegion::build_raw(pages, *bytes, 0, 0) }.unwrap();
        GuestRegionMmap::new(region, *start).unwrap()
    });
    GuestMemoryMmap::from_regions(regions.collect()).unwrap()
}
