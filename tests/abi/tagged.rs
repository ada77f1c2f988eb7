//! The tagged ring.

use shmbus_ring::tagged::{Areas, DeviceRing, DriverRing, Layout};
use shmbus_ring::{Buffer, DeviceQueue, DriverQueue};
use shmbus_shm::{Bytes, Mapped, OffsetSpace, Window, heap};
use shmbus_virtio::Features;

use crate::document::{
    check_examples, check_numbers, check_structure, contents, nth_table, number, table, to_bytes,
};

const SIZE: u16 = 8;

/// Both sides over this memory.
struct Ring {
    layout: Layout,
    memory: Mapped,
}

impl Ring {
    fn new() -> Self {
        let layout = Layout::new(SIZE).unwrap();
        let memory = heap(layout.bytes());
        Self { layout, memory }
    }

    fn areas(&self) -> Areas<Mapped> {
        Areas::in_memory(self.layout, &self.memory).unwrap()
    }

    fn driver(&self) -> DriverQueue<DriverRing<Mapped>, u16, Vec<shmbus_ring::DriverSlot<u16>>> {
        let features = Features::EVENT_IDX | Features::INDIRECT_DESC;
        DriverQueue::with_heap(DriverRing::new(self.areas(), features).unwrap())
    }

    /// An entry's bytes.
    fn entry(&self, place: u16) -> Vec<u8> {
        contents(&self.memory.narrow(16 * usize::from(place), 16).unwrap())
    }

    fn label(&self, place: u16) -> u64 {
        let entry = self.entry(place);
        u64::from_le_bytes(entry[8..].try_into().unwrap())
    }
}

/// A field of a label, by its row.
fn field(label: u64, name: &str) -> u64 {
    let fields = table("Tagged ring", "bits");
    let row = fields
        .rows
        .iter()
        .find(|row| row[1].starts_with(name))
        .unwrap();
    let (low, high) = row[0].split_once('-').unwrap();
    let (low, high) = (number(low), number(high));
    label << (63 - high) >> (63 - high + low)
}

fn state(name: &str) -> u64 {
    let states = table("Tagged ring", "state");
    number(states.rows.iter().find(|row| row[0] == name).unwrap()[1])
}

#[test]
fn a_tagged_ring_lies_as_told() {
    check_examples(&table("Tagged ring", "entries"), |[entries]| {
        let layout = Layout::new(entries as u16).unwrap();
        assert_eq!(layout.descriptors_offset(), 0);
        [
            layout.driver_area_offset(),
            layout.device_area_offset(),
            layout.bytes(),
        ]
    });
}

#[test]
fn a_label_has_the_bits_told_of() {
    let fields = table("Tagged ring", "bits");
    let mut next = 0;
    for row in &fields.rows {
        let (low, high) = row[0].split_once('-').unwrap();
        assert_eq!(number(low), next, "{row:?}");
        next = number(high) + 1;
    }
    assert_eq!(next, 64, "every bit is told of");
    check_numbers(
        &nth_table("Tagged ring", "state", 0),
        &[("WALL", 0), ("AVAILABLE", 1), ("USED", 2), ("CLAIMED", 3)],
    );

    let ring = Ring::new();
    let mut driver = ring.driver();
    // Tag 0 is taken already: a zero shows nothing.
    driver.add(&[Buffer::new(0, 1)], &[], 0).unwrap();
    let (first, second) = (
        Buffer::new(0x0102_0304_0506_0708, 0x1112),
        Buffer::new(0, 0x2122),
    );
    driver.add(&[first], &[second], 1).unwrap();
    let space = OffsetSpace::new(heap(256));
    let rows = Bytes::new(space.window(), 64, 32).unwrap();
    driver
        .add_indirect(&[first], &[second], &rows, 64, 2)
        .unwrap();
    let _ = driver.publish();
    check_structure(
        &nth_table("Tagged ring", "offset", 0),
        &ring.entry(1),
        &[("address", first.address), ("label", ring.label(1))],
    );
    for (place, [len, tag, next, write, indirect]) in [
        (1, [0x1112, 1, 1, 0, 0]),
        (2, [0x2122, 1, 0, 1, 0]),
        (3, [32, 2, 0, 0, 1]),
    ] {
        let label = ring.label(place);
        let found = ["len", "tag", "NEXT", "WRITE", "INDIRECT"].map(|name| field(label, name));
        assert_eq!(found, [len, tag, next, write, indirect], "{place}");
        assert_eq!(field(label, "reserved"), 0);
        assert_eq!(field(label, "state"), state("AVAILABLE"));
    }
    assert_eq!(field(ring.label(4), "state"), state("WALL"));

    let mut row = [0; 32];
    rows.copy_to(0, &mut row);
    let mut expected = row;
    expected[14] = 2; // the first row is for reading: its flags are zero, which shows nothing
    check_structure(
        &nth_table("Tagged ring", "offset", 1),
        &expected[..16],
        &[("address", first.address), ("len", 0x1112), ("flags", 2)],
    );
    assert_eq!(row[14], 0);
    assert_eq!(row[16 + 14], 2);
}

#[test]
fn entries_are_used_as_told() {
    let ring = Ring::new();
    let mut driver = ring.driver();
    for cookie in 0..2 {
        driver.add(&[], &[Buffer::new(0, 8); 2], cookie).unwrap();
    }
    let _ = driver.publish();
    let device_ring = DeviceRing::new(ring.areas(), Features::empty()).unwrap();
    let mut device = DeviceQueue::with_heap(device_ring);
    let space = OffsetSpace::new(heap(256));
    let mut segments = [Buffer::default(); 4];
    device.poll().unwrap();
    let mut take = || {
        let chain = device.take(&space, &mut segments).unwrap();
        chain.expect("it is available").into_head()
    };
    let (_first, second) = (take(), take());
    device.complete(second, 7).unwrap();
    let _ = device.publish();
    // The second chain came back first: in the first entry, which is the first chain's.
    let label = ring.label(0);
    assert_eq!(field(label, "state"), state("USED"));
    assert_eq!((field(label, "len"), field(label, "tag")), (7, 1));
    assert_eq!(field(ring.label(1), "state"), state("AVAILABLE"));
    driver.poll().unwrap();
    assert_eq!(driver.take().unwrap().unwrap().cookie, 1);
    assert_eq!(driver.positions().used, 2);
}

#[test]
fn a_wish_has_the_words_told_of() {
    let ring = Ring::new();
    let mut driver = ring.driver();
    let device_ring = DeviceRing::new(ring.areas(), Features::EVENT_IDX).unwrap();
    let mut device = DeviceQueue::with_heap_at(device_ring, 0x0102).unwrap();
    assert!(device.enable_notifications().is_empty());
    let word = |at: usize| contents(&ring.memory.narrow(at, 4).unwrap());
    check_structure(
        &nth_table("Tagged ring", "offset", 2),
        &word(ring.layout.device_area_offset()),
        &[("position", 0x0102), ("flags", 2)],
    );
    driver.disable_notifications();
    let disabled = to_bytes(&[1 << 16]);
    assert_eq!(word(ring.layout.driver_area_offset()), disabled[..4]);
}
