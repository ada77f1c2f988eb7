//! What virtio 1.4 demands of split virtqueues (section 2.7) and no other test looks at; `CONFORMANCE.md` has the whole
//! list.

mod support;

use shmbus_ring::split::{DeviceRing, DriverRing, Layout};
use shmbus_ring::{AddError, Buffer, DeviceQueue, DriverFormat, DriverQueue, DriverSlot, Recheck};
use shmbus_shm::{Bytes, Window};
use shmbus_virtio::Features;
use support::heap_ring::{Device, Driver, Memory, bytes, get, set, space};
use support::stores::{Store, Stores};

const SIZE: u16 = 8;
const BUFFER: Buffer = Buffer::new(0, 8);
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;
/// Of `flags` and `idx`, in either ring.
const FLAGS_AT: usize = 0;
const INDEX_AT: usize = 2;

/// Takes all that is available and completes it, without publishing.
fn complete_all(device: &mut Device) {
    let mut segments = [Buffer::default(); SIZE as usize];
    device.poll().unwrap();
    while let Some(chain) = device.take(&space(64), &mut segments).unwrap() {
        device.complete(chain, 0).unwrap();
    }
}

fn take_all<T, W: Window>(driver: &mut Driver<T, W>) -> usize {
    driver.poll().unwrap();
    let mut count = 0;
    while driver.take().unwrap().is_some() {
        count += 1;
    }
    count
}

/// Section 2.7.1.
#[test]
fn areas_lie_at_multiples_of_their_alignments() {
    for size in (0..16).map(|shift| 1 << shift) {
        let layout = Layout::new(size).unwrap();
        let legacy = layout.legacy(4).unwrap();
        for (offset, alignment) in [
            (layout.descriptors_offset(), 16),
            (layout.available_offset(), 2),
            (layout.used_offset(), 4),
            (legacy.descriptors_offset(), 16),
            (legacy.available_offset(), 2),
            (legacy.used_offset(), 4),
        ] {
            assert!(offset.is_multiple_of(alignment), "size {size}: {offset}");
        }
    }
}

/// Sections 2.7.10.1 and 2.7.7.1: whatever the memory held before.
#[test]
fn areas_are_formatted_by_the_side_that_writes_them() {
    for features in [Features::empty(), Features::EVENT_IDX] {
        let memory = Memory::new(SIZE);
        let layout = memory.layout;
        for at in [FLAGS_AT, INDEX_AT] {
            set::<u16>(&memory.available, at, 0xffff);
            set::<u16>(&memory.used, at, 0xffff);
        }
        set::<u16>(&memory.available, layout.used_event_offset(), 0xffff);
        set::<u16>(&memory.used, layout.avail_event_offset(), 0xffff);
        let _driver = memory.driver::<()>(features);
        let _device = memory.device(features);
        for at in [FLAGS_AT, INDEX_AT, layout.used_event_offset()] {
            assert_eq!(get::<u16>(&memory.available, at), 0);
        }
        for at in [FLAGS_AT, INDEX_AT, layout.avail_event_offset()] {
            assert_eq!(get::<u16>(&memory.used, at), 0);
        }
    }
}

/// Section 2.7.5.2, with `VIRTIO_F_IN_ORDER`.
#[test]
fn in_order_descriptors_are_taken_in_the_tables_order() {
    let memory = Memory::new(SIZE);
    let mut driver = memory.in_order_driver(Features::empty());
    let mut device = memory.in_order_device(Features::empty());
    let mut segments = [Buffer::default(); SIZE as usize];
    let mut at = 0;
    for round in 0..20_u16 {
        let len = 1 + round % 5;
        driver
            .add(&vec![BUFFER; usize::from(len)], &[], round)
            .unwrap();
        let _ = driver.publish();
        device.poll().unwrap();
        let chain = device.take(&space(64), &mut segments).unwrap().unwrap();
        assert_eq!(chain.index(), at);
        for step in 0..len {
            let index = (at + step) % SIZE;
            let words: u64 = get(&memory.descriptors, 16 * usize::from(index) + 8);
            let (flags, next) = ((words >> 32) as u16, (words >> 48) as u16);
            let expected = match index {
                _ if step + 1 == len => (0, 0),
                7 => (NEXT, 0),
                _ => (NEXT, index + 1),
            };
            assert_eq!((flags, next), expected, "descriptor {index}");
        }
        at = (at + len) % SIZE;
        device.complete(chain, 0).unwrap();
        let _ = device.publish();
        driver.poll().unwrap();
        assert_eq!(driver.take().unwrap().unwrap().cookie, round);
    }
}

