//! A network driver that merges receive buffers, over a device that delivers frames in any number of buffers, says any number
//! of them, and writes anything where it likes: each call ends in a frame that fits, in none, or in an error that stays.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use shmbus_devices::net::dma::DmaLayout;
use shmbus_devices::net::driver::NetDriver;
use shmbus_devices::net::header::{HEADER_BYTES, NetHeader};
use shmbus_devices::net::port::{Checksum, ETHERNET_HEADER_BYTES, Port, Received};
use shmbus_devices::net::queues::{DeviceRegions, QueueMemory};
use shmbus_fuzz::{scripted, tamper};
use shmbus_ring::any::DeviceRing;
use shmbus_ring::{Buffer, DeviceQueue, DeviceSlot, RingFeatures, RingKind};
use shmbus_shm::{Mapped, OffsetSpace, heap};
use shmbus_virtio::{Features, net};

#[derive(Arbitrary, Debug)]
struct Input {
    rings: u8,
    /// Lines of a receive buffer, less one.
    buffer_lines: u8,
    event_idx: bool,
    indirect: bool,
    steps: Vec<Step>,
    script: Vec<u8>,
}

#[derive(Arbitrary, Debug)]
enum Step {
    /// The device delivers a frame: its bytes, what it says of them, and how many chains it returns of those that it
    /// filled, each with a length that is wrong by so much.
    Deliver {
        bytes: u16,
        num_buffers: Option<u8>,
        parts: Option<u8>,
        gap: u8,
    },
    Receive,
    Send(u16),
    Flush,
    Tamper(Vec<(u16, u16)>),
    Reset,
}

const ENTRIES: u16 = 32;
const LONGEST: usize = 1518;

struct Device {
    queue: DeviceQueue<DeviceRing<Mapped>, Vec<DeviceSlot>>,
    space: OffsetSpace<Mapped>,
}

impl Device {
    fn new(
        regions: &DeviceRegions<Mapped>,
        window: &Mapped,
        memory: QueueMemory,
        features: RingFeatures,
    ) -> Option<Self> {
        let areas = regions.receiveq.areas(memory).ok()?;
        let ring = DeviceRing::new(areas, features).ok()?;
        Some(Self {
            queue: DeviceQueue::with_heap(ring),
            space: OffsetSpace::new(window.clone()),
        })
    }

    /// It stops where the driver's memory was damaged, as it may.
    fn deliver(&mut self, bytes: u16, num_buffers: Option<u8>, parts: Option<u8>, gap: u8) {
        let total = HEADER_BYTES + usize::from(bytes) % 2048;
        let mut segments = [Buffer::default(); 64];
        let mut filled = Vec::new();
        let mut room = 0;
        let _ = self.queue.poll();
        while room < total {
            let Ok(Some(chain)) = self.queue.take(&self.space, &mut segments) else {
                break;
            };
            room += chain.writable_bytes() as usize;
            if filled.is_empty() {
                let header = NetHeader {
                    num_buffers: num_buffers.map_or(total.div_ceil(room.max(1)) as u16, u16::from),
                    ..NetHeader::receive(Checksum::InFrame, false)
                };
                let _ = chain.write(&self.space, 0, &header.emit());
            }
            filled.push((chain.writable_bytes(), chain.into_head()));
        }
        let mut left = total as u64;
        let parts = parts.map_or(usize::MAX, usize::from);
        for (writable, chain) in filled.into_iter().take(parts) {
            let part = left.min(writable);
            left -= part;
            let _ = self
                .queue
                .complete(chain, part.saturating_sub(gap.into()) as u32);
        }
        let _ = self.queue.publish();
    }
}

fuzz_target!(|input: Input| {
    let rings = RingKind::ALL[usize::from(input.rings) % RingKind::ALL.len()];
    let mut features = Features::VERSION_1 | net::MRG_RXBUF | rings.features();
    features.set(Features::EVENT_IDX, input.event_idx);
    let has_tables = rings.private_features().is_empty();
    features.set(Features::INDIRECT_DESC, input.indirect && has_tables);
    let features = RingFeatures::from(features).with_private(rings.private_features());
    let buffer_bytes = 64 * (u32::from(input.buffer_lines) % 25 + 1);
    let memory = QueueMemory::in_format(rings.format, ENTRIES, 1500)
        .expect("rings can have so many entries")
        .with_receive_buffers(buffer_bytes, features.virtio)
        .expect("32 lines take a frame");
    let layout = DmaLayout::new(memory, 1, features).expect("there is such a format");
    let window = heap(layout.bytes());
    let regions = layout
        .pair_regions(0, &window, 0)
        .expect("the memory is as long as the layout");
    let lying = layout
        .pair_regions(0, &scripted(&window, &input.script), 0)
        .expect("the same");
    let Ok(mut driver) = NetDriver::over_rings(&lying, memory, features) else {
        return;
    };
    let Some(mut device) = Device::new(&regions, &window, memory, features) else {
        return;
    };
    let mut frame = [0; LONGEST];
    for step in input.steps {
        match step {
            Step::Deliver {
                bytes,
                num_buffers,
                parts,
                gap,
            } => device.deliver(bytes, num_buffers, parts, gap),
            Step::Receive => {
                let had_failed = driver.fault();
                match driver.receive(&mut frame) {
                    Ok(Received::Frame { bytes, .. }) => {
                        assert!((ETHERNET_HEADER_BYTES..=LONGEST).contains(&bytes));
                        assert_eq!(had_failed, None);
                    }
                    Ok(_) => assert_eq!(had_failed, None),
                    Err(_) => {
                        assert!(driver.fault().is_some());
                        assert!(had_failed.is_none() || driver.fault() == had_failed);
                    }
                }
            }
            Step::Send(bytes) => {
                let bytes = usize::from(bytes) % LONGEST;
                let _ = driver.send(&frame[..bytes], Checksum::InFrame);
            }
            Step::Flush => {
                let _ = driver.flush();
            }
            Step::Tamper(words) => tamper(&window, &words),
            Step::Reset => {
                driver.reset();
                device.queue.reset();
            }
        }
    }
});
