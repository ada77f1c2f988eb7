//! What virtio 1.4 demands of packed virtqueues (section 2.8) and no other test looks at; `CONFORMANCE.md` has the whole
//! list.

mod support;

use shmbus_ring::packed::{DeviceRing, DriverRing, Layout};
use shmbus_ring::{AddError, Buffer, ChainHead, DeviceQueue, DriverQueue};
use shmbus_shm::Bytes;
use shmbus_virtio::Features;
use support::heap_ring::{bytes, get, set, space};
use support::packed_ring::{AVAILABLE, Device, INDIRECT, Memory, NEXT, USED, WRITE};
use support::stores::Stores;

const SIZE: u16 = 8;
const BUFFER: Buffer = Buffer::new(0, 8);
const WRAP: u16 = 1 << 15;

/// The chains that are available, taken.
fn take_heads(device: &mut Device) -> Vec<ChainHead> {
    let mut segments = [Buffer::default(); SIZE as usize];
    let mut heads = Vec::new();
    device.poll().unwrap();
    while let Some(chain) = device.take(&space(64), &mut segments).unwrap() {
        heads.push(chain.into_head());
    }
    heads
}

/// Section 2.8.11.
#[test]
fn areas_lie_at_multiples_of_their_alignments() {
    for size in (1..=32768).step_by(if cfg!(miri) { 1111 } else { 1 }) {
        let layout = Layout::new(size).unwrap();
        for (offset, alignment) in [
            (layout.descriptors_offset(), 16),
            (layout.driver_area_offset(), 4),
            (layout.device_area_offset(), 4),
        ] {
            assert!(offset.is_multiple_of(alignment), "size {size}: {offset}");
        }
    }
}

/// Sections 2.8.13 and 2.8.14: whatever the memory held before.
#[test]
fn areas_are_formatted() {
    for features in [Features::empty(), Features::EVENT_IDX] {
        let memory = Memory::new(SIZE);
        for at in (0..memory.layout.descriptors_bytes()).step_by(8) {
            set::<u64>(&memory.window, at, u64::MAX);
        }
        memory.set_driver_wish(0xffff, 0xffff);
        memory.set_device_wish(0xffff, 0xffff);
        let _driver = memory.driver::<()>(features);
        let _device = memory.device(features);
        for at in (0..memory.layout.descriptors_bytes()).step_by(8) {
            assert_eq!(get::<u64>(&memory.window, at), 0);
        }
        for at in [
            memory.layout.driver_area_offset(),
            memory.layout.device_area_offset(),
        ] {
            assert_eq!(get::<u32>(&memory.window, at), 0);
        }
    }
}

/// Section 2.8.12, in both directions: taken as they lie in the ring, and returned as they were completed, whatever
/// their ids are.
#[test]
fn chains_are_taken_in_ring_order_and_returned_as_they_are_completed() {
    let memory = Memory::new(SIZE);
    let mut driver = memory.driver(Features::empty());
    let mut device = memory.device(Features::empty());
    let mut at = 0;
    for round in 0..20 {
        let mut lengths = [1, 2, 3];
        lengths.rotate_left(round % 3);
        for len in lengths {
            let buffers = vec![BUFFER; usize::from(len)];
            driver.add(&[], &buffers, len).unwrap();
        }
        let _ = driver.publish();
        let mut heads = take_heads(&mut device);
        let taken: Vec<_> = heads.iter().map(|head| head.writable_bytes() / 8).collect();
        assert_eq!(taken, lengths.map(u64::from));

        heads.rotate_left(1);
        let completed = [lengths[1], lengths[2], lengths[0]];
        let ids: Vec<_> = heads.iter().map(ChainHead::index).collect();
        for (head, written) in heads.into_iter().zip(5..) {
            device.complete(head, written).unwrap();
        }
        let _ = device.publish();
        for ((id, len), written) in ids.into_iter().zip(completed).zip(5..) {
            let (found_written, found_id, flags) = memory.state(at % SIZE);
            let mark = if (at / SIZE).is_multiple_of(2) {
                AVAILABLE | USED
            } else {
                0
            };
            assert_eq!(
                (found_written, found_id, flags),
                (written, id, WRITE | mark)
            );
            at += len;
        }
        driver.poll().unwrap();
        for len in completed {
            assert_eq!(driver.take().unwrap().unwrap().cookie, len);
        }
    }
}

/// Section 2.8.15: the flags that make a descriptor available in one lap do not in the other.
#[test]
fn a_descriptor_is_taken_only_when_both_its_flags_say_so() {
    for (position, available) in [(WRAP, AVAILABLE), (0, USED)] {
        for mark in [0, AVAILABLE, USED, AVAILABLE | USED] {
            let memory = Memory::new(SIZE);
            let ring = DeviceRing::new(memory.areas(), Features::empty()).unwrap();
            let mut device = DeviceQueue::with_heap_at(ring, position).unwrap();
            memory.write(0, 0, 8, 0, mark);
            assert_eq!(device.poll(), Ok(u16::from(mark == available)));
            // The second of a chain, likewise.
            memory.write(0, 0, 8, 0, available | NEXT);
            memory.write(1, 0, 8, 0, mark);
            device.poll().unwrap();
            let mut segments = [Buffer::default(); SIZE as usize];
            let taken = device.take(&space(64), &mut segments);
            assert_eq!(taken.is_ok(), mark == available, "{mark:#x}");
        }
    }
}

