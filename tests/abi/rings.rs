//! What is saved of queues, and the record that is kept for those that die.

use std::sync::atomic::Ordering::Relaxed;

use shmbus_ring::packed::{Areas, DeviceRing, DriverRing, Layout};
use shmbus_ring::record::{RecordLayout, Recorded};
use shmbus_ring::{
    Buffer, ChainHead, DeviceFormat, DeviceQueue, DeviceSlot, DeviceState, DriverQueue, DriverState,
};
use shmbus_shm::{Field, Mapped, OffsetSpace, heap};
use shmbus_virtio::Features;

use crate::document::{check_structure, contents, nth_table};

const SIZE: u16 = 16;

/// Both sides of a packed ring, and buffers.
struct Queue {
    areas: Areas<Mapped>,
    driver: DriverQueue<DriverRing<Mapped>, u16, Vec<shmbus_ring::DriverSlot<u16>>>,
    space: OffsetSpace<Mapped>,
}

impl Queue {
    fn new() -> Self {
        let layout = Layout::new(SIZE).unwrap();
        let areas = Areas::in_memory(layout, &heap(layout.bytes())).unwrap();
        let ring = DriverRing::new(areas.clone(), Features::empty()).unwrap();
        Self {
            areas,
            driver: DriverQueue::with_heap(ring),
            space: OffsetSpace::new(heap(256)),
        }
    }

    /// Lends a chain of two descriptors with 0x0a0b writable bytes.
    fn lend(&mut self) {
        let buffers = [Buffer::new(0, 8), Buffer::new(0, 0x0a0b)];
        self.driver.add(&buffers[..1], &buffers[1..], 0).unwrap();
        let _ = self.driver.publish();
    }

    fn take<V: DeviceFormat>(&self, device: &mut DeviceQueue<V, Vec<DeviceSlot>>) -> ChainHead {
        device.poll().unwrap();
        let mut segments = [Buffer::default(); 4];
        let chain = device.take(&self.space, &mut segments).unwrap();
        chain.expect("it is available").into_head()
    }
}

#[test]
fn saved_queues_have_the_bytes_told_of() {
    let mut queue = Queue::new();
    let ring = DeviceRing::new(queue.areas.clone(), Features::empty()).unwrap();
    let mut device = DeviceQueue::with_heap(ring);
    // The first chain comes back; the second stays out.
    queue.lend();
    queue.lend();
    let first = queue.take(&mut device);
    let _second = queue.take(&mut device);
    device.complete(first, 0).unwrap();
    let _ = device.publish();
    queue.driver.poll().unwrap();
    assert!(queue.driver.take().unwrap().is_some());

    let mut bytes = vec![0; DeviceState::max_bytes(SIZE)];
    let saved = device.save(&mut bytes).unwrap().as_bytes();
    check_structure(
        &nth_table("Saved device side", "offset", 0),
        &saved[..16],
        &[
            ("magic", u64::from(u32::from_le_bytes(*b"SHDV"))),
            ("version", 1),
            ("format", 1),
            ("size", u64::from(SIZE)),
            ("available", 0x8004),
            ("used", 0x8002),
            ("in_flight", 1),
        ],
    );
    check_structure(
        &nth_table("Saved device side", "offset", 1),
        &saved[16..24],
        &[("id", 1), ("position", 0x8002), ("entries", 2)],
    );
    assert_eq!(saved.len(), 24 + 2 * 16, "two descriptors follow");
    assert_eq!(
        saved[32..36],
        8_u32.to_le_bytes(),
        "the length of the first"
    );
    assert_eq!(saved[48..52], 0x0a0b_u32.to_le_bytes());

    let mut bytes = vec![0; DriverState::max_bytes(SIZE)];
    let saved = queue.driver.save(&mut bytes).unwrap().as_bytes();
    let mut header = saved[..24].to_vec();
    header[16] = 1; // a packed ring has no head
    check_structure(
        &nth_table("Saved driver side", "offset", 0),
        &header,
        &[
            ("magic", u64::from(u32::from_le_bytes(*b"SHDR"))),
            ("version", 1),
            ("format", 1),
            ("size", u64::from(SIZE)),
            ("available", 0x8004),
            ("used", 0x8002),
            ("in_flight", 1),
            ("head", 1),
        ],
    );
    check_structure(
        &nth_table("Saved driver side", "offset", 1),
        &saved[24..],
        &[("id", 1), ("descriptors", 2), ("writable", 0x0a0b)],
    );
}

#[test]
fn an_in_flight_record_has_the_words_told_of() {
    let mut queue = Queue::new();
    let ring = DeviceRing::new(queue.areas.clone(), Features::empty()).unwrap();
    let layout = RecordLayout::of(&ring);
    let memory = heap(layout.bytes());
    let ring = Recorded::with_heap(ring, &memory).unwrap();
    let mut device = DeviceQueue::with_heap(ring);
    for _ in 0..3 {
        queue.lend();
    }
    // The first is shown, the second completed, the third taken.
    let first = queue.take(&mut device);
    let second = queue.take(&mut device);
    device.complete(first, 0).unwrap();
    let _ = device.publish();
    let _third = queue.take(&mut device);
    device.complete(second, 0).unwrap();

    let bytes = contents(&memory);
    check_structure(
        &nth_table("In-flight record", "offset", 0),
        &bytes[..128],
        &[
            ("magic", u64::from(u32::from_le_bytes(*b"SHIF"))),
            ("version", 1),
            ("size", u64::from(SIZE)),
            ("kind", 1),
            ("from", 0x8000),
            ("to", 0x8002),
            ("batch", 1),
        ],
    );
    // The second chain, whose id is 1.
    check_structure(
        &nth_table("In-flight record", "offset", 1),
        &bytes[128 + 16..128 + 32],
        &[
            ("position", 0x8002),
            ("first", 2),
            ("entries", 2),
            ("number", 1),
            ("batch", 2),
            ("state", 2),
        ],
    );
    let word = |id: usize| {
        let word = Field::<u64, _>::new(&memory, 128 + 16 * id + 8).unwrap();
        word.load(Relaxed) >> 48
    };
    assert_eq!([0, 1, 2, 3].map(word), [0, 2, 1, 0]);
    // Copies from the next line on, then links.
    let copies = 128 + 16 * usize::from(SIZE);
    let second_of_second = copies + 16 * 3;
    assert_eq!(
        bytes[second_of_second + 8..second_of_second + 12],
        0x0a0b_u32.to_le_bytes()
    );
    let links = copies + 16 * usize::from(SIZE);
    assert_eq!(
        bytes[links + 4..links + 6],
        3_u16.to_le_bytes(),
        "2, then 3"
    );
    assert!(layout.bytes() >= links + 2 * usize::from(SIZE));
}
