//! Defects of well-known packed rings, by their numbers in the project's field notes: each has a test that would catch
//! it.

mod support;

use std::sync::{Arc, Mutex};

use shmbus_ring::packed::{DeviceRing, DriverRing};
use shmbus_ring::{Buffer, DeviceQueue, DriverQueue};
use shmbus_shm::testing::Probe;
use shmbus_virtio::Features;
use support::heap_ring::space;
use support::packed_ring::{AVAILABLE, Device, Driver, Memory, NEXT, USED, WRITE};

const BUFFER: Buffer = Buffer::new(0, 8);
const WRAP: u16 = 1 << 15;
const DESC: u16 = 2;

/// Takes all that is available and returns it, without publishing; answers how many chains.
fn return_all(device: &mut Device) -> usize {
    let space = space(64);
    let mut segments = [Buffer::default(); 8];
    device.poll().unwrap();
    let mut count = 0;
    while let Some(chain) = device.take(&space, &mut segments).unwrap() {
        device.complete(chain, 0).unwrap();
        count += 1;
    }
    count
}

fn take_all<T>(driver: &mut Driver<T>) -> usize {
    driver.poll().unwrap();
    let mut count = 0;
    while driver.take().unwrap().is_some() {
        count += 1;
    }
    count
}

/// Notes each store: where and how wide.
#[derive(Clone, Debug, Default)]
struct Stores(Arc<Mutex<Vec<(usize, usize)>>>);

