//! The memory of a queue pair: what lies where, and how large it is.
//!
//! On a bus, addresses in descriptors are offsets into the queue's own region of buffers. A device behind an IOMMU finds the
//! buffers at addresses of its own: see [`DmaLayout`](super::dma::DmaLayout).

use shmbus_ring::any::{Areas, Layout};
use shmbus_ring::{DESCRIPTOR_BYTES, RingFeatures, SetupError};
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

/// What this crate's driver accepts of a device that is not the bus's own, behind an IOMMU or not. Segmentation offloads
/// and receive coalescing never: frames are as long as the link's.
const FUNCTION_FEATURES: Features = FEATURES
    .union(Features::ACCESS_PLATFORM)
    .union(Features::RING_PACKED)
    .union(Features::IN_ORDER)
    .union(net::MRG_RXBUF)
    .union(net::CTRL_VQ)
    .union(net::MQ);

/// What this crate's driver accepts of what a device offers that is not the bus's own, but for `without`, to use so many
/// queue pairs. The control queue is for them alone, so that one pair does without it.
pub fn choose_for_pairs(offered: Features, without: Features, pairs: u16) -> Features {
    let several = net::MQ | net::CTRL_VQ;
    let chosen = (FUNCTION_FEATURES - without).choose(offered);
    if pairs > 1 && chosen.contains(several) {
        chosen
    } else {
        chosen - several
    }
}

/// A queue, by virtio's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueName {
    /// Carries frames to the driver. Pairs are counted from 0; virtio's names begin with receiveq1.
    Receiveq(u16),
    /// Carries frames from the driver.
    Transmitq(u16),
}

impl QueueName {
    /// How many there are in a pair.
    pub(super) const COUNT: u32 = 2;

    /// The queue's slot in tables that have one for each queue of a pair.
    pub(super) const fn slot(self) -> u32 {
        match self {
            Self::Receiveq(_) => net::RECEIVEQ1 as u32,
            Self::Transmitq(_) => net::TRANSMITQ1 as u32,
        }
    }

    /// The queue's number in its device (virtio 1.4, section 5.1.2).
    pub const fn number(self) -> u16 {
        match self {
            Self::Receiveq(pair) => net::RECEIVEQ1 + 2 * pair,
            Self::Transmitq(pair) => net::TRANSMITQ1 + 2 * pair,
        }
    }
}

impl core::fmt::Display for QueueName {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Receiveq(pair) => write!(f, "receiveq{}", u32::from(*pair) + 1),
            Self::Transmitq(pair) => write!(f, "transmitq{}", u32::from(*pair) + 1),
        }
    }
}

/// Receive buffers of this size cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReceiveBufferError {
    /// One is too small for a header, or shares a line with the next one.
    #[error(
        "receive buffers of {found} bytes: a multiple of 64 was expected, up to {MAX_RECEIVE_BUFFER_BYTES}"
    )]
    Size {
        /// Their size, in bytes.
        found: u32,
    },
    /// All together do not take the longest frame.
    #[error(
        "{found} bytes of receive buffers do not take a frame of {expected} bytes with its header"
    )]
    Together {
        /// Bytes of all.
        found: usize,
        /// Bytes of the longest frame, with its header.
        expected: usize,
    },
    /// One is too small for a whole frame, and the device does not spread frames over several.
    #[error(
        "receive buffers of {found} bytes need VIRTIO_NET_F_MRG_RXBUF, without which {expected} bytes were expected"
    )]
    NotMerged {
        /// Their size, in bytes.
        found: u32,
        /// Bytes of the longest frame, with its header.
        expected: usize,
    },
}

/// The largest receive buffer: more than the longest frame with its header.
pub const MAX_RECEIVE_BUFFER_BYTES: u32 = 1 << 17;

