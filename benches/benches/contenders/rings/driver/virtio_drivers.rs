//! rCore's and Google's `virtio-drivers`: its queue by itself, as its device drivers use it.
#![allow(
    unsafe_code,
    reason = "its queue hands out what it borrows to a device, and its HAL is an unsafe trait"
)]

use std::alloc::{Layout, alloc_zeroed, handle_alloc_error};
use std::hint::black_box;
use std::ptr::NonNull;
use std::sync::Arc;

use shmbus_benches::Contender;
use shmbus_ring::split;
use shmbus_shm::{Mapped, MemoryType};
use shmbus_virtio::Features;
use virtio_drivers::queue::VirtQueue;
use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus, Transport};
use virtio_drivers::{BufferDirection, Error, Hal, PAGE_SIZE, PhysAddr};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::super::{BUFFER_BYTES, HONEST, SIZE};
use super::{Device, Driver, SetUp, alone};

struct VirtioDrivers {
    queue: VirtQueue<NoHal, { SIZE as usize }>,
    buffers: Vec<[u8; BUFFER_BYTES as usize]>,
    /// Which buffer a token stands for.
    lent: [u16; SIZE as usize],
}

impl Driver<1> for VirtioDrivers {
    fn lend(&mut self) {
        for (number, buffer) in (0..SIZE).zip(&mut self.buffers) {
            // SAFETY: the buffer is not touched until its token is popped, and lives as long as the queue.
            let token = unsafe { self.queue.add(&[], &mut [buffer.as_mut_slice()]) };
            self.lent[usize::from(token.expect("there is room"))] = number;
        }
        black_box(self.queue.should_notify());
    }

    fn take(&mut self) -> u64 {
        let mut taken = 0;
        while let Some(token) = self.queue.peek_used() {
            let number = self.lent[usize::from(token)];
            let buffer = self.buffers[usize::from(number)].as_mut_slice();
            // SAFETY: it is the buffer that was added under this token.
            let written = unsafe { self.queue.pop_used(token, &[], &mut [buffer]) };
            black_box((number, written.expect(HONEST)));
            taken += 1;
        }
        taken
    }
}

pub(super) fn set_up() -> SetUp<Contender> {
    let mut transport = Areas::default();
    let queue = VirtQueue::new(&mut transport, 0, false, false)?;
    let driver = VirtioDrivers {
        queue,
        buffers: vec![[0; BUFFER_BYTES as usize]; usize::from(SIZE)],
        lent: [0; SIZE as usize],
    };
    let layout = split::Layout::new(SIZE)?;
    let areas = split::Areas::new(
        layout,
        &window(transport.descriptors, layout.descriptors_bytes())?,
        &window(transport.driver, layout.available_bytes())?,
        &window(transport.device, layout.used_bytes())?,
    )?;
    let device = Device::new(split::DeviceRing::new(areas, Features::VERSION_1)?);
    Ok(alone("virtio-drivers", driver, device))
}

/// What the simulated device sees of memory that [`NoHal`] allocated.
fn window(address: PhysAddr, len: usize) -> SetUp<Mapped> {
    let base = NonNull::new(address as *mut u8).ok_or("the queue did not say where it lies")?;
    // SAFETY: `NoHal` never frees anything, and the queue accesses its areas by raw pointers.
    Ok(unsafe { Mapped::new(base, len, MemoryType::Ordinary, Arc::new(())) })
}

/// Addresses are physical ones, and nothing is copied.
struct NoHal;

// SAFETY: the memory is zeroed, aligned to pages and never freed; a shared buffer has its own address.
unsafe impl Hal for NoHal {
    fn dma_alloc(pages: usize, _: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        let layout = Layout::from_size_align(pages * PAGE_SIZE, PAGE_SIZE).expect("some pages");
        // SAFETY: the queue asks for one page or more.
        let base = unsafe { alloc_zeroed(layout) };
        match NonNull::new(base) {
            Some(base) => (base.as_ptr().expose_provenance() as PhysAddr, base),
            None => handle_alloc_error(layout),
        }
    }

    unsafe fn dma_dealloc(_: PhysAddr, _: NonNull<u8>, _: usize) -> i32 {
        0
    }

    unsafe fn mmio_phys_to_virt(_: PhysAddr, _: usize) -> NonNull<u8> {
        unreachable!("there is no such device")
    }

    unsafe fn share(buffer: NonNull<[u8]>, _: BufferDirection) -> PhysAddr {
        buffer.cast::<u8>().as_ptr().expose_provenance() as PhysAddr
    }

    unsafe fn unshare(_: PhysAddr, _: NonNull<[u8]>, _: BufferDirection) {}
}

/// A transport that only learns where the queue's areas lie.
#[derive(Default)]
struct Areas {
    descriptors: PhysAddr,
    driver: PhysAddr,
    device: PhysAddr,
}

impl Transport for Areas {
    fn device_type(&self) -> DeviceType {
        DeviceType::Block
    }

    fn read_device_features(&mut self) -> u64 {
        Features::VERSION_1.bits() as u64
    }

    fn write_driver_features(&mut self, _: u64) {}

    fn max_queue_size(&mut self, _: u16) -> u32 {
        u32::from(SIZE)
    }

    fn notify(&mut self, _: u16) {}

    fn get_status(&self) -> DeviceStatus {
        DeviceStatus::DRIVER_OK
    }

    fn set_status(&mut self, _: DeviceStatus) {}

    fn set_guest_page_size(&mut self, _: u32) {}

    fn requires_legacy_layout(&self) -> bool {
        false
    }

    fn queue_set(&mut self, _: u16, _: u32, descriptors: u64, driver: u64, device: u64) {
        *self = Self {
            descriptors,
            driver,
            device,
        };
    }

    fn queue_unset(&mut self, _: u16) {}

    fn queue_used(&mut self, _: u16) -> bool {
        false
    }

    fn ack_interrupt(&mut self) -> InterruptStatus {
        InterruptStatus::empty()
    }

    fn read_config_generation(&self) -> u32 {
        0
    }

    fn read_config_space<T: FromBytes + IntoBytes>(&self, _: usize) -> virtio_drivers::Result<T> {
        Err(Error::ConfigSpaceMissing)
    }

    fn write_config_space<T: IntoBytes + Immutable>(
        &mut self,
        _: usize,
        _: T,
    ) -> virtio_drivers::Result<()> {
        Err(Error::ConfigSpaceMissing)
    }
}
