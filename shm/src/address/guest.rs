//! A guest's memory, by guest-physical address or by the address behind its IOMMU.

use std::sync::Arc;

use vm_memory::bitmap::{BS, Bitmap, BitmapSlice};
use vm_memory::{Bytes as _, GuestAddress, GuestMemory, Permissions, VolatileSlice};

use super::{Access, AddressError, AddressSpace, SharedBytes};
use crate::mapped::Mapped;
use crate::mapping::guest_window;

/// An address space over vm-memory's guest memory. With its `IommuMemory`, addresses are I/O virtual ones and the
/// IOMMU's permissions hold; otherwise they are guest-physical.
///
/// Buffers are accessed through `VolatileSlice`, which marks what is written in the memory's dirty bitmap.
///
/// # Memory that is plugged in and out
///
/// vm-memory's guest memory never changes. It is replaced as a whole (`GuestMemoryAtomic`), and then the same guest
/// addresses may lie at other addresses of this process. A space stays with the memory that it has until it is told to
/// [`follow`](Self::follow). Its [`epoch`](Self::epoch) says how often it went on, so that whoever made windows of it
/// finds out that theirs are of an older memory. In the thread that works on a device's queues, between two batches:
///
/// ```
/// # use std::sync::Arc;
/// # use shmbus_shm::GuestSpace;
/// # use vm_memory::{GuestAddress, GuestMemoryMmap};
/// # let memory = |regions: &[_]| GuestMemoryMmap::<()>::from_ranges(regions).map(Arc::new);
/// # let mut space = GuestSpace::new(memory(&[(GuestAddress(0), 4096)])?);
/// # let plugged_in = memory(&[(GuestAddress(0), 4096), (GuestAddress(8192), 4096)])?;
/// // With `GuestMemoryAtomic`: `atomic.memory().into_inner()`.
/// if space.follow(plugged_in) {
///     // For each queue: windows of the new memory, areas carved from them, and `rebind` with these.
/// }
/// # assert_eq!(space.epoch(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Nothing dangles meanwhile. A window keeps the memory mapped that it was made of, so the old mapping goes with the
/// last queue that is rebound, and not before. What [`translate`](AddressSpace::translate) returned borrows the space,
/// which cannot follow as long as it is used. A chain that was taken holds the guest's addresses, which mean the same
/// in the new memory; if they are not there any more, it is refused as it would have been at first.
///
/// Until its queues are rebound a device works on the old mapping. That is the same memory where it is shared (a file,
/// a memfd); where it is private to the mapping, replace it only while the device is stopped.
#[derive(Debug)]
pub struct GuestSpace<M> {
    memory: Arc<M>,
    epoch: u64,
}

/// The copy stays with the memory that it has, as the original does.
impl<M> Clone for GuestSpace<M> {
    fn clone(&self) -> Self {
        Self {
            memory: Arc::clone(&self.memory),
            epoch: self.epoch,
        }
    }
}

impl<M: GuestMemory> GuestSpace<M> {
    /// The addresses of `memory`.
    pub fn new(memory: Arc<M>) -> Self {
        Self { memory, epoch: 0 }
    }

    /// Goes on with `memory`, which replaces the one before; answers whether it is another one at all. Windows made
    /// before are then of the older one.
    #[must_use = "windows of the memory before have to be made anew"]
    pub fn follow(&mut self, memory: Arc<M>) -> bool {
        if Arc::ptr_eq(&self.memory, &memory) {
            return false;
        }
        self.memory = memory;
        self.epoch += 1;
        true
    }

    /// How often the memory was replaced.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The memory.
    pub fn memory(&self) -> &Arc<M> {
        &self.memory
    }

