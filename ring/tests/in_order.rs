//! Buffers that are used in order (virtio 1.4, sections 2.7.9 and 2.8.8): what a device writes for a batch, what a driver
//! makes of it, and what it refuses.

mod support;

use shmbus_ring::{
    Buffer, DeviceFormat, DeviceQueue, DeviceSlot, DriverFault, DriverFormat, DriverQueue,
    DriverSlot, SetupError, packed, split,
};
use shmbus_shm::Notify;
use shmbus_shm::testing::Counting;
use shmbus_virtio::Features;
use support::heap_ring::{Memory, get, set, space};
use support::packed_ring::{AVAILABLE, USED, WRITE};
use support::{IN_ORDER, packed_ring};

const SIZE: u16 = 8;
const BUFFER: Buffer = Buffer::new(0, 8);

/// The first lap of a packed ring.
const WRAP: u16 = 1 << 15;

type Driver<D> = DriverQueue<D, usize, Vec<DriverSlot<usize>>>;
type Device<V> = DeviceQueue<V, Vec<DeviceSlot>>;

/// Lends chains, numbered from `first` on, each with so many readable and so many writable buffers.
fn lend<D: DriverFormat>(driver: &mut Driver<D>, first: usize, chains: &[(usize, usize)]) {
    for (number, (readable, writable)) in (first..).zip(chains) {
        let buffers = [BUFFER; 3];
        driver
            .add(&buffers[..*readable], &buffers[..*writable], number)
            .unwrap();
    }
    let _ = driver.publish();
}

/// Takes what is there, and completes it in this order: which of the chains, and how many bytes were written. Each is
/// published at once; answers what it said.
fn complete<V: DeviceFormat>(device: &mut Device<V>, order: &[(usize, u32)]) -> Vec<bool> {
    let (space, mut segments) = (space(64), [Buffer::default(); SIZE as usize]);
    let mut heads = Vec::new();
    device.poll().unwrap();
    while let Some(chain) = device.take(&space, &mut segments).unwrap() {
        heads.push(Some(chain.into_head()));
    }
    let told = order.iter().map(|(which, written)| {
        device
            .complete(heads[*which].take().unwrap(), *written)
            .unwrap();
        device.publish().is_needed()
    });
    told.collect()
}

/// Which chains came back, and how many bytes were written to each.
fn take_back<D: DriverFormat>(driver: &mut Driver<D>) -> Vec<(usize, u32)> {
    driver.poll().unwrap();
    let mut used = Vec::new();
    while let Some(chain) = driver.take().unwrap() {
        used.push((chain.cookie, chain.written));
    }
    used
}

/// Seven descriptors in five chains. The third has nothing to write.
const CHAINS: [(usize, usize); 5] = [(1, 1), (0, 1), (1, 0), (0, 1), (0, 2)];

/// The first chain is completed last; the last chain is not used completely.
const BACK_TO_FRONT: [(usize, u32); 5] = [(4, 9), (3, 8), (1, 8), (2, 0), (0, 8)];

#[test]
fn a_split_device_writes_one_used_element_for_a_batch() {
    let memory = Memory::new(SIZE);
    let mut driver = memory.in_order_driver(Features::empty());
    let mut device = memory.in_order_device(Features::empty());
    let elements = || -> Vec<(u64, u64)> {
        let words = (0..usize::from(SIZE)).map(|entry| get::<u64>(&memory.used, 4 + 8 * entry));
        words.map(|word| (word & 0xffff_ffff, word >> 32)).collect()
    };
    lend(&mut driver, 0, &CHAINS);
    let told = complete(&mut device, &BACK_TO_FRONT);
    assert_eq!(told, [false, false, false, false, true], "not its turn");
    let mut expected = vec![(0, 0); 8];
    expected[0] = (5, 9);
    assert_eq!(
        (elements(), get::<u16>(&memory.used, 2)),
        (expected.clone(), 5)
    );
    let all = [(0, 8), (1, 8), (2, 0), (3, 8), (4, 9)];
    assert_eq!(take_back(&mut driver), all);
    assert_eq!(driver.free(), SIZE);

    // The second chain is not used completely, and ends its batch; all of it is published at once.
    lend(&mut driver, 5, &[(0, 1); 4]);
    complete(&mut device, &[(1, 7), (3, 8), (2, 8), (0, 8)]);
    expected[5] = (0, 7);
    expected[7] = (2, 8);
    assert_eq!((elements(), get::<u16>(&memory.used, 2)), (expected, 9));
    assert_eq!(take_back(&mut driver), [(5, 8), (6, 7), (7, 8), (8, 8)]);
}

