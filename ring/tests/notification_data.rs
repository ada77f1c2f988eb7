//! What available buffer notifications carry (virtio 1.4, section 2.9), in every format, and what a device makes of it.

mod support;

use shmbus_ring::{
    Buffer, DeviceFormat, DeviceQueue, DeviceSlot, DriverFormat, DriverQueue, DriverSlot,
    NotificationData,
};
use shmbus_virtio::Features;
use support::heap_ring::{Memory, space};
use support::{packed_ring, tagged_ring};

const SIZE: u16 = 8;
const QUEUE: u16 = 0x1234;
const BUFFER: Buffer = Buffer::new(0, 4);
const FEATURES: Features = Features::VERSION_1.union(Features::NOTIFICATION_DATA);

type Driver<D> = DriverQueue<D, (), Vec<DriverSlot<()>>>;
type Device<V> = DeviceQueue<V, Vec<DeviceSlot>>;

/// How a format counts: whether a chain takes up an entry for each of its descriptors, and the upper half of the word
/// behind so many entries.
#[derive(Clone, Copy)]
struct Counting {
    by_descriptor: bool,
    upper_half: fn(u32) -> u32,
}

/// The available index, of which bit 15 lies where the packed ring's wrap counter does.
const SPLIT: Counting = Counting {
    by_descriptor: false,
    upper_half: |entries| entries % 0x1_0000,
};
const TAGGED: Counting = Counting {
    by_descriptor: true,
    ..SPLIT
};

/// The offset, and the wrap counter, which starts as 1.
const PACKED: Counting = Counting {
    by_descriptor: true,
    upper_half: |entries| {
        let size = u32::from(packed_size());
        let wrap = (entries / size).is_multiple_of(2);
        entries % size + if wrap { 0x8000 } else { 0 }
    },
};

/// No power of two.
const fn packed_size() -> u16 {
    SIZE - 1
}

/// Rounds of one to three chains of one to three descriptors, far enough that every position comes round.
fn check<D: DriverFormat, V: DeviceFormat>(
    mut driver: Driver<D>,
    mut device: Device<V>,
    counting: Counting,
    rounds: u32,
) {
    let (space, mut entries) = (space(8), 0);
    for round in 0..rounds {
        let before = driver.notification_data(QUEUE);
        assert_eq!(device.announced(before), Some(0), "all is taken");
        let mut added = 0;
        for chain in 0..1 + round % 3 {
            let len = 1 + (round + chain) % 3;
            if driver.add(&vec![BUFFER; len as usize], &[], ()).is_ok() {
                added += if counting.by_descriptor { len } else { 1 };
            }
        }
        assert_eq!(driver.notification_data(QUEUE), before, "not yet available");
        let _ = driver.publish();
        entries += added;

        let data = driver.notification_data(QUEUE);
        let word = data.to_word();
        let expected = u32::from(QUEUE) | (counting.upper_half)(entries) << 16;
        assert_eq!(word, expected, "{word:#x}, not {expected:#x}");
        assert_eq!(NotificationData::from_word(word), data);
        assert_eq!(device.announced(data), Some(added as u16));

        let mut segments = [Buffer::default(); SIZE as usize];
        device.poll().unwrap();
        while let Some(chain) = device.take(&space, &mut segments).unwrap() {
            device.complete(chain, 0).unwrap();
        }
        assert_eq!(device.announced(data), Some(0));
        // One that comes late, from before the batch, announces nothing that is not there.
        assert_eq!(device.announced(before), None);
        let _ = device.publish();
        driver.poll().unwrap();
        while driver.take().unwrap().is_some() {}
    }
    survives(driver, device);
}

/// Whatever a driver writes is a number of entries that a ring can have, or nothing; and the queue does not care.
fn survives<D: DriverFormat, V: DeviceFormat>(mut driver: Driver<D>, mut device: Device<V>) {
    let positions = device.positions();
    let mut sensible = 0;
    for available in 0..=u16::MAX {
        let data = NotificationData::from_word(u32::from(available) << 16 | 0xffff);
        if let Some(entries) = device.announced(data) {
            assert!(entries <= device.size());
            sensible += 1;
        }
    }
    assert_eq!(sensible, device.size() + 1, "each number of entries, once");
    assert_eq!((device.positions(), device.fault()), (positions, None));
    assert_eq!(device.poll(), Ok(0));

    driver.add(&[BUFFER], &[], ()).unwrap();
    let _ = driver.publish();
    assert_eq!(device.poll(), Ok(1));
}

/// Past 65536.
const MANY: u32 = if cfg!(miri) { 20 } else { 40_000 };
const SOME: u32 = 200;

#[test]
fn a_split_ring_tells_its_available_index() {
    let memory = Memory::new(SIZE);
    check(
        memory.driver(FEATURES),
        memory.device(FEATURES),
        SPLIT,
        MANY,
    );
    let memory = Memory::new(SIZE);
    let (driver, device) = (
        memory.in_order_driver(FEATURES),
        memory.in_order_device(FEATURES),
    );
    check(driver, device, SPLIT, MANY);
}

#[test]
fn a_packed_ring_tells_an_offset_and_a_wrap_counter() {
    let memory = packed_ring::Memory::new(packed_size());
    check(
        memory.driver(FEATURES),
        memory.device(FEATURES),
        PACKED,
        SOME,
    );
    let memory = packed_ring::Memory::new(packed_size());
    let (driver, device) = (
        memory.in_order_driver(FEATURES),
        memory.in_order_device(FEATURES),
    );
    check(driver, device, PACKED, SOME);
}

#[test]
fn a_tagged_ring_tells_a_position_that_runs_freely() {
    let memory = tagged_ring::Memory::new(SIZE);
    check(
        memory.driver(FEATURES),
        memory.device(FEATURES),
        TAGGED,
        MANY,
    );
}
