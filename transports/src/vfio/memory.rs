//! Memory for a function.

use std::fmt;
use std::io;
use std::sync::Arc;

use shmbus_shm::{Access, GuestSpace, Keep, Mapped, Window};
use vm_memory::{GuestAddress, GuestMemoryMmap};

use crate::pci::{DmaError, DmaMemory, DmaRegion};

use super::limits::{Limits, lockable};
use super::mapping::{Mapping, Space};

/// Memory that a function may access, and with it all functions of its container.
///
/// What is allocated is private memory of this process, zeroed, whole pages; [`Memory::map`] takes what is there already. The
/// IOMMU maps nothing else, and a mapping goes with the last window on it. Windows keep the function open.
#[derive(Clone)]
pub struct Memory {
    space: Arc<Space>,
    function: Keep,
}

impl Memory {
    pub(super) fn new(space: Arc<Space>, function: Keep) -> Self {
        Self { space, function }
    }

    /// Lets functions access memory that is there: a window on a [`SharedMemory`](shmbus_shm::SharedMemory), or on a guest's
    /// memory. The region's window is the same, and keeps the mapping there.
    ///
    /// # Errors
    ///
    /// [`DmaError`]; [`DmaError::NotPages`] if the window is not whole pages, whose other bytes the functions would reach
    /// too; [`DmaError::System`] also if the window cannot be written to.
    pub fn map(&self, window: &Mapped) -> Result<DmaRegion, DmaError> {
        let (bytes, page) = (window.len(), self.space.page);
        let start = window.as_ptr().as_ptr().addr();
        if bytes == 0 || !(start as u64 | bytes as u64).is_multiple_of(page) {
            return Err(DmaError::NotPages { start, bytes, page });
        }
        self.map_with(bytes, |_| Ok(window.clone()))
    }

    /// What is left before memory is refused.
    ///
    /// # Errors
    ///
    /// What the IOMMU's driver says.
    pub fn limits(&self) -> io::Result<Limits> {
        Ok(Limits {
            mappings: self.space.mappings_left()?,
            bytes: lockable(),
        })
    }

    /// Maps the window that `provide` makes, given the address where functions find it: `bytes` bytes, whole pages.
    fn map_with(
        &self,
        bytes: usize,
        provide: impl FnOnce(u64) -> Result<Mapped, DmaError>,
    ) -> Result<DmaRegion, DmaError> {
        let refused = |doing| {
            move |source| DmaError::System {
                doing,
                bytes,
                source,
            }
        };
        if self.space.is_full() {
            return Err(self.no_mappings());
        }
        if let Some(left) = lockable().filter(|left| *left < bytes as u64) {
            return Err(DmaError::LockLimit { bytes, left });
        }
        let taken = self
            .space
            .take(bytes as u64)
            .ok_or(DmaError::NoAddresses { bytes })?;
        let address = taken.start();
        let window = provide(address)?;
        let function = Arc::clone(&self.function);
        let mapping = Mapping::new(taken, window.clone(), function).map_err(|error| {
            // Somebody else was faster.
            if error.kind() == io::ErrorKind::StorageFull {
                self.no_mappings()
            } else {
                refused("map")(error)
            }
        })?;
        Ok(DmaRegion {
            // The lease holds the window too: memory is unmapped from the IOMMU before it goes.
            window: window.leased(mapping),
            address,
        })
    }

    fn no_mappings(&self) -> DmaError {
        DmaError::NoMappings {
            mapped: self.space.mapped(),
        }
    }
}

