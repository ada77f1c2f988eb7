//! The memory of the device's one queue pair: what lies where, and how large it is.
//!
//! Addresses in descriptors are offsets into the queue's own region of buffers.

use shmbus_ring::SetupError;
use shmbus_ring::split::{Areas, Layout};
use shmbus_shm::{Mapped, Window, heap};
use shmbus_virtio::{Features, net};

use super::config::max_frame_bytes;
use super::header::HEADER_BYTES;

/// What the device offers. The memory layout depends on none of it.
pub const FEATURES: Features = Features::VERSION_1
    .union(Features::EVENT_IDX)
    .union(Features::INDIRECT_DESC)
    .union(net::CSUM)
    .union(net::GUEST_CSUM)
    .union(net::MTU)
    .union(net::MAC)
    .union(net::STATUS);

/// What this crate's driver accepts.
pub const DRIVER_FEATURES: Features = FEATURES.difference(Features::INDIRECT_DESC);

/// One of the two queues, by virtio's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueName {
    /// Carries frames to the driver.
    Receiveq1,
    /// Carries frames from the driver.
    Transmitq1,
}

impl QueueName {
    /// How many there are.
    pub(super) const COUNT: u32 = 2;

    /// The queue's slot in tables that have one for each.
    pub(super) const fn slot(self) -> u32 {
        self as u32
    }
}

impl core::fmt::Display for QueueName {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Receiveq1 => "receiveq1",
            Self::Transmitq1 => "transmitq1",
        })
    }
}

/// Sizes of the queues' memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueMemory {
    ring: Layout,
    mtu: u16,
}

impl QueueMemory {
    /// The memory of two queues of `size` entries each, with a buffer for each entry that takes any frame of a link
    /// with this MTU.
    ///
    /// # Errors
    ///
    /// [`SetupError::Size`].
    pub const fn new(size: u16, mtu: u16) -> Result<Self, SetupError> {
        match Layout::new(size) {
            Ok(ring) => Ok(Self { ring, mtu }),
            Err(error) => Err(error),
        }
    }

    /// Where each ring's areas lie in its two regions: `driver_bytes()` that the driver writes, `device_bytes()` that
    /// the device writes.
    pub const fn ring(self) -> Layout {
        self.ring
    }

    /// The largest payload of a frame, in bytes.
    pub const fn mtu(self) -> u16 {
        self.mtu
    }

    /// Bytes of one buffer: header and frame, in whole lines, so that two buffers share none.
    pub const fn buffer_bytes(self) -> u32 {
        (HEADER_BYTES + max_frame_bytes(self.mtu)).next_multiple_of(64) as u32
    }

    /// Bytes of one queue's region of buffers.
    pub const fn buffers_bytes(self) -> usize {
        self.buffer_bytes() as usize * self.ring.size() as usize
    }

    /// A TCP window, in bytes, that does not make the switch lose frames: what is on its way fits into half of a
    /// receive queue. At most 1 MiB: more gains nothing.
    pub const fn tcp_window_bytes(self) -> usize {
        const IP_AND_TCP_HEADER_BYTES: usize = 40;
        const MAX: usize = 1 << 20;
        let segment = self.mtu as usize - IP_AND_TCP_HEADER_BYTES;
        let window = segment * self.ring.size() as usize / 2;
        let window = if window < MAX { window } else { MAX };
        if window > segment { window } else { segment }
    }
}

/// The three regions of one queue.
#[derive(Clone, Debug)]
pub struct QueueRegions<W> {
    /// The descriptor table and the available ring: the driver writes.
    pub driver: W,
    /// The used ring: the device writes.
    pub device: W,
    /// The buffers: for receiveq1 both sides write, for transmitq1 the driver does.
    pub buffers: W,
}

impl<W: Window> QueueRegions<W> {
    /// The split ring's areas.
    ///
    /// # Errors
    ///
    /// [`SetupError`] when a region is too short.
    pub fn areas(&self, memory: QueueMemory) -> Result<Areas<W>, SetupError> {
        Areas::in_memories(memory.ring(), &self.driver, &self.device)
    }
}

/// The regions of both queues.
#[derive(Clone, Debug)]
pub struct DeviceRegions<W> {
    /// Those of receiveq1.
    pub receiveq: QueueRegions<W>,
    /// Those of transmitq1.
    pub transmitq: QueueRegions<W>,
}

impl DeviceRegions<Mapped> {
    /// Memory on the heap for a driver and a device in one process. On a bus, each region lies in a memory that only its
    /// writer can write.
    pub fn on_heap(memory: QueueMemory) -> Self {
        let queue = || QueueRegions {
            driver: heap(memory.ring().driver_bytes()),
            device: heap(memory.ring().device_bytes()),
            buffers: heap(memory.buffers_bytes()),
        };
        Self {
            receiveq: queue(),
            transmitq: queue(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::MAX_MTU;
    use super::*;

    #[test]
    fn a_buffer_takes_any_frame_and_a_window_fits_the_queue() {
        for (size, mtu) in [(256, 1500), (64, MAX_MTU), (1, 68), (32768, 9000)] {
            let memory = QueueMemory::new(size, mtu).unwrap();
            let buffer = memory.buffer_bytes() as usize;
            assert!(buffer >= HEADER_BYTES + max_frame_bytes(mtu) && buffer.is_multiple_of(64));
            assert_eq!(memory.buffers_bytes(), buffer * usize::from(size));
            let segment = usize::from(mtu) - 40;
            let segments = memory.tcp_window_bytes().div_ceil(segment);
            assert!(
                (1..=usize::from(size).div_ceil(2)).contains(&segments),
                "{memory:?}"
            );
        }
        assert_eq!(QueueMemory::new(3, 1500), Err(SetupError::Size { size: 3 }));
    }
}