#[test]
fn a_packed_device_writes_one_used_descriptor_for_a_batch() {
    let memory = packed_ring::Memory::new(SIZE);
    let mut driver = memory.in_order_driver(Features::empty());
    let mut device = memory.in_order_device(Features::empty());
    let states = || (0..SIZE).map(|at| memory.state(at)).collect::<Vec<_>>();
    lend(&mut driver, 0, &CHAINS);
    let mut expected = states();
    let told = complete(&mut device, &BACK_TO_FRONT);
    assert_eq!(told, [false, false, false, false, true], "not its turn");
    // In the place of the batch's first chain, with the last one's id; the others are left out.
    expected[0] = (9, 5, AVAILABLE | USED | WRITE);
    assert_eq!(states(), expected);
    let all = [(0, 8), (1, 8), (2, 0), (3, 8), (4, 9)];
    assert_eq!(take_back(&mut driver), all);
    assert_eq!(driver.free(), SIZE);

    // The second chain is not used completely, and ends its batch; all of it is published at once. Only the first chain
    // is in the first lap.
    lend(&mut driver, 5, &[(0, 1); 4]);
    let mut expected = states();
    complete(&mut device, &[(1, 7), (3, 8), (2, 8), (0, 8)]);
    expected[7] = (7, 0, AVAILABLE | USED | WRITE);
    expected[1] = (8, 2, WRITE);
    assert_eq!(states(), expected);
    assert_eq!(take_back(&mut driver), [(5, 8), (6, 7), (7, 8), (8, 8)]);
    let position = driver.positions();
    assert_eq!((position.used, position.available), (3, 3));
}

/// Virtio 1.4, section 2.8.4: without WRITE the length is reserved. It is the last chain's length, and its flag: those
/// that are skipped count as used completely all the same.
#[test]
fn a_batch_without_the_write_flag_has_no_length() {
    let memory = packed_ring::Memory::new(SIZE);
    let mut driver = memory.in_order_driver(Features::empty());
    let mut device = memory.in_order_device(Features::empty());
    lend(&mut driver, 0, &[(0, 2), (1, 1), (1, 0)]);
    complete(&mut device, &[(0, 16), (1, 8), (2, 0)]);
    // Published one by one, these are batches of one.
    assert_eq!(take_back(&mut driver), [(0, 16), (1, 8), (2, 0)]);

    lend(&mut driver, 0, &[(0, 1), (0, 1), (1, 0)]);
    complete(&mut device, &[(2, 0), (1, 8), (0, 8)]);
    assert_eq!(memory.state(5), (0, 7, AVAILABLE | USED), "written by ours");
    assert_eq!(take_back(&mut driver), [(0, 8), (1, 8), (2, 0)]);

    // Of another device, which leaves anything in the length.
    lend(&mut driver, 0, &[(0, 1), (0, 1), (0, 1)]);
    memory.write(0, 0, u32::MAX, 2, 0);
    assert_eq!(take_back(&mut driver), [(0, 8), (1, 8), (2, 0)]);
}

/// Three chains of one to three descriptors from descriptor `offset` on, in order: whether the device tells of them when
/// the driver asked for `event`. It shows all of them at once.
fn tells(start: u16, event: u16) -> bool {
    let memory = packed_ring::Memory::new(7);
    let features = Features::EVENT_IDX | IN_ORDER;
    let ring = packed::InOrderDriverRing::new(memory.areas(), features).unwrap();
    let mut driver = DriverQueue::with_heap_at(ring, start).unwrap();
    let ring = packed::InOrderDeviceRing::new(memory.areas(), features).unwrap();
    let mut device = DeviceQueue::with_heap_at(ring, start).unwrap();
    lend(&mut driver, 0, &[(1, 1), (0, 1), (0, 2)]);
    memory.set_driver_wish(event, 2);
    let told = complete(&mut device, &[(2, 16), (1, 8), (0, 8)]);
    assert_eq!(told[..2], [false, false]);
    told[2]
}

#[test]
fn defect_2_an_event_within_a_packed_batchs_span_is_told_of() {
    for lap in [WRAP, 0] {
        let other = lap ^ WRAP;
        for inside in 1..6 {
            assert!(tells(lap | 1, lap | inside), "{inside}");
            assert!(!tells(lap | 1, other | inside), "{inside}");
        }
        for outside in [lap, lap | 6, other, other | 6] {
            assert!(!tells(lap | 1, outside), "{outside:#x}");
        }
        // The span 5, 6, 0, 1, 2 ends in the next lap.
        for inside in [lap | 5, lap | 6, other, other | 1, other | 2] {
            assert!(tells(lap | 5, inside), "{inside:#x}");
        }
        for outside in [lap | 4, other | 3, lap, lap | 2, other | 5] {
            assert!(!tells(lap | 5, outside), "{outside:#x}");
        }
    }
}