impl Stores {
    fn since(&self) -> Vec<(usize, usize)> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl Probe for Stores {
    fn store(&self, offset: usize, bytes: usize, _: u64) -> bool {
        self.0.lock().unwrap().push((offset, bytes));
        true
    }
}

#[test]
fn defect_1_flags_are_stored_with_id_and_length_and_the_first_descriptor_last() {
    let memory = Memory::new(5);
    let (driver_stores, device_stores) = (Stores::default(), Stores::default());
    let areas =
        |stores: &Stores| memory.probed(stores.clone(), Stores::default(), Stores::default());
    let mut driver =
        DriverQueue::with_heap(DriverRing::new(areas(&driver_stores), Features::empty()).unwrap());
    let mut device =
        DeviceQueue::with_heap(DeviceRing::new(areas(&device_stores), Features::empty()).unwrap());
    let mut segments = [Buffer::default(); 5];
    let space = space(64);
    driver_stores.since();
    let (address, state) = (|at: usize| (16 * at, 8), |at: usize| (16 * at + 8, 8));
    for lap in 0..3 {
        driver.add(&[BUFFER], &[BUFFER], ()).unwrap();
        driver.add(&[BUFFER], &[], ()).unwrap();
        driver.add(&[BUFFER], &[BUFFER], ()).unwrap();
        let _ = driver.publish();
        let mut expected = vec![address(0)];
        expected.extend((1..5).flat_map(|at| [address(at), state(at)]));
        expected.push(state(0));
        assert_eq!(driver_stores.since(), expected, "lap {lap}");

        device.poll().unwrap();
        while let Some(chain) = device.take(&space, &mut segments).unwrap() {
            device.complete(chain, 0).unwrap();
        }
        let _ = device.publish();
        // One word a chain and nothing else, the batch's first last.
        let expected = [state(2), state(3), state(0)];
        assert_eq!(device_stores.since(), expected, "lap {lap}");
        driver.poll().unwrap();
        while driver.take().unwrap().is_some() {}
        assert_eq!(driver.free(), 5);
    }
}

/// Whether each side tells, when a chain of three descriptors moves from `offset` on in a ring of five.
fn tells(start: u16, driver_event: u16, device_event: u16) -> (bool, bool) {
    let memory = Memory::new(5);
    let areas = || memory.areas();
    let mut driver = DriverQueue::with_heap_at(
        DriverRing::new(areas(), Features::EVENT_IDX).unwrap(),
        start,
    )
    .unwrap();
    let mut device = DeviceQueue::with_heap_at(
        DeviceRing::new(areas(), Features::EVENT_IDX).unwrap(),
        start,
    )
    .unwrap();
    memory.set_driver_wish(driver_event, DESC);
    memory.set_device_wish(device_event, DESC);
    driver.add(&[BUFFER, BUFFER], &[BUFFER], ()).unwrap();
    let kicks = driver.publish().is_needed();
    assert_eq!(return_all(&mut device), 1);
    (kicks, device.publish().is_needed())
}

#[test]
fn defect_2_an_event_within_a_chains_span_is_told_of() {
    for start_lap in [WRAP, 0] {
        let other_lap = start_lap ^ WRAP;
        for inside in 1..4 {
            let event = start_lap | inside;
            assert_eq!(
                tells(start_lap | 1, event, event),
                (true, true),
                "{event:#x}"
            );
            let event = other_lap | inside;
            assert_eq!(
                tells(start_lap | 1, event, event),
                (false, false),
                "{event:#x}"
            );
        }
        for outside in [start_lap, start_lap | 4, other_lap, other_lap | 4] {
            assert_eq!(tells(start_lap | 1, outside, outside), (false, false));
        }
        // The span 4, 0, 1 ends in the next lap.
        for inside in [start_lap | 4, other_lap, other_lap | 1] {
            assert_eq!(
                tells(start_lap | 4, inside, inside),
                (true, true),
                "{inside:#x}"
            );
        }
        for outside in [
            start_lap | 3,
            other_lap | 2,
            start_lap,
            start_lap | 1,
            other_lap | 4,
        ] {
            assert_eq!(
                tells(start_lap | 4, outside, outside),
                (false, false),
                "{outside:#x}"
            );
        }
    }
}

#[test]
fn defect_3_suppressed_notifications_are_not_sent() {
    for features in [Features::empty(), Features::EVENT_IDX] {
        let memory = Memory::new(3);
        let mut driver = memory.driver(features);
        let mut device = memory.device(features);
        driver.disable_notifications();
        device.disable_notifications();
        for _ in 0..20 {
            driver.add(&[BUFFER], &[], ()).unwrap();
            assert!(!driver.publish().is_needed());
            return_all(&mut device);
            assert!(!device.publish().is_needed());
            assert_eq!(take_all(&mut driver), 1);
        }
        // Enabled, they are told of what comes next; with EVENT_IDX only of that.
        assert!(driver.enable_notifications().is_empty());
        assert!(device.enable_notifications().is_empty());
        for round in 0..3 {
            let told = round == 0 || features.is_empty();
            driver.add(&[BUFFER], &[], ()).unwrap();
            assert_eq!(driver.publish().is_needed(), told);
            return_all(&mut device);
            assert_eq!(device.publish().is_needed(), told);
            assert_eq!(take_all(&mut driver), 1);
        }
        assert!(!driver.publish().is_needed(), "nothing to tell of");
        assert!(!device.publish().is_needed(), "nothing to tell of");
    }
}

/// The position goes on within a chain, the ring ends at its size, and the wrap counter of both sides flips there.
#[test]
fn defect_14_positions_and_wrap_counters_go_on_at_the_rings_end() {
    for size in [1, 2, 3, 5, 8] {
        for len in 1..=size {
            let memory = Memory::new(size);
            let mut driver = memory.driver(Features::empty());
            let mut device = memory.device(Features::empty());
            let chain: Vec<_> = (0..u32::from(len))
                .map(|at| Buffer::new(0, at + 1))
                .collect();
            let mut segments = vec![Buffer::default(); usize::from(size)];
            let mut moved = 0;
            for round in 0..5 * size {
                driver.add(&[], &chain, round).unwrap();
                let _ = driver.publish();
                for (step, buffer) in (0..len).zip(&chain) {
                    let (at, first_lap) = place(moved + step, size);
                    let next = if step + 1 < len { NEXT } else { 0 };
                    let mark = if first_lap { AVAILABLE } else { USED };
                    let (found_len, _, flags) = memory.state(at);
                    assert_eq!(found_len, buffer.len);
                    assert_eq!(flags, WRITE | next | mark, "size {size}, descriptor {at}");
                }
                device.poll().unwrap();
                let taken = device.take(&space(64), &mut segments).unwrap().unwrap();
                assert_eq!(taken.writable(), chain);
                device.complete(taken, 1).unwrap();
                let _ = device.publish();
                let (at, first_lap) = place(moved, size);
                let mark = if first_lap { AVAILABLE | USED } else { 0 };
                assert_eq!(memory.state(at).2, WRITE | mark);
                assert_eq!(driver.poll(), Ok(1));
                assert_eq!(driver.take().unwrap().unwrap().cookie, round);

                moved += len;
                let (at, first_lap) = place(moved, size);
                let position = at | if first_lap { WRAP } else { 0 };
                for positions in [driver.positions(), device.positions()] {
                    assert_eq!((positions.available, positions.used), (position, position));
                }
            }
        }
    }
}

/// Where descriptor number `count`, counted from the queue's start, lies, and whether in an odd lap.
fn place(count: u16, size: u16) -> (u16, bool) {
    (count % size, (count / size).is_multiple_of(2))
}