/// Sizes of the queues' memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueMemory {
    ring: Layout,
    mtu: u16,
    receive_buffer_bytes: u32,
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
        let receive_buffer_bytes = whole_frame_bytes(mtu);
        Ok(Self {
            ring,
            mtu,
            receive_buffer_bytes,
        })
    }

    /// The same with receive buffers of this size, in bytes: whole lines. Ones that do not take every frame are for
    /// devices that merge them (`VIRTIO_NET_F_MRG_RXBUF`, which `features` then have).
    ///
    /// # Errors
    ///
    /// [`ReceiveBufferError`].
    pub fn with_receive_buffers(
        self,
        bytes: u32,
        features: Features,
    ) -> Result<Self, ReceiveBufferError> {
        let found = bytes;
        if !(64..=MAX_RECEIVE_BUFFER_BYTES).contains(&bytes) || !bytes.is_multiple_of(64) {
            return Err(ReceiveBufferError::Size { found });
        }
        let expected = HEADER_BYTES + max_frame_bytes(self.mtu);
        if !features.contains(net::MRG_RXBUF) && (found as usize) < expected {
            return Err(ReceiveBufferError::NotMerged { found, expected });
        }
        let found = bytes as usize * usize::from(self.ring.size());
        if found < expected {
            return Err(ReceiveBufferError::Together { found, expected });
        }
        Ok(Self {
            receive_buffer_bytes: bytes,
            ..self
        })
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
        whole_frame_bytes(self.mtu)
    }

    /// Bytes of one queue's region of such buffers.
    pub const fn buffers_bytes(self) -> usize {
        self.buffer_bytes() as usize * self.ring.size() as usize
    }

    /// Bytes of one receive buffer: as for [`QueueMemory::buffer_bytes`], unless they were chosen otherwise.
    pub const fn receive_buffer_bytes(self) -> u32 {
        self.receive_buffer_bytes
    }

    /// Bytes of the receive queue's region of buffers.
    pub const fn receive_buffers_bytes(self) -> usize {
        self.receive_buffer_bytes as usize * self.ring.size() as usize
    }

    /// Bytes of the descriptors' tables behind the transmit queue's buffers, one for each, where
    /// `VIRTIO_F_INDIRECT_DESC` was negotiated.
    pub const fn tables_bytes(self) -> usize {
        TABLE_BYTES * self.ring.size() as usize
    }

    /// A TCP window, in bytes, that does not make the switch lose frames: what is on its way fits into half of a
    /// receive queue. At most 1 MiB: more gains nothing.
    pub const fn tcp_window_bytes(self) -> usize {
        const IP_AND_TCP_HEADER_BYTES: usize = 40;
        const MAX: usize = 1 << 20;
        let segment = self.mtu as usize - IP_AND_TCP_HEADER_BYTES;
        let frame = HEADER_BYTES + max_frame_bytes(self.mtu);
        let frame_buffers = frame.div_ceil(self.receive_buffer_bytes as usize);
        let window = segment * (self.ring.size() as usize / frame_buffers) / 2;
        let window = if window < MAX { window } else { MAX };
        if window > segment { window } else { segment }
    }
}

/// Bytes of a transmitted frame's own table of descriptors: one for the header, one for the frame.
pub(super) const TABLE_BYTES: usize = 2 * DESCRIPTOR_BYTES;

/// Bytes of a buffer that takes any frame.
const fn whole_frame_bytes(mtu: u16) -> u32 {
    (HEADER_BYTES + max_frame_bytes(mtu)).next_multiple_of(64) as u32
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
    /// Where the device finds the buffers: 0 where addresses are offsets into their region.
    pub buffers_address: u64,
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

/// The regions of both queues of a pair.
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
        let queue = |buffers| QueueRegions {
            driver: heap(ring.driver_bytes()),
            device: heap(ring.device_bytes()),
            common: (common > 0).then(|| heap(common)),
            buffers: heap(buffers),
            buffers_address: 0,
        };
        Self {
            receiveq: queue(memory.receive_buffers_bytes()),
            transmitq: queue(memory.buffers_bytes()),
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
    fn small_buffers_are_for_devices_that_merge_them() {
        let merges = net::MRG_RXBUF;
        let memory = QueueMemory::new(16, 1500).unwrap();
        let small = memory.with_receive_buffers(256, merges).unwrap();
        assert_eq!(small.receive_buffers_bytes(), 4096);
        // 1,530 bytes take six of them, and the queue has room for two such frames: half of that.
        assert_eq!(small.tcp_window_bytes(), 1460);
        let refused = |bytes, features| memory.with_receive_buffers(bytes, features).unwrap_err();
        let expected = 1530;
        assert_eq!(
            refused(256, Features::empty()),
            ReceiveBufferError::NotMerged {
                found: 256,
                expected
            }
        );
        assert_eq!(
            refused(64, merges),
            ReceiveBufferError::Together {
                found: 1024,
                expected
            }
        );
        for found in [0, 63, 100, MAX_RECEIVE_BUFFER_BYTES + 64] {
            assert_eq!(refused(found, merges), ReceiveBufferError::Size { found });
        }
        let whole = memory.with_receive_buffers(1536, Features::empty());
        assert_eq!(whole, Ok(memory));
    }

    #[test]
    fn several_pairs_need_the_control_queue_and_segments_are_never_taken() {
        let all = Features::all();
        let both = net::MQ | net::CTRL_VQ;
        assert!(choose_for_pairs(all, Features::empty(), 2).contains(both));
        for (offered, without, pairs) in [
            (all, Features::empty(), 1),
            (all, net::MQ, 2),
            (all - net::CTRL_VQ, Features::empty(), 2),
        ] {
            let chosen = choose_for_pairs(offered, without, pairs);
            assert!(!chosen.intersects(both), "{chosen:?}");
        }
        let chosen = choose_for_pairs(all, Features::RING_PACKED, 2);
        assert!(chosen.check().is_ok() && !chosen.contains(Features::RING_PACKED));
        // GSO, GUEST_TSO4 to HOST_UFO, GUEST_USO4 to HOST_USO, GUEST_RSC, HASH_REPORT.
        for bit in [6, 7, 8, 9, 10, 11, 12, 13, 14, 54, 55, 56, 57, 61] {
            assert!(!chosen.contains(Features::bit(bit)), "bit {bit}");
        }
    }

    #[test]
    fn queues_are_numbered_and_named_as_the_specification_says() {
        let queues = [
            QueueName::Receiveq(0),
            QueueName::Transmitq(0),
            QueueName::Receiveq(2),
        ];
        assert_eq!(queues.map(QueueName::number), [0, 1, 4]);
        let names = queues.map(|queue| queue.to_string());
        assert_eq!(names, ["receiveq1", "transmitq1", "receiveq3"]);
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