#[test]
fn an_event_within_a_split_batchs_span_is_told_of() {
    for (event, expected) in [
        (0xfffd_u16, false),
        (0xfffe, true),
        (0xffff, true),
        (0, true),
        (1, false),
    ] {
        let memory = Memory::new(SIZE);
        let features = Features::EVENT_IDX | IN_ORDER;
        let ring = split::InOrderDriverRing::new(memory.areas(), features).unwrap();
        let mut driver = DriverQueue::with_heap_at(ring, 0xfffe).unwrap();
        let ring = split::InOrderDeviceRing::new(memory.areas(), features).unwrap();
        let mut device = DeviceQueue::with_heap_at(ring, 0xfffe).unwrap();
        lend(&mut driver, 0, &[(0, 1); 3]);
        set(&memory.available, memory.layout.used_event_offset(), event);
        let told = complete(&mut device, &[(2, 8), (1, 8), (0, 8)]);
        assert_eq!(told, [false, false, expected], "{event:#x}");
    }
}

/// A faulty batch stops the driver for good, whatever else is there, and everything lent comes back once.
fn is_refused<D: DriverFormat>(mut driver: Driver<D>, before: &[(usize, u32)], fault: DriverFault) {
    driver.poll().unwrap();
    for expected in before {
        let used = driver.take().unwrap().unwrap();
        assert_eq!((used.cookie, used.written), *expected);
    }
    assert_eq!(driver.take(), Err(fault));
    assert_eq!((driver.poll(), driver.take()), (Err(fault), Err(fault)));
    assert_eq!(driver.publish(), Notify::No, "a stopped queue stays still");
    let mut returned = Vec::new();
    driver.reset(|number| returned.push(number));
    returned.sort_unstable();
    assert!(returned.into_iter().eq(before.len()..4));
    assert_eq!((driver.fault(), driver.free()), (None, SIZE));
}

/// Chains of two, one, two and one descriptors; the last is not published.
fn lend_four<D: DriverFormat>(driver: &mut Driver<D>) {
    lend(driver, 0, &[(1, 1), (0, 1), (0, 2)]);
    driver.add(&[BUFFER], &[], 3).unwrap();
}

#[test]
fn a_split_driver_refuses_wrong_batch_ends() {
    // What the device writes: its index, and elements from the first on. What came back before, and the fault.
    let refused = |index: u16, elements: &[(u16, u32, u32)], before: &[_], fault| {
        let memory = Memory::new(SIZE);
        let mut driver = memory.in_order_driver(Features::empty());
        lend_four(&mut driver);
        for (entry, id, len) in elements {
            memory.write_used(*entry, *id, *len);
        }
        set(&memory.used, 2, index);
        is_refused(driver, before, fault);
    };
    // Not a chain's head, behind the queue, or of no chain.
    for id in [1, 4, 6, 7, 8, 255, 65536, u32::MAX] {
        let fault = DriverFault::NotLent { position: 0, id };
        refused(1, &[(0, id, 0)], &[], fault);
    }
    // Lent, but further on than the index says; the last is not even published.
    for (index, id, found) in [(1, 2, 2), (1, 3, 3), (2, 3, 3), (3, 5, 4)] {
        let fault = DriverFault::BatchEnd {
            position: 0,
            id,
            found,
            expected: index,
        };
        refused(index, &[(0, id, 0)], &[], fault);
    }
    // Back before, once as the last of a batch and once within it.
    for id in [0, 2] {
        let fault = DriverFault::NotLent { position: 2, id };
        refused(3, &[(0, 2, 8), (2, id, 0)], &[(0, 8), (1, 8)], fault);
    }
    let fault = DriverFault::TooLong {
        position: 1,
        id: 2,
        written: 9,
        writable: 8,
    };
    refused(2, &[(0, 2, 9)], &[(0, 8)], fault);
}