/// Section 2.7.5.3.1. Ring types in order and others write the same.
#[test]
fn an_indirect_table_is_sequential_and_its_descriptor_stands_alone() {
    let memory = Memory::new(SIZE);
    is_an_indirect_table(&memory, memory.driver(Features::INDIRECT_DESC));
    let memory = Memory::new(SIZE);
    is_an_indirect_table(&memory, memory.in_order_driver(Features::INDIRECT_DESC));

    let mut driver = memory.driver(Features::empty());
    let tables = space(64);
    let table = Bytes::new(tables.window(), 0, 64).unwrap();
    let refused = driver.add_indirect(&[BUFFER], &[], &table, 0, ());
    assert_eq!(refused.unwrap_err().reason, AddError::IndirectNotNegotiated);
    assert_eq!((driver.free(), driver.publish().is_needed()), (SIZE, false));
}

fn is_an_indirect_table<D: DriverFormat>(
    memory: &Memory,
    mut driver: DriverQueue<D, (), Vec<DriverSlot<()>>>,
) {
    let tables = space(4096);
    let table = Bytes::new(tables.window(), 64, 256).unwrap();
    let buffers = [1, 2, 3, 4].map(|len| Buffer::new(u64::from(len) << 40, len));
    let (readable, writable) = buffers.split_at(2);
    driver
        .add_indirect(readable, writable, &table, 64, ())
        .unwrap();
    let _ = driver.publish();
    assert_eq!(get::<u64>(&memory.descriptors, 0), 64);
    // The length of four rows, the flag, and a `next` that means nothing.
    assert_eq!(
        get::<u64>(&memory.descriptors, 8),
        64 | u64::from(INDIRECT) << 32
    );
    let flags = [NEXT, NEXT, WRITE | NEXT, WRITE];
    for (row, (buffer, flags)) in (0..).zip(buffers.into_iter().zip(flags)) {
        let mut found = [0; 16];
        bytes(&tables, Buffer::new(64 + 16 * u64::from(row), 16)).copy_to(0, &mut found);
        let next = if flags & NEXT != 0 { row + 1 } else { 0_u16 };
        let mut expected = buffer.address.to_le_bytes().to_vec();
        expected.extend(buffer.len.to_le_bytes());
        expected.extend(flags.to_le_bytes());
        expected.extend(next.to_le_bytes());
        assert_eq!(found, expected[..], "row {row}");
    }
}

/// Section 2.7.6.1.
#[test]
fn the_available_index_only_goes_up() {
    let memory = Memory::new(SIZE);
    let stores = Stores::default();
    let areas = memory.probed(stores.clone(), Stores::default());
    let start = 0xffe0;
    let ring = DriverRing::new(areas, Features::empty()).unwrap();
    let mut driver = DriverQueue::with_heap_at(ring, start).unwrap();
    let ring = DeviceRing::new(memory.areas(), Features::empty()).unwrap();
    let mut device = DeviceQueue::with_heap_at(ring, start).unwrap();
    let index_at = memory.layout.available_offset() + INDEX_AT;
    stores.since();
    let mut index = start;
    for round in 0..64 {
        let batch = round % SIZE;
        for _ in 0..batch {
            driver.add(&[BUFFER], &[], ()).unwrap();
        }
        let _ = driver.publish();
        index = index.wrapping_add(batch);
        let published: Vec<_> = stores
            .since()
            .into_iter()
            .filter(|store| store.offset == index_at)
            .map(|store| store.value)
            .collect();
        let expected: &[u64] = if batch == 0 { &[] } else { &[u64::from(index)] };
        assert_eq!(published, expected, "round {round}");
        complete_all(&mut device);
        let _ = device.publish();
        assert_eq!(take_all(&mut driver), usize::from(batch));
    }
}