impl DmaMemory for Memory {
    fn allocate(&self, bytes: usize) -> Result<DmaRegion, DmaError> {
        let size = || DmaError::Size { bytes };
        let len = (bytes as u64)
            .checked_next_multiple_of(self.space.page)
            .ok_or_else(size)?;
        let len = u32::try_from(len)
            .ok()
            .filter(|len| *len != 0)
            .ok_or_else(size)?;
        self.map_with(len as usize, |address| {
            // Where the function finds it is where it lies as a guest's memory.
            let ranges = [(GuestAddress(address), len as usize)];
            let memory = GuestMemoryMmap::<()>::from_ranges(&ranges).map_err(io::Error::other);
            let window = memory.and_then(|memory| {
                let space = GuestSpace::new(Arc::new(memory));
                space
                    .window(address, len, Access::ReadWrite)
                    .map_err(io::Error::other)
            });
            window.map_err(|source| DmaError::System {
                doing: "allocate",
                bytes,
                source,
            })
        })
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory")
            .field("mapped", &self.space.mapped())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[cfg(not(miri))] // vm-memory maps its regions
mod tests {
    use super::super::iommu::Iommu;
    use super::super::mapping::tests::Table;
    use super::*;
    use core::sync::atomic::Ordering::Relaxed;
    use shmbus_shm::{Field, SharedMemory, Writers, heap};

    const PAGE: usize = 4096;

    fn memory(table: &Arc<Table>) -> Memory {
        let mappings_left = table.most;
        let iommu = Iommu {
            page: 4096,
            addresses: vec![0..=0x3f_ffff],
            mappings_left,
        };
        let space = Space::new(Box::new(Arc::clone(table)), &iommu);
        Memory::new(Arc::new(space), Arc::new(()))
    }

    fn entries(table: &Table) -> Vec<(u64, (usize, usize))> {
        table.entries.lock().unwrap().clone().into_iter().collect()
    }

    #[test]
    fn what_is_allocated_is_mapped_until_the_last_window_goes() {
        let table = Arc::new(Table::default());
        let memory = memory(&table);
        let DmaRegion { window, address } = memory.allocate(5000).unwrap();
        assert_eq!((address, window.len()), (4096, 2 * PAGE));
        assert_eq!(
            entries(&table),
            [(address, (window.as_ptr().as_ptr().addr(), 2 * PAGE))]
        );
        let field = Field::<u64, _>::new(&window, PAGE).unwrap();
        assert_eq!(field.load(Relaxed), 0);
        let second = memory.allocate(1).unwrap();
        assert_eq!(
            second.address,
            address + 3 * PAGE as u64,
            "a page between is not mapped"
        );
        drop((window, memory));
        assert_eq!(entries(&table).len(), 2, "a view of a word keeps it");
        drop(field);
        assert_eq!(entries(&table)[0].0, second.address);
        drop(second);
        assert!(entries(&table).is_empty());
    }

    #[test]
    fn memory_that_is_there_is_mapped_where_it_is() {
        let table = Arc::new(Table::default());
        let memory = memory(&table);
        let shared = SharedMemory::create("dma", 4 * PAGE as u64, Writers::Everybody).unwrap();
        let part = shared.window().narrow(PAGE, PAGE).unwrap();
        let region = memory.map(&part).unwrap();
        assert_eq!(entries(&table)[0].1, (part.as_ptr().as_ptr().addr(), PAGE));
        drop((shared, part));
        Field::<u32, _>::new(&region.window, 0)
            .unwrap()
            .store(1, Relaxed);
        drop(region);
        assert!(entries(&table).is_empty());
    }

    #[test]
    fn bytes_of_others_in_the_same_page_are_not_mapped_along() {
        let memory = memory(&Arc::default());
        let shared = SharedMemory::create("dma", 4 * PAGE as u64, Writers::Everybody).unwrap();
        for (offset, bytes) in [(0, 0), (0, PAGE - 8), (8, PAGE), (PAGE, PAGE + 64)] {
            let refused = memory.map(&shared.window().narrow(offset, bytes).unwrap());
            assert!(
                matches!(refused, Err(DmaError::NotPages { .. })),
                "{offset} {bytes}"
            );
        }
        assert!(matches!(
            memory.map(&heap(100)),
            Err(DmaError::NotPages { .. })
        ));
    }

    #[test]
    fn sizes_addresses_and_mappings_that_there_are_not_are_refused() {
        let table = Arc::new(Table {
            most: Some(2),
            ..Table::default()
        });
        let memory = memory(&table);
        for bytes in [0, usize::MAX, usize::MAX - PAGE, u32::MAX as usize] {
            assert!(
                matches!(memory.allocate(bytes), Err(DmaError::Size { .. })),
                "{bytes}"
            );
        }
        let refused = memory.allocate(4 << 20).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "no 4194304 bytes of I/O virtual addresses are free"
        );
        let first = memory.allocate(1).unwrap();
        let _second = memory.allocate(1).unwrap();
        assert_eq!(memory.limits().unwrap().mappings, Some(0));
        assert!(matches!(
            memory.allocate(1),
            Err(DmaError::NoMappings { mapped: 2 })
        ));
        drop(first);
        memory.allocate(1).unwrap();
    }

    #[test]
    fn what_cannot_be_unmapped_is_never_used_again() {
        let table = Arc::new(Table::default());
        let memory = memory(&table);
        let shared =
            SharedMemory::create("never-unmapped", PAGE as u64, Writers::Everybody).unwrap();
        let region = memory.map(shared.window()).unwrap();
        let address = region.address;
        table.stuck.store(true, Relaxed);
        drop((region, shared));
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        assert!(maps.contains("/memfd:never-unmapped"), "its memory stays");
        table.stuck.store(false, Relaxed);
        assert_ne!(memory.allocate(1).unwrap().address, address);
    }
}
