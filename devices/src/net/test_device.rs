//! A device that finds its driver's queues at addresses of its own, for tests: as one behind an IOMMU does.

use shmbus_ring::any::{Areas, DeviceRing, Layout};
use shmbus_ring::{Buffer, DeviceQueue, DeviceSlot, RingFeatures, RingKind};
use shmbus_shm::{Access, AddressError, AddressSpace, Bytes, Mapped, OffsetSpace, Window, heap};
use shmbus_virtio::{Features, net};

use super::config::max_frame_bytes;
use super::control::CONTROL_ENTRIES;
use super::dma::{DmaLayout, RingAddresses};
use super::header::{HEADER_BYTES, NetHeader};
use super::port::Checksum;
use super::queues::QueueMemory;

/// Where the device finds the memory.
pub(super) const BASE: u64 = 0xffff_1234_5000;

/// Memory that lies at [`BASE`].
struct Based(OffsetSpace<Mapped>);

impl AddressSpace for Based {
    type Slice<'a> = Bytes<'a, Mapped>;

    fn translate<'a>(
        &'a self,
        address: u64,
        len: u32,
        access: Access,
    ) -> Result<Bytes<'a, Mapped>, AddressError> {
        let offset = address.checked_sub(BASE);
        let offset = offset.ok_or(AddressError::Unmapped { address, len })?;
        self.0.translate(offset, len, access)
    }
}

type Queue = DeviceQueue<DeviceRing<Mapped>, Vec<DeviceSlot>>;

/// Memory for a driver and a device.
pub(super) struct Dma {
    pub(super) layout: DmaLayout,
    pub(super) memory: QueueMemory,
    pub(super) features: RingFeatures,
    pub(super) window: Mapped,
    pairs: u16,
}

impl Dma {
    /// For so many pairs of queues of `size` entries, with receive buffers of this size.
    pub(super) fn new(
        rings: RingKind,
        features: Features,
        pairs: u16,
        size: u16,
        buffer_bytes: u32,
    ) -> Self {
        let features = RingFeatures::from(features | Features::VERSION_1 | rings.features())
            .with_private(rings.private_features());
        let memory = QueueMemory::in_format(rings.format, size, 1500)
            .unwrap()
            .with_receive_buffers(buffer_bytes, features.virtio)
            .unwrap();
        let layout = DmaLayout::new(memory, pairs, features).unwrap();
        Self {
            layout,
            memory,
            features,
            window: heap(layout.bytes()),
            pairs,
        }
    }

    /// What an address that the driver told leads to: all of the memory from there on.
    fn at(&self, address: u64) -> Mapped {
        let offset = (address - BASE) as usize;
        self.window
            .narrow(offset, self.window.len() - offset)
            .unwrap()
    }

    fn areas(&self, layout: Layout, addresses: RingAddresses) -> Areas<Mapped> {
        use shmbus_ring::{packed, split, tagged};
        let [descriptors, driver, device] =
            [addresses.descriptors, addresses.driver, addresses.device]
                .map(|address| self.at(address));
        match layout {
            Layout::Split(layout) => {
                Areas::Split(split::Areas::new(layout, &descriptors, &driver, &device).unwrap())
            }
            Layout::Packed(layout) => {
                Areas::Packed(packed::Areas::new(layout, &descriptors, &driver, &device).unwrap())
            }
            Layout::Tagged(layout) => {
                Areas::Tagged(tagged::Areas::new(layout, &descriptors, &driver, &device).unwrap())
            }
        }
    }

    fn queue(&self, layout: Layout, addresses: RingAddresses) -> Queue {
        let areas = self.areas(layout, addresses);
        DeviceQueue::with_heap(DeviceRing::new(areas, self.features).unwrap())
    }