/// Section 2.7.5.1, and 2.7.6: the driver's areas are not the device's to write.
#[test]
fn a_device_writes_nothing_but_its_area() {
    for features in [Features::empty(), Features::EVENT_IDX] {
        let memory = Memory::new(SIZE);
        let (driver_area, device_area) = (Stores::default(), Stores::default());
        let areas = memory.probed(driver_area.clone(), device_area.clone());
        let mut driver = memory.driver(features | Features::INDIRECT_DESC);
        let ring = DeviceRing::new(areas, features | Features::INDIRECT_DESC).unwrap();
        let mut device = DeviceQueue::with_heap(ring);
        let space = space(4096);
        let table = Bytes::new(space.window(), 64, 64).unwrap();
        let mut segments = [Buffer::default(); SIZE as usize];
        for _ in 0..3 * SIZE {
            driver.add(&[BUFFER], &[BUFFER, BUFFER], ()).unwrap();
            driver
                .add_indirect(&[BUFFER], &[BUFFER], &table, 64, ())
                .unwrap();
            let _ = driver.publish();
            device.disable_notifications();
            device.poll().unwrap();
            while let Some(chain) = device.take(&space, &mut segments).unwrap() {
                device.complete(chain, 3).unwrap();
            }
            let _ = device.publish();
            let _ = device.enable_notifications();
            assert_eq!(take_all(&mut driver), 2);
        }
        device.reset();
        assert_eq!(driver_area.since(), []);
        assert!(device_area.since().len() > 3);
    }
}

/// Section 2.7.8.2.
#[test]
fn used_elements_are_whole_before_the_index_says_so() {
    for (memory, element) in [(Memory::new(SIZE), 8), (Memory::with_halves(SIZE), 4)] {
        let stores = Stores::default();
        let mut driver = memory.driver(Features::empty());
        let areas = memory.probed(Stores::default(), stores.clone());
        let ring = DeviceRing::new(areas, Features::empty()).unwrap();
        let mut device = DeviceQueue::with_heap(ring);
        let mut segments = [Buffer::default(); SIZE as usize];
        for chain in 0..2 {
            driver.add(&[], &[BUFFER, BUFFER], chain).unwrap();
        }
        let _ = driver.publish();
        device.poll().unwrap();
        stores.since();
        for written in [11, 13] {
            let chain = device.take(&space(64), &mut segments).unwrap().unwrap();
            device.complete(chain, written).unwrap();
        }
        let _ = device.publish();
        // Ids 0 and 2, and their lengths.
        let words: Vec<u64> = if element == 8 {
            vec![11 << 32, 2 | 13 << 32]
        } else {
            vec![0, 11, 2, 13]
        };
        let mut expected: Vec<_> = (0..)
            .zip(words)
            .map(|(at, value)| Store {
                offset: 4 + element * at,
                bytes: element,
                value,
            })
            .collect();
        expected.push(Store {
            offset: INDEX_AT,
            bytes: 2,
            value: 2,
        });
        assert_eq!(stores.since(), expected);
    }
}

/// What `flags` of one ring are stored as by a side that uses all it has for notifications.
fn flags_stored(stores: &Stores, at: usize) -> Vec<u64> {
    let stores = stores.since().into_iter();
    let flags = stores.filter(|store| store.offset == at);
    flags.map(|store| store.value).collect()
}