/// Section 2.8.16: what the device has not returned is not written to.
#[test]
fn a_driver_overwrites_no_descriptor_that_is_not_used() {
    let memory = Memory::new(SIZE);
    let stores = Stores::default();
    let areas = memory.probed(stores.clone(), Stores::default(), Stores::default());
    let mut driver = DriverQueue::with_heap(DriverRing::new(areas, Features::empty()).unwrap());
    let mut device = memory.device(Features::empty());
    for len in [3, 2, 3] {
        driver.add(&vec![BUFFER; len], &[], len).unwrap();
    }
    let _ = driver.publish();
    let mut heads = take_heads(&mut device);
    stores.since();
    let mut free = 0;
    // Out of order: the second, the first, the third.
    for (at, (which, len)) in [(1, 2), (0, 3), (0, 3)].into_iter().enumerate() {
        device.complete(heads.remove(which), 0).unwrap();
        // Completed, and then published, but not seen by the driver.
        for publish in [false, true] {
            assert!(driver.add(&vec![BUFFER; free + 1], &[], 0).is_err());
            if publish {
                let _ = device.publish();
            }
        }
        assert_eq!(driver.poll(), Ok(1));
        assert_eq!(driver.take().unwrap().unwrap().cookie, len);
        free += len;
        assert_eq!(usize::from(driver.free()), free);
        assert_eq!(stores.since(), []);
        // One of them is used again, where the ring goes on.
        driver.add(&[BUFFER], &[], 1).unwrap();
        free -= 1;
        let _ = driver.publish();
        let touched: Vec<_> = stores.since().iter().map(|store| store.offset).collect();
        assert_eq!(touched, [16 * at, 16 * at + 8]);
    }
}

/// Sections 2.8.16 and 2.9: what a notification with `VIRTIO_F_NOTIFICATION_DATA` carries.
#[test]
fn positions_name_the_next_descriptor_that_is_not_yet_available() {
    let memory = Memory::new(5);
    let mut driver = memory.driver(Features::empty());
    let mut device = memory.device(Features::empty());
    let mut moved = 0;
    for round in 0..20_u16 {
        let len = 1 + round % 4;
        driver
            .add(&vec![BUFFER; usize::from(len)], &[], ())
            .unwrap();
        let position = |moved: u16| {
            let lap = if (moved / 5).is_multiple_of(2) {
                WRAP
            } else {
                0
            };
            lap + moved % 5
        };
        assert_eq!(
            driver.positions().available,
            position(moved),
            "not published"
        );
        let _ = driver.publish();
        moved += len;
        assert_eq!(driver.positions().available, position(moved));
        let _ = driver.publish();
        assert_eq!(driver.positions().available, position(moved), "told again");
        for head in take_heads(&mut device) {
            device.complete(head, 0).unwrap();
        }
        let _ = device.publish();
        driver.poll().unwrap();
        assert!(driver.take().unwrap().is_some());
    }
}

/// Section 2.8.19.
#[test]
fn an_indirect_table_has_no_flag_but_write_and_its_descriptor_stands_alone() {
    let memory = Memory::new(SIZE);
    let tables = space(4096);
    let table = Bytes::new(tables.window(), 64, 256).unwrap();
    let buffers = [1, 2, 3, 4].map(|len| Buffer::new(u64::from(len) << 40, len));
    let (readable, writable) = buffers.split_at(2);

    let mut driver = memory.driver(Features::empty());
    let refused = driver.add_indirect(readable, writable, &table, 64, ());
    assert_eq!(refused.unwrap_err().reason, AddError::IndirectNotNegotiated);
    assert_eq!((driver.free(), driver.publish().is_needed()), (SIZE, false));

    let mut driver = memory.driver(Features::INDIRECT_DESC);
    driver.add(&[BUFFER], &[], ()).unwrap();
    driver
        .add_indirect(readable, writable, &table, 64, ())
        .unwrap();
    driver.add(&[BUFFER], &[], ()).unwrap();
    let _ = driver.publish();
    assert_eq!(get::<u64>(&memory.window, 16), 64);
    let states = [0, 1, 2].map(|at| memory.state(at));
    assert_eq!(
        states,
        [
            (8, 0, AVAILABLE),
            (64, 1, AVAILABLE | INDIRECT),
            (8, 2, AVAILABLE)
        ]
    );
    for (row, (buffer, flags)) in (0..).zip(buffers.into_iter().zip([0, 0, WRITE, WRITE])) {
        let mut found = [0; 16];
        bytes(&tables, Buffer::new(64 + 16 * row, 16)).copy_to(0, &mut found);
        let mut expected = buffer.address.to_le_bytes().to_vec();
        expected.extend(buffer.len.to_le_bytes());
        expected.extend(0_u16.to_le_bytes());
        expected.extend(flags.to_le_bytes());
        assert_eq!(found, expected[..], "row {row}");
    }
}