    /// A window on the `len` bytes at `address`, for what is resolved once and used for long: the areas of a ring. The
    /// window keeps the guest memory mapped.
    ///
    /// Two things are its user's to do. Stores through the window are not marked in the dirty bitmap, but for
    /// [`GuestSpace::mark_dirty`]. And when the IOMMU takes the mapping away, the window must be dropped. vm-memory's
    /// `xen` feature, with which memory is mapped for each access, is not supported.
    ///
    /// # Errors
    ///
    /// [`AddressError`]; [`AddressError::Fragmented`] if the bytes are not contiguous in our address space.
    pub fn window(&self, address: u64, len: u32, access: Access) -> Result<Mapped, AddressError>
    where
        M: Send + Sync + 'static,
    {
        let piece = self.translate(address, len, access)?;
        let (range, bytes) = (GuestAddress(address), len as usize);
        guest_window(&self.memory, range, bytes, permissions(access)).map_err(|_| {
            AddressError::Fragmented {
                address,
                len,
                contiguous: piece.len() as u32,
            }
        })
    }

    /// Marks the `len` bytes at `address` in the dirty bitmap, after stores through a window on them.
    ///
    /// # Errors
    ///
    /// [`AddressError`], as for writing there.
    pub fn mark_dirty(&self, address: u64, len: u32) -> Result<(), AddressError> {
        let mut done = 0;
        while done < len {
            let piece = self.translate(address + u64::from(done), len - done, Access::Write)?;
            piece.slice.bitmap().mark_dirty(0, piece.len());
            done += piece.len() as u32;
        }
        Ok(())
    }

    /// Why a range was refused: vm-memory has one error for what is not there and what may not be accessed.
    fn refusal(&self, address: u64, len: u32, access: Access) -> AddressError {
        let range = GuestAddress(address);
        if self
            .memory
            .check_range(range, len as usize, Permissions::No)
        {
            AddressError::Denied {
                address,
                len,
                access,
            }
        } else {
            AddressError::Unmapped { address, len }
        }
    }
}

impl<M: GuestMemory> AddressSpace for GuestSpace<M> {
    type Slice<'a>
        = GuestBytes<'a, BS<'a, M::Bitmap>>
    where
        Self: 'a;

    fn translate<'a>(
        &'a self,
        address: u64,
        len: u32,
        access: Access,
    ) -> Result<Self::Slice<'a>, AddressError> {
        if len == 0 {
            return Err(AddressError::Empty { address });
        }
        // vm-memory's IOMMU adds the two without looking.
        if address.checked_add(u64::from(len)).is_none() {
            return Err(AddressError::Unmapped { address, len });
        }
        let first = self
            .memory
            .get_slices(GuestAddress(address), len as usize, permissions(access))
            .ok()
            .and_then(|mut slices| slices.next());
        match first {
            Some(Ok(slice)) if !slice.is_empty() => Ok(GuestBytes { slice }),
            _ => Err(self.refusal(address, len, access)),
        }
    }
}

fn permissions(access: Access) -> Permissions {
    match access {
        Access::Read => Permissions::Read,
        Access::Write => Permissions::Write,
        Access::ReadWrite => Permissions::ReadWrite,
    }
}

/// Bytes of a guest's memory.
#[derive(Debug)]
pub struct GuestBytes<'a, B> {
    slice: VolatileSlice<'a, B>,
}

impl<B: BitmapSlice> SharedBytes for GuestBytes<'_, B> {
    fn len(&self) -> usize {
        self.slice.len()
    }

    fn copy_to(&self, skip: usize, to: &mut [u8]) -> usize {
        self.slice.read(to, skip).unwrap_or(0)
    }

    fn copy_from(&self, skip: usize, from: &[u8]) -> usize {
        self.slice.write(from, skip).unwrap_or(0)
    }
}

#[cfg(test)]
#[cfg(not(miri))] // vm-memory maps its regions
mod tests {
    use super::*;
    use crate::{Field, Window};
    use core::sync::atomic::Ordering::Relaxed;
    use vm_memory::bitmap::AtomicBitmap;
    use vm_memory::iommu::{Error as IommuError, IotlbIterator, IovaRange};
    use vm_memory::{
        GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, Iommu, IommuMemory, Iotlb,
    };

    type Memory = GuestMemoryMmap<AtomicBitmap>;

    const PAGE: usize = 4096;
    /// Two regions side by side, a hole, and a third one.
    const REGIONS: [(GuestAddress, usize); 3] = [
        (GuestAddress(0), PAGE),
        (GuestAddress(4096), PAGE),
        (GuestAddress(0x10_0000), PAGE),
    ];