/// Section 2.7.7.1.
#[test]
fn a_driver_stores_flags_of_0_and_1_and_with_event_idx_0_alone() {
    for (features, expected) in [
        (Features::empty(), &[0, 1, 0, 1, 0, 0][..]),
        (Features::EVENT_IDX, &[0, 0]),
    ] {
        let memory = Memory::new(SIZE);
        let stores = Stores::default();
        let areas = memory.probed(stores.clone(), Stores::default());
        let mut driver = DriverQueue::with_heap(DriverRing::new(areas, features).unwrap());
        for _ in 0..2 {
            driver.disable_notifications();
            driver.add(&[BUFFER], &[], ()).unwrap();
            let _ = (driver.publish(), driver.poll());
            assert_eq!(driver.enable_notifications(), Recheck::Empty);
        }
        driver.reset(|()| ());
        let flags_at = memory.layout.available_offset() + FLAGS_AT;
        assert_eq!(flags_stored(&stores, flags_at), expected);
    }
}

/// Section 2.7.10.2.
#[test]
fn a_device_stores_flags_of_0_and_1_and_with_event_idx_0_alone() {
    for (features, expected) in [
        (Features::empty(), &[0, 1, 0, 1, 0, 0][..]),
        (Features::EVENT_IDX, &[0, 0]),
    ] {
        let memory = Memory::new(SIZE);
        let stores = Stores::default();
        let areas = memory.probed(Stores::default(), stores.clone());
        let mut device = DeviceQueue::with_heap(DeviceRing::new(areas, features).unwrap());
        for _ in 0..2 {
            device.disable_notifications();
            let _ = (device.poll(), device.publish());
            assert_eq!(device.enable_notifications(), Recheck::Empty);
        }
        device.reset();
        assert_eq!(flags_stored(&stores, FLAGS_AT), expected);
    }
}

/// When the other side must be told that `batch` entries from `index` on were written.
fn is_due(event_idx: bool, flags: u16, event: u16, index: u16, batch: u16) -> bool {
    if event_idx {
        (0..batch).any(|step| index.wrapping_add(step) == event)
    } else {
        flags == 0
    }
}

/// Settings of what a side may ask for: features, flags, and an event index around the batch.
fn wishes(index: u16) -> impl Iterator<Item = (Features, u16, u16)> {
    let events = (0..8).map(move |step| index.wrapping_add(step).wrapping_sub(2));
    [Features::empty(), Features::EVENT_IDX]
        .into_iter()
        .flat_map(move |features| events.clone().map(move |event| (features, event)))
        .flat_map(|(features, event)| [0, 1].map(|flags| (features, flags, event)))
}

/// Section 2.7.7.2: flags alone without `VIRTIO_F_EVENT_IDX`, the event index alone with it.
#[test]
fn a_device_tells_of_used_buffers_as_the_driver_asks() {
    for index in [0, 5, 0xfffe] {
        for batch in 1..4 {
            for (features, flags, event) in wishes(index) {
                let memory = Memory::new(SIZE);
                let ring = DriverRing::new(memory.areas(), features).unwrap();
                let mut driver = DriverQueue::with_heap_at(ring, index).unwrap();
                let ring = DeviceRing::new(memory.areas(), features).unwrap();
                let mut device = DeviceQueue::with_heap_at(ring, index).unwrap();
                for _ in 0..batch {
                    driver.add(&[BUFFER], &[], ()).unwrap();
                }
                let _ = driver.publish();
                complete_all(&mut device);
                set::<u16>(&memory.available, FLAGS_AT, flags);
                set::<u16>(&memory.available, memory.layout.used_event_offset(), event);
                let due = is_due(features == Features::EVENT_IDX, flags, event, index, batch);
                assert_eq!(
                    device.publish().is_needed(),
                    due,
                    "{features:?}, flags {flags}, event {event:#x}, {batch} from {index:#x} on"
                );
            }
        }
    }
}