    /// A device over what the driver tells it: addresses, and nothing else. The driver is set up before.
    pub(super) fn device(&self) -> TestDevice {
        let ring = self.memory.ring();
        let pairs = (0..self.pairs).map(|pair| {
            let addresses = self.layout.pair_addresses(pair, BASE);
            addresses.map(|addresses| self.queue(ring, addresses))
        });
        let control = self.layout.control_addresses(BASE).map(|addresses| {
            let layout = Layout::new(ring.format(), CONTROL_ENTRIES).unwrap();
            self.queue(layout, addresses)
        });
        TestDevice {
            space: Based(OffsetSpace::new(self.window.clone())),
            pairs: pairs.collect(),
            control,
            merges: self.features.virtio.contains(net::MRG_RXBUF),
        }
    }
}

/// The device.
pub(super) struct TestDevice {
    space: Based,
    pairs: Vec<[Queue; 2]>,
    control: Option<Queue>,
    merges: bool,
}

/// How a frame is delivered otherwise than it should be.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lies {
    /// `num_buffers`.
    pub(super) num_buffers: Option<u16>,
    /// So many buffers at most are returned.
    pub(super) parts: Option<u16>,
    /// So many bytes of the first buffer are left out.
    pub(super) gap: u32,
}

impl TestDevice {
    /// Delivers a frame in as many buffers as it takes; false if there are too few.
    pub(super) fn deliver(&mut self, pair: usize, frame: &[u8], lies: Lies) -> bool {
        let [receiveq, _] = &mut self.pairs[pair];
        receiveq.poll().unwrap();
        let total = HEADER_BYTES + frame.len();
        let mut segments = vec![Buffer::default(); 4];
        let mut chains = Vec::new();
        let mut room = 0;
        while room < total {
            let Some(chain) = receiveq.take(&self.space, &mut segments).unwrap() else {
                return false;
            };
            room += chain.writable_bytes() as usize;
            assert!(self.merges || room >= total, "it takes a whole frame");
            let buffer = chain.writable()[0];
            chains.push((chain.into_head(), buffer));
        }
        let header = NetHeader {
            num_buffers: lies.num_buffers.unwrap_or(chains.len() as u16),
            ..NetHeader::receive(Checksum::InFrame, false)
        };
        let bytes = [&header.emit()[..], frame].concat();
        let mut left = &bytes[..];
        for (place, (chain, buffer)) in (0..).zip(chains) {
            if lies.parts.is_some_and(|parts| place >= parts) {
                break;
            }
            let (part, rest) = left.split_at(left.len().min(buffer.len as usize));
            let slice = self
                .space
                .translate(buffer.address, buffer.len, Access::Write)
                .unwrap();
            slice.copy_from(0, part);
            let gap = if place == 0 { lies.gap } else { 0 };
            receiveq.complete(chain, part.len() as u32 - gap).unwrap();
            left = rest;
        }
        let _ = receiveq.publish();
        true
    }

    /// Takes the next transmitted frame of a pair, without its header, and how many buffers it came in.
    pub(super) fn transmitted(&mut self, pair: usize) -> Option<(Vec<u8>, usize)> {
        let [_, transmitq] = &mut self.pairs[pair];
        transmitq.poll().unwrap();
        let mut segments = vec![Buffer::default(); 4];
        let chain = transmitq.take(&self.space, &mut segments).unwrap()?;
        let mut bytes = vec![0; HEADER_BYTES + max_frame_bytes(1500)];
        let read = chain.read(&self.space, 0, &mut bytes).unwrap();
        bytes.truncate(read);
        let buffers = chain.readable().len();
        let chain = chain.into_head();
        transmitq.complete(chain, 0).unwrap();
        let _ = transmitq.publish();
        Some((bytes.split_off(HEADER_BYTES), buffers))
    }

    /// Takes the next command and answers it, with nothing for none.
    pub(super) fn answer(&mut self, answer: &[u8]) -> Option<Vec<u8>> {
        let control = self.control.as_mut()?;
        control.poll().unwrap();
        let mut segments = vec![Buffer::default(); 4];
        let chain = control.take(&self.space, &mut segments).unwrap()?;
        let mut command = vec![0; chain.readable_bytes() as usize];
        chain.read(&self.space, 0, &mut command).unwrap();
        let written = chain.write(&self.space, 0, answer).unwrap();
        let chain = chain.into_head();
        control.complete(chain, written as u32).unwrap();
        let _ = control.publish();
        Some(command)
    }
}