    fn memory() -> Memory {
        Memory::from_ranges(&REGIONS).unwrap()
    }

    fn dirty(memory: &Memory, address: u64) -> bool {
        let region = memory.find_region(GuestAddress(address)).unwrap();
        let offset = address - region.start_addr().0;
        region.bitmap().dirty_at(offset as usize)
    }

    /// Copies all of a range, piece by piece.
    fn read<S: AddressSpace>(space: &S, mut address: u64, to: &mut [u8]) -> usize {
        let (mut done, mut pieces) = (0, 0);
        while done < to.len() {
            let left = (to.len() - done) as u32;
            let piece = space.translate(address, left, Access::Read).unwrap();
            done += piece.copy_to(0, &mut to[done..]);
            address += piece.len() as u64;
            pieces += 1;
        }
        pieces
    }

    /// An IOMMU whose mappings are all in its cache.
    #[derive(Debug)]
    struct Mappings(Iotlb);

    impl Mappings {
        fn new(mappings: &[(u64, u64, usize, Permissions)]) -> Self {
            let mut iotlb = Iotlb::new();
            for (iova, physical, len, permissions) in mappings {
                iotlb
                    .set_mapping(
                        GuestAddress(*iova),
                        GuestAddress(*physical),
                        *len,
                        *permissions,
                    )
                    .unwrap();
            }
            Self(iotlb)
        }
    }

    impl Iommu for Mappings {
        type IotlbGuard<'a> = &'a Iotlb;

        fn translate(
            &self,
            iova: GuestAddress,
            length: usize,
            access: Permissions,
        ) -> Result<IotlbIterator<&Iotlb>, IommuError> {
            Iotlb::lookup(&self.0, iova, length, access).map_err(|_| IommuError::CannotResolve {
                iova_range: IovaRange { base: iova, length },
                reason: "not mapped so".into(),
            })
        }
    }

    fn behind_iommu(
        mappings: &[(u64, u64, usize, Permissions)],
    ) -> GuestSpace<IommuMemory<Memory, Mappings>> {
        let bitmap = AtomicBitmap::new(1 << 20, PAGE.try_into().unwrap());
        GuestSpace::new(Arc::new(IommuMemory::new(
            memory(),
            Mappings::new(mappings),
            true,
            bitmap,
        )))
    }

    #[test]
    fn a_range_across_two_regions_comes_in_pieces() {
        let space = GuestSpace::new(Arc::new(memory()));
        let written: Vec<u8> = (0..100).collect();
        space
            .memory()
            .write_slice(&written, GuestAddress(4096 - 30))
            .unwrap();
        let piece = space.translate(4096 - 30, 100, Access::Read).unwrap();
        assert_eq!(piece.len(), 30);
        let mut found = [0; 100];
        assert_eq!(read(&space, 4096 - 30, &mut found), 2);
        assert_eq!(found, *written);
        assert_eq!(
            space.window(4096 - 30, 100, Access::ReadWrite).unwrap_err(),
            AddressError::Fragmented {
                address: 4096 - 30,
                len: 100,
                contiguous: 30
            }
        );
        // A copy stays inside its piece.
        assert_eq!(piece.copy_to(25, &mut found), 5);
        assert_eq!(piece.copy_to(30, &mut found), 0);
        assert_eq!(piece.copy_from(usize::MAX, &found), 0);
    }

    #[test]
    fn holes_and_ends_are_refused() {
        let space = GuestSpace::new(Arc::new(memory()));
        for (address, len) in [
            (8192, 1),
            (0xf_ffff, 2),
            (0x10_1000, 1),
            (u64::MAX, 1),
            (u64::MAX - 3, u32::MAX),
        ] {
            assert_eq!(
                space.translate(address, len, Access::Read).unwrap_err(),
                AddressError::Unmapped { address, len }
            );
        }
        assert_eq!(
            space.translate(0, 0, Access::Read).unwrap_err(),
            AddressError::Empty { address: 0 }
        );
        // The first piece is there; what is missing shows when the rest is translated.
        assert_eq!(space.translate(8191, 2, Access::Read).unwrap().len(), 1);
    }