/// Section 2.7.10.1, likewise.
#[test]
fn a_driver_tells_of_available_buffers_as_the_device_asks() {
    for index in [0, 5, 0xfffe] {
        for batch in 1..4 {
            for (features, flags, event) in wishes(index) {
                let memory = Memory::new(SIZE);
                let ring = DriverRing::new(memory.areas(), features).unwrap();
                let mut driver = DriverQueue::with_heap_at(ring, index).unwrap();
                set::<u16>(&memory.used, FLAGS_AT, flags);
                set::<u16>(&memory.used, memory.layout.avail_event_offset(), event);
                for _ in 0..batch {
                    driver.add(&[BUFFER], &[], ()).unwrap();
                }
                let due = is_due(features == Features::EVENT_IDX, flags, event, index, batch);
                assert_eq!(
                    driver.publish().is_needed(),
                    due,
                    "{features:?}, flags {flags}, event {event:#x}, {batch} from {index:#x} on"
                );
            }
        }
    }
}

/// Sections 2.7.7.1 and 2.7.10.2: who is told of nothing looks, finds nothing, and goes on.
#[test]
fn spurious_notifications_do_no_harm() {
    for features in [Features::empty(), Features::EVENT_IDX] {
        let memory = Memory::new(SIZE);
        let mut driver = memory.driver(features);
        let mut device = memory.device(features);
        let mut segments = [Buffer::default(); SIZE as usize];
        for round in 0..3 * SIZE {
            for _ in 0..3 {
                assert_eq!((driver.poll(), device.poll()), (Ok(0), Ok(0)));
                assert_eq!(driver.take(), Ok(None));
                assert_eq!(device.take(&space(64), &mut segments), Ok(None));
                assert!(!device.publish().is_needed());
            }
            driver.add(&[BUFFER], &[], round).unwrap();
            assert_eq!(device.poll(), Ok(0), "not published yet");
            let _ = driver.publish();
            assert_eq!(driver.poll(), Ok(0));
            complete_all(&mut device);
            assert_eq!(driver.poll(), Ok(0), "not published yet");
            let _ = device.publish();
            assert_eq!(driver.poll(), Ok(1));
            assert_eq!(driver.take().unwrap().unwrap().cookie, round);
        }
    }
}

/// Section 6.3: a legacy driver that negotiated `VIRTIO_F_NOTIFY_ON_EMPTY` and does not want to be told.
#[test]
fn a_legacy_driver_is_told_when_all_is_used_although_it_did_not_ask() {
    for (features, told) in [
        (Features::empty(), false),
        (Features::EVENT_IDX, false),
        (Features::NOTIFY_ON_EMPTY, true),
        (Features::NOTIFY_ON_EMPTY | Features::EVENT_IDX, true),
    ] {
        let memory = Memory::new(SIZE);
        let mut driver = memory.driver(features);
        let mut device = memory.device(features);
        driver.disable_notifications();
        set::<u16>(&memory.available, memory.layout.used_event_offset(), 0x8000);
        let mut segments = [Buffer::default(); SIZE as usize];
        for _ in 0..3 {
            driver.add(&[BUFFER], &[], ()).unwrap();
        }
        let _ = driver.publish();
        device.poll().unwrap();
        let space = space(64);
        let mut take = |device: &mut Device| {
            let chain = device.take(&space, &mut segments).unwrap();
            chain.unwrap().into_head()
        };
        let (first, second) = (take(&mut device), take(&mut device));
        device.complete(first, 0).unwrap();
        device.complete(second, 0).unwrap();
        assert!(!device.publish().is_needed(), "one is not yet taken");
        let third = take(&mut device);
        driver.add(&[BUFFER], &[], ()).unwrap();
        let _ = driver.publish();
        device.complete(third, 0).unwrap();
        assert!(!device.publish().is_needed(), "one came meanwhile");
        device.poll().unwrap();
        let fourth = take(&mut device);
        assert!(!device.publish().is_needed(), "one is in flight");
        device.complete(fourth, 0).unwrap();
        assert_eq!(device.publish().is_needed(), told, "{features:?}");
        assert!(!device.publish().is_needed(), "told already");
    }
}