#[test]
fn a_packed_driver_refuses_wrong_batch_ends() {
    let refused = |descriptors: &[(u16, u16, u32)], before: &[_], fault| {
        let memory = packed_ring::Memory::new(SIZE);
        let mut driver = memory.in_order_driver(Features::empty());
        lend_four(&mut driver);
        for (at, id, len) in descriptors {
            memory.write_used(*at, *id, *len);
        }
        is_refused(driver, before, fault);
    };
    for id in [1, 4, 6, 7, 8, 255, 32768, u16::MAX] {
        let fault = DriverFault::NotLent {
            position: WRAP,
            id: id.into(),
        };
        refused(&[(0, id, 0)], &[], fault);
    }
    // Placed, and not published.
    let fault = DriverFault::BatchEnd {
        position: WRAP,
        id: 5,
        found: 4,
        expected: 3,
    };
    refused(&[(0, 5, 0)], &[], fault);
    for id in [0, 2] {
        let fault = DriverFault::NotLent {
            position: WRAP | 3,
            id: id.into(),
        };
        refused(&[(0, 2, 8), (3, id, 0)], &[(0, 8), (1, 8)], fault);
    }
    let fault = DriverFault::TooLong {
        position: WRAP | 2,
        id: 2,
        written: 9,
        writable: 8,
    };
    refused(&[(0, 2, 9)], &[(0, 8)], fault);
}

#[test]
fn a_ring_is_of_the_type_that_was_negotiated() {
    let missing = SetupError::Missing {
        bits: Features::IN_ORDER.bits(),
    };
    let unsupported = SetupError::Unsupported {
        bits: Features::IN_ORDER.bits(),
    };
    let plain = Features::VERSION_1;
    let areas = || Memory::new(SIZE).areas();
    for (found, expected) in [
        (split::InOrderDriverRing::new(areas(), plain).err(), missing),
        (split::InOrderDeviceRing::new(areas(), plain).err(), missing),
        (split::DriverRing::new(areas(), IN_ORDER).err(), unsupported),
        (split::DeviceRing::new(areas(), IN_ORDER).err(), unsupported),
    ] {
        assert_eq!(found, Some(expected));
    }
    let areas = || packed_ring::Memory::new(SIZE).areas();
    for (found, expected) in [
        (
            packed::InOrderDriverRing::new(areas(), plain).err(),
            missing,
        ),
        (
            packed::InOrderDeviceRing::new(areas(), plain).err(),
            missing,
        ),
        (
            packed::DriverRing::new(areas(), IN_ORDER).err(),
            unsupported,
        ),
        (
            packed::DeviceRing::new(areas(), IN_ORDER).err(),
            unsupported,
        ),
    ] {
        assert_eq!(found, Some(expected));
    }
}

/// How many words the driver loads of the used elements, and how many the device stores, for a ring's worth of chains
/// that are shown together: lap by lap.
fn accesses<D: DriverFormat, V: DeviceFormat>(
    driver: D,
    loaded: &Counting,
    device: V,
    stored: &Counting,
) -> [(u64, u64); 3] {
    let mut driver = DriverQueue::with_heap(driver);
    let mut device = DeviceQueue::with_heap(device);
    let back_to_front: Vec<_> = (0..usize::from(SIZE)).rev().map(|at| (at, 8)).collect();
    [(); 3].map(|()| {
        lend(&mut driver, 0, &[(0, 1); SIZE as usize]);
        let stores = stored.stores();
        complete(&mut device, &back_to_front);
        let loads = loaded.loads();
        assert_eq!(take_back(&mut driver).len(), usize::from(SIZE));
        (loaded.loads() - loads, stored.stores() - stores)
    })
}

#[test]
fn a_batch_is_one_element_to_read_and_to_write() {
    let [loaded, stored, other] = [(); 3].map(|()| Counting::default());
    let memory = Memory::new(SIZE);
    let areas = |device: &Counting| memory.probed(other.clone(), device.clone());
    let driver = split::InOrderDriverRing::new(areas(&loaded), IN_ORDER).unwrap();
    let device = split::InOrderDeviceRing::new(areas(&stored), IN_ORDER).unwrap();
    // The index and the element, which is the same in each lap and is stored once.
    let expected = [(2, 2), (2, 1), (2, 1)];
    assert_eq!(accesses(driver, &loaded, device, &stored), expected);

    let memory = packed_ring::Memory::new(SIZE);
    let areas = |ring: &Counting| memory.probed(ring.clone(), other.clone(), other.clone());
    let driver = packed::InOrderDriverRing::new(areas(&loaded), IN_ORDER).unwrap();
    let device = packed::InOrderDeviceRing::new(areas(&stored), IN_ORDER).unwrap();
    // The descriptor: by the poll, and when it is taken.
    assert_eq!(accesses(driver, &loaded, device, &stored), [(2, 1); 3]);
}
