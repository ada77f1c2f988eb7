//! The driver behind the C functions.

use shmbus_ring::{Buffer, DESCRIPTOR_BYTES, RingFeatures};
use shmbus_shm::{AddressSpace, Mapped, Window};

use crate::abi::{Area, Chain, FAULT, NO, Piece, Returned, Setup, YES};
use crate::peers::our_queue::Lending;

/// The guest's own type.
#[repr(C)]
struct Driver {
    opaque: [u8; 0],
}

// SAFETY: the guest's library, which is linked, defines these functions with these types.
unsafe extern "C" {
    safe fn ring_storage_bytes(size: u16) -> usize;
    fn ring_open(setup: &Setup) -> *mut Driver;
    fn ring_add(driver: *mut Driver, chain: &Chain) -> i32;
    fn ring_publish(driver: *mut Driver) -> i32;
    fn ring_take(driver: *mut Driver, returned: &mut Returned) -> i32;
    fn ring_disable_notifications(driver: *mut Driver);
    fn ring_enable_notifications(driver: *mut Driver) -> i32;
}

/// The guest's driver, and what it was set up with.
pub struct Guest {
    driver: *mut Driver,
    size: u16,
    /// Where tables and buffers lie.
    buffers: Mapped,
    _memories: [Mapped; 3],
}

impl Guest {
    /// A driver in memories that the driver, the device, and both write; nothing if the guest refuses it.
    pub fn open(
        size: u16,
        features: impl Into<RingFeatures>,
        memories: &[Mapped; 3],
        buffers: Mapped,
    ) -> Option<Self> {
        let words = ring_storage_bytes(size).div_ceil(size_of::<u128>());
        let storage: &'static mut [u128] = vec![0; words].leak();
        let [driver, device, common] = memories.each_ref().map(area);
        let RingFeatures { virtio, private } = features.into();
        let [features, _] = virtio.to_words();
        let setup = Setup {
            storage: Area {
                start: storage.as_mut_ptr().cast(),
                bytes: size_of_val(storage),
            },
            driver,
            device,
            common,
            features,
            private: private.bits(),
            size,
        };
        // SAFETY: the storage stays for ever and is the driver's; the memories are kept below.
        let driver = unsafe { ring_open(&setup) };
        (!driver.is_null()).then(|| Self {
            driver,
            size,
            buffers,
            _memories: memories.clone(),
        })
    }
}

fn area(memory: &Mapped) -> Area {
    Area {
        start: memory.as_ptr().as_ptr(),
        bytes: memory.len(),
    }
}

fn piece(buffer: &Buffer) -> Piece {
    Piece {
        address: buffer.address,
        len: buffer.len,
    }
}

fn done(answer: i32) -> bool {
    match answer {
        YES => true,
        NO => false,
        FAULT => panic!("the guest's queue has stopped"),
        other => panic!("the guest answers {other}"),
    }
}

impl Lending for Guest {
    fn size(&self) -> u16 {
        self.size
    }

    fn add(
        &mut self,
        readable: &[Buffer],
        writable: &[Buffer],
        table: Option<u64>,
        _: &impl AddressSpace,
        cookie: u64,
    ) -> bool {
        let pieces: Vec<_> = readable.iter().chain(writable).map(piece).collect();
        let table_bytes = table.map_or(0, |_| DESCRIPTOR_BYTES * pieces.len());
        let table_address = table.unwrap_or_default();
        let window = self.buffers.narrow(table_address as usize, table_bytes);
        let chain = Chain {
            pieces: pieces.as_ptr(),
            readable: readable.len(),
            writable: writable.len(),
            table: area(&window.unwrap()),
            table_address,
            cookie,
        };
        // SAFETY: the pieces are there; the table lies with the chain's buffers, and is left alone as they are.
        done(unsafe { ring_add(self.driver, &chain) })
    }

    fn publish(&mut self) -> bool {
        // SAFETY: the driver is open.
        done(unsafe { ring_publish(self.driver) })
    }

    fn take(&mut self) -> Option<(u64, u32)> {
        let mut returned = Returned::default();
        // SAFETY: the driver is open.
        let taken = done(unsafe { ring_take(self.driver, &mut returned) });
        taken.then_some((returned.cookie, returned.written))
    }

    fn disable_notifications(&mut self) {
        // SAFETY: the driver is open.
        unsafe { ring_disable_notifications(self.driver) };
    }

    fn enable_notifications(&mut self) -> bool {
        // SAFETY: the driver is open.
        done(unsafe { ring_enable_notifications(self.driver) })
    }
}
