//! A guest whose memory lies in several regions, and the addresses at which its device finds it.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use shmbus_shm::{GuestSpace, SharedBytes};
use vm_memory::bitmap::AtomicBitmap;
use vm_memory::iommu::{Error as IommuError, IotlbIterator, IovaRange};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap, Iommu, IommuMemory, Iotlb, Permissions};

pub type Memory = GuestMemoryMmap<AtomicBitmap>;
pub type Behind = IommuMemory<Memory, Mappings>;

pub const PAGE: u64 = 4096;
/// Two regions side by side, a hole, and a third one.
pub const REGIONS: [(GuestAddress, usize); 3] = [
    (GuestAddress(0), 0x1_0000),
    (GuestAddress(0x1_0000), 0x1_0000),
    (GuestAddress(0x10_0000), 0x1_0000),
];

/// Where the ring lies: at the start of the memory.
pub const RING_BYTES: u64 = 0x4000;
/// Buffers lie here. The border of two regions is in the midst of it.
pub const BUFFERS: u64 = 0x8000;
pub const BUFFER_BYTES: u64 = 24 * PAGE;

/// Where an IOMMU shows the ring, and the buffers.
const RING_IOVA: u64 = 0x1000_0000;
const BUFFERS_IOVA: u64 = 0x4000_0000;

/// An IOMMU whose mappings are all in its cache, and can be taken away while it is in use.
#[derive(Clone, Debug)]
pub struct Mappings(Arc<RwLock<Iotlb>>);

impl Mappings {
    pub fn map(&self, iova: u64, physical: u64, bytes: u64, permissions: Permissions) {
        let mut iotlb = self.0.write().unwrap();
        let (from, to) = (GuestAddress(iova), GuestAddress(physical));
        iotlb
            .set_mapping(from, to, bytes as usize, permissions)
            .unwrap();
    }

    pub fn unmap(&self, iova: u64, bytes: u64) {
        let mut iotlb = self.0.write().unwrap();
        iotlb.invalidate_mapping(GuestAddress(iova), bytes as usize);
    }
}

impl Iommu for Mappings {
    type IotlbGuard<'a> = RwLockReadGuard<'a, Iotlb>;

    fn translate(
        &self,
        iova: GuestAddress,
        length: usize,
        access: Permissions,
    ) -> Result<IotlbIterator<Self::IotlbGuard<'_>>, IommuError> {
        let iotlb = self.0.read().unwrap_or_else(PoisonError::into_inner);
        Iotlb::lookup(iotlb, iova, length, access).map_err(|_| IommuError::CannotResolve {
            iova_range: IovaRange { base: iova, length },
            reason: "not mapped so".into(),
        })
    }
}

/// The guest: its memory by physical address, and how its device's addresses are made.
#[derive(Clone)]
pub struct Guest {
    pub physical: Arc<Memory>,
    /// The device's addresses are those behind an IOMMU.
    translated: bool,
}

impl Guest {
    pub fn new() -> Self {
        Self::of(Arc::new(Memory::from_ranges(&REGIONS).unwrap()))
    }

    /// With this memory, and no IOMMU.
    pub fn of(physical: Arc<Memory>) -> Self {
        Self {
            physical,
            translated: false,
        }
    }

    /// With an IOMMU before the device. Behind it buffers are contiguous, and each page of them lies in another region
    /// than the one before.
    pub fn behind_iommu() -> (Self, Mappings, GuestSpace<Behind>) {
        let guest = Self {
            translated: true,
            ..Self::new()
        };
        let mappings = Mappings(Arc::default());
        mappings.map(RING_IOVA, 0, RING_BYTES, Permissions::ReadWrite);
        for page in 0..BUFFER_BYTES / PAGE {
            let iova = BUFFERS_IOVA + page * PAGE;
            mappings.map(iova, guest.physical_of(iova), PAGE, Permissions::ReadWrite);
        }
        let bitmap = AtomicBitmap::new(2 << 30, (PAGE as usize).try_into().unwrap());
        let memory = Memory::clone(&guest.physical);
        let behind = IommuMemory::new(memory, mappings.clone(), true, bitmap);
        (guest, mappings, GuestSpace::new(Arc::new(behind)))
    }

    /// The memory without an IOMMU.
    pub fn space(&self) -> GuestSpace<Memory> {
        GuestSpace::new(Arc::clone(&self.physical))
    }

    /// Where the device finds the ring.
    pub fn ring(&self) -> u64 {
        if self.translated { RING_IOVA } else { 0 }
    }

    /// Where it finds the buffers.
    pub fn buffers(&self) -> u64 {
        if self.translated {
            BUFFERS_IOVA
        } else {
            BUFFERS
        }
    }

    /// Where a byte of the buffers lies, of whose address the device is told.
    pub fn physical_of(&self, address: u64) -> u64 {
        if !self.translated {
            return address;
        }
        let (page, offset) = ((address - BUFFERS_IOVA) / PAGE, address % PAGE);
        let (region, page) = ((page % 3) as usize, page / 3);
        // The first region has the ring in front.
        let start = REGIONS[region].0.0 + if region == 0 { BUFFERS } else { 0 };
        start + page * PAGE + offset
    }

    /// What the guest's processor writes.
    pub fn write(&self, address: u64, bytes: &[u8]) {
        for (address, byte) in (address..).zip(bytes) {
            let at = GuestAddress(self.physical_of(address));
            self.physical.write_obj(*byte, at).unwrap();
        }
    }

    /// What it reads.
    pub fn read(&self, address: u64, count: u64) -> Vec<u8> {
        (address..address + count)
            .map(|address| {
                let at = GuestAddress(self.physical_of(address));
                self.physical.read_obj(at).unwrap()
            })
            .collect()
    }

    /// Bytes in one piece for the guest, wherever they lie.
    pub fn table(&self, address: u64, len: usize) -> Table<'_> {
        Table {
            guest: self,
            address,
            len,
        }
    }
}

/// Memory for an indirect table.
pub struct Table<'g> {
    guest: &'g Guest,
    address: u64,
    len: usize,
}

impl SharedBytes for Table<'_> {
    fn len(&self) -> usize {
        self.len
    }

    fn copy_to(&self, skip: usize, to: &mut [u8]) -> usize {
        let count = to.len().min(self.len.saturating_sub(skip));
        let found = self.guest.read(self.address + skip as u64, count as u64);
        to[..count].copy_from_slice(&found);
        count
    }

    fn copy_from(&self, skip: usize, from: &[u8]) -> usize {
        let count = from.len().min(self.len.saturating_sub(skip));
        self.guest.write(self.address + skip as u64, &from[..count]);
        count
    }
}
