//! What virtio-drivers wants of a kernel: memory for queues, and buffers that the device can reach. Each buffer is
//! copied to memory that is shared with the device, and back, as for a confidential guest. So none of the peer's
//! references is to memory that the device accesses.

use std::cell::RefCell;
use std::ptr::NonNull;

use shmbus_shm::{Bytes, Mapped, Window, heap};
use virtio_drivers::queue::VirtQueue;
use virtio_drivers::transport::Transport;
use virtio_drivers::{BufferDirection, Error, Hal, PAGE_SIZE, PhysAddr};

thread_local! {
    /// The peer asks for memory by functions of a type, not of a value.
    static SHARED: RefCell<Option<Shared>> = const { RefCell::new(None) };
}

/// Memory that both sides reach. Addresses are offsets into it; 0, with the first page, is none.
struct Shared {
    window: Mapped,
    end: usize,
    /// What was given back, by the logarithm of its length.
    free: [Vec<usize>; usize::BITS as usize],
}

impl Shared {
    fn allocate(&mut self, len: usize) -> usize {
        let len = len.next_power_of_two();
        if let Some(offset) = self.free[len.ilog2() as usize].pop() {
            return offset;
        }
        self.end += len;
        assert!(self.end <= self.window.len(), "too little shared memory");
        self.end - len
    }

    fn release(&mut self, offset: usize, len: usize) {
        self.free[len.next_power_of_two().ilog2() as usize].push(offset);
    }
}

fn shared<R>(with: impl FnOnce(&mut Shared) -> R) -> R {
    SHARED.with_borrow_mut(|shared| with(shared.as_mut().expect("memory is set up first")))
}

/// Makes `bytes` bytes the memory that this thread's queues and buffers lie in; returns it.
pub fn set_up(bytes: usize) -> Mapped {
    let memory = heap(bytes + PAGE_SIZE);
    let gap = memory.as_ptr().as_ptr().align_offset(PAGE_SIZE);
    let window = memory.narrow(gap, bytes).unwrap();
    SHARED.set(Some(Shared {
        window: window.clone(),
        end: PAGE_SIZE,
        free: [const { Vec::new() }; usize::BITS as usize],
    }));
    window
}

pub struct Bounce;

// SAFETY: pages come zeroed and aligned out of a window that is kept, are handed out once, and are accessed by
// nobody else but through windows.
unsafe impl Hal for Bounce {
    fn dma_alloc(pages: usize, _: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        shared(|shared| {
            let bytes = pages * PAGE_SIZE;
            shared.end = shared.end.next_multiple_of(PAGE_SIZE);
            let window = shared.window.narrow(shared.end, bytes).unwrap();
            shared.end += bytes;
            let address = shared.end - bytes;
            (address as PhysAddr, window.as_ptr())
        })
    }

    unsafe fn dma_dealloc(_: PhysAddr, _: NonNull<u8>, _: usize) -> i32 {
        0
    }

    unsafe fn mmio_phys_to_virt(_: PhysAddr, _: usize) -> NonNull<u8> {
        unreachable!("there are no registers")
    }

    unsafe fn share(buffer: NonNull<[u8]>, _: BufferDirection) -> PhysAddr {
        // SAFETY: the caller promises that nobody else accesses the buffer meanwhile.
        let bytes = unsafe { buffer.as_ref() };
        shared(|shared| {
            let offset = shared.allocate(bytes.len());
            place(shared, offset, bytes.len()).copy_from(0, bytes);
            offset as PhysAddr
        })
    }

    unsafe fn unshare(address: PhysAddr, buffer: NonNull<[u8]>, direction: BufferDirection) {
        shared(|shared| {
            let offset = address as usize;
            if direction == BufferDirection::DeviceToDriver {
                // SAFETY: as in `share`; and it is the driver's to write.
                let bytes = unsafe { &mut *buffer.as_ptr() };
                place(shared, offset, buffer.len()).copy_to(0, bytes);
            }
            shared.release(offset, buffer.len());
        });
    }
}

fn place(shared: &Shared, offset: usize, len: usize) -> Bytes<'_, Mapped> {
    Bytes::new(&shared.window, offset, len).unwrap()
}

/// A chain's buffers.
pub struct Buffers {
    pub readable: Vec<Vec<u8>>,
    pub writable: Vec<Vec<u8>>,
}

impl Buffers {
    /// As the peer takes them.
    fn slices(&mut self) -> (Vec<&[u8]>, Vec<&mut [u8]>) {
        (
            self.readable.iter().map(Vec::as_slice).collect(),
            self.writable.iter_mut().map(Vec::as_mut_slice).collect(),
        )
    }
}

/// The peer's queue, which owns what it lends.
pub struct Queue<const SIZE: usize> {
    inner: VirtQueue<Bounce, SIZE>,
    /// By token.
    lent: [Option<Buffers>; SIZE],
}

impl<const SIZE: usize> Queue<SIZE> {
    pub fn new(transport: &mut impl Transport, indirect: bool, event_idx: bool) -> Self {
        Self {
            inner: VirtQueue::new(transport, 0, indirect, event_idx).unwrap(),
            lent: [const { None }; SIZE],
        }
    }

    /// Makes a chain available; returns its token, or nothing if there is no room now.
    pub fn add(&mut self, mut buffers: Buffers) -> Option<u16> {
        let (readable, mut writable) = buffers.slices();
        // SAFETY: the buffers are kept in `lent` until `take` gets their token back, and not accessed.
        let result = unsafe { self.inner.add(&readable, &mut writable) };
        match result {
            Ok(token) => {
                let free = self.lent[usize::from(token)].replace(buffers);
                assert!(free.is_none(), "token {token} is lent");
                Some(token)
            }
            Err(Error::QueueFull) => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// Takes back a chain, if one is used; returns its token, and how many bytes the device says it has written.
    pub fn take(&mut self) -> Option<(u16, u32, Buffers)> {
        let token = self.inner.peek_used()?;
        let mut buffers = self.lent[usize::from(token)].take().expect("it is lent");
        let (readable, mut writable) = buffers.slices();
        // SAFETY: these are the buffers that were added under this token.
        let written = unsafe { self.inner.pop_used(token, &readable, &mut writable) }.unwrap();
        Some((token, written, buffers))
    }

    pub fn can_take(&self) -> bool {
        self.inner.can_pop()
    }

    pub fn should_notify(&self) -> bool {
        self.inner.should_notify()
    }

    pub fn set_notified(&mut self, notified: bool) {
        self.inner.set_dev_notify(notified);
    }
}
