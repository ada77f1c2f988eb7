//! The memory of the device's one queue pair: what lies where, and how large it is.
//!
//! Addresses in descriptors are offsets into the queue's own region of buffers.

use shmbus_ring::SetupError;
use shmbus_ring::split::Layout;
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
}