    #[test]
    fn what_is_written_is_marked_dirty_and_what_is_read_is_not() {
        let space = GuestSpace::new(Arc::new(memory()));
        let buffer = space.translate(0x10_0000, 64, Access::Write).unwrap();
        let mut found = [0; 64];
        buffer.copy_to(0, &mut found);
        assert!(!dirty(space.memory(), 0x10_0000));
        assert_eq!(buffer.copy_from(8, b"dirty"), 5);
        assert!(dirty(space.memory(), 0x10_0000));
        assert!(!dirty(space.memory(), 0));
    }

    #[test]
    fn what_was_stored_through_a_window_is_marked_when_told() {
        let space = GuestSpace::new(Arc::new(memory()));
        let window = space.window(4096, 64, Access::ReadWrite).unwrap();
        Field::<u64, _>::new(&window, 0).unwrap().store(1, Relaxed);
        assert!(!dirty(space.memory(), 4096));
        space.mark_dirty(4096, 64).unwrap();
        assert!(dirty(space.memory(), 4096) && !dirty(space.memory(), 0));
        space.mark_dirty(4095, 2).unwrap();
        assert!(dirty(space.memory(), 0), "across two regions");
        assert!(space.mark_dirty(8191, 2).is_err());
        assert!(space.mark_dirty(u64::MAX, 2).is_err());
    }

    #[test]
    fn an_iommu_maps_and_permits() {
        use Permissions::{Read, ReadWrite};
        let space = behind_iommu(&[
            (0x8000, 0x10_0000, 2048, Read),
            (0x8800, 0, 2048, ReadWrite),
            (0xa000, 4096, PAGE, ReadWrite),
        ]);
        let physical = space.memory().get_backend();
        physical
            .write_slice(b"physical", GuestAddress(0x10_0000))
            .unwrap();

        let mut found = [0; 8];
        assert_eq!(read(&space, 0x8000, &mut found), 1);
        assert_eq!(&found, b"physical");
        assert_eq!(
            read(&space, 0x8800 - 4, &mut found),
            2,
            "two mappings, one range"
        );

        // Read-only stays read-only, also for a part of a range and for a ring's areas.
        for (address, len, access) in [
            (0x8000, 8, Access::Write),
            (0x8800 - 4, 8, Access::Write),
            (0x8000, 8, Access::ReadWrite),
        ] {
            let denied = AddressError::Denied {
                address,
                len,
                access,
            };
            assert_eq!(space.translate(address, len, access).unwrap_err(), denied);
            assert_eq!(space.window(address, len, access).unwrap_err(), denied);
        }
        let writable = space.translate(0x8800, 8, Access::Write).unwrap();
        writable.copy_from(0, b"upwards!");
        physical.read_slice(&mut found, GuestAddress(0)).unwrap();
        assert_eq!(&found, b"upwards!");
        assert!(
            space.memory().bitmap().dirty_at(0x8800),
            "by its I/O address"
        );

        for (address, len) in [(0x9000, 1), (0x7fff, 2), (0x8fff, 2), (u64::MAX, 1)] {
            assert_eq!(
                space.translate(address, len, Access::Read).unwrap_err(),
                AddressError::Unmapped { address, len }
            );
        }
    }

    #[test]
    fn a_window_keeps_guest_memory_mapped() {
        let space = GuestSpace::new(Arc::new(memory()));
        let window = space.window(4096 + 64, 256, Access::ReadWrite).unwrap();
        assert_eq!(window.len(), 256);
        let field = Field::<u64, _>::new(&window, 8).unwrap();
        space
            .memory()
            .write_obj(0x1122_3344_5566_7788_u64, GuestAddress(4096 + 72))
            .unwrap();
        let alive = Arc::downgrade(space.memory());
        drop((space, window));
        assert_eq!(field.load(Relaxed), 0x1122_3344_5566_7788);
        assert!(alive.upgrade().is_some());
        drop(field);
        assert!(alive.upgrade().is_none());
    }
}
