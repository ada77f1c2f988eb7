//! The memory of the device's one queue pair: what lies where, and how large it is.
//!
//! Addresses in descriptors are offsets into the queue's own region of buffers.

use shmbus_ring::any::{Areas, Layout};
use shmbus_ring::{RingFeatures, SetupError};
use shmbus_shm::{Mapped, RingFormat, Window, heap};
use shmbus_virtio::{Features, PrivateFeatures, net};

use super::config::max_frame_bytes;
use super::header::HEADER_BYTES;

/// What the device offers beside the type of its rings. The memory layout depends on none of it.
pub const FEATURES: Features = Features::VERSION_1
    .union(Features::EVENT_IDX)
    .union(Features::INDIRECT_DESC)
    .union(net::CSUM)
    .union(net::GUEST_CSUM)
    .union(net::MTU)
    .union(net::MAC)
    .union(net::STATUS);

/// What this crate's driver accepts beside the type of the rings.
pub const DRIVER_FEATURES: Features = FEATURES.difference(Features::INDIRECT_DESC);

/// What this crate's driver accepts of what a device offers, rings of any type among it.
pub fn choose(offered: RingFeatures) -> RingFeatures {
    let virtio = DRIVER_FEATURES | Features::RING_PACKED | Features::IN_ORDER;
    let private = PrivateFeatures::RING_TAGGED;
    RingFeatures::from(virtio.choose(offered.virtio)).with_private(private & offered.private)
}

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
    /// The memory of two split rings of `size` entries each, with a buffer for each entry that takes any frame of a link
    /// with this MTU.
    ///
    /// # Errors
    ///
    /// [`SetupError::Size`].
    pub fn new(size: u16, mtu: u16) -> Result<Self, SetupError> {
        Self::in_format(RingFormat::Split, size, mtu)
    }

    /// The same for rings that are laid out in another format.
    ///
    /// # Errors
    ///
    /// [`SetupError`] for a size or a format that there is not.
    pub fn in_format(format: RingFormat, size: u16, mtu: u16) -> Result<Self, SetupError> {
        let ring = Layout::new(format, size)?;
        Ok(Self { ring, mtu })
    }

    /// Where each ring's areas lie in its regions: `driver_bytes()` that the driver writes, `device_bytes()` that the
    /// device writes, and `common_bytes()` that both write.
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

/// The regions of one queue.
#[derive(Clone, Debug)]
pub struct QueueRegions<W> {
    /// What the driver writes of the ring.
    pub driver: W,
    /// What the device writes of the ring.
    pub device: W,
    /// What both write of the ring, if its format has such.
    pub common: Option<W>,
    /// The buffers: for receiveq1 both sides write, for transmitq1 the driver does.
    pub buffers: W,
}

impl<W: Window> QueueRegions<W> {
    /// The ring's areas.
    ///
    /// # Errors
    ///
    /// [`SetupError`] when a region is too short, or missing.
    pub fn areas(&self, memory: QueueMemory) -> Result<Areas<W>, SetupError> {
        let common = self.common.as_ref();
        Areas::in_memories(memory.ring(), &self.driver, &self.device, common)
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
        let ring = memory.ring();
        let common = ring.common_bytes();
        let queue = || QueueRegions {
            driver: heap(ring.driver_bytes()),
            device: heap(ring.device_bytes()),
            common: (common > 0).then(|| heap(common)),
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
        assert!(QueueMemory::in_format(RingFormat::Packed, 3, 1500).is_ok());
    }

    #[test]
    fn the_driver_takes_the_rings_that_are_offered_and_no_others() {
        let offered = FEATURES | Features::RING_PACKED;
        let chosen = choose(offered.into());
        assert_eq!(chosen.virtio, DRIVER_FEATURES | Features::RING_PACKED);
        let all = RingFeatures::from(Features::all()).with_private(PrivateFeatures::all());
        let chosen = choose(all);
        assert!(chosen.in_order() && !chosen.virtio.contains(Features::RING_RESET));
        assert_eq!(chosen.private, PrivateFeatures::RING_TAGGED);
    }
}
