//! What virtio-driver wants: its queue's memory as a `&mut [u8]`, and buffers where they lie.

use std::slice;

use shmbus_shm::{Mapped, Window};
use virtio_driver::virtqueue::{Virtqueue, VirtqueueLayout};
use virtio_driver::{IovaTranslator, VirtioFeatureFlags};

/// What the peer keeps in the shared memory for each chain.
pub type Header = [u8; 8];

/// The peer's queue, and the mapping in which it lies.
pub struct Queue {
    inner: Virtqueue<'static, Header>,
    _memory: Mapped,
}

impl Queue {
    /// A queue at the start of `memory`, which is a mapping of its own: the device has another one.
    pub fn new(
        memory: Mapped,
        size: u16,
        features: VirtioFeatureFlags,
        translator: Box<dyn IovaTranslator>,
    ) -> Self {
        let layout = VirtqueueLayout::new::<Header>(1, usize::from(size), features).unwrap();
        let own = memory.narrow(0, layout.end_offset).unwrap();
        // SAFETY: the bytes stay mapped as long as `inner` is there, which is dropped first, and nobody else
        // refers to them by this mapping. That they change while they are borrowed, by what the device does to
        // its mapping, is as between processes: outside Rust's model, and what the peer is built for.
        let bytes = unsafe { slice::from_raw_parts_mut(own.as_ptr().as_ptr(), own.len()) };
        Self {
            inner: Virtqueue::new(translator, bytes, size, features).unwrap(),
            _memory: memory,
        }
    }

    pub fn inner(&mut self) -> &mut Virtqueue<'static, Header> {
        &mut self.inner
    }
}
