//! Defects of well-known rings, as far as they concern the packed ring, by their numbers in the project's field notes: each has a
//! test that would catch it.

mod support;

use shmbus_ring::packed::{DeviceRing, DriverRing};
use shmbus_ring::{Buffer, DeviceFault, DeviceQueue, DriverFault, DriverQueue};
use shmbus_shm::Window;
use shmbus_shm::testing::Counting;
use shmbus_virtio::Features;
use support::heap_ring::space;
use support::packed_ring::{AVAILABLE, Device, Driver, Memory, NEXT, USED, WRITE};
use support::stores::Stores;
use support::widths::Widths;

const BUFFER: Buffer = Buffer::new(0, 8);
const WRAP: u16 = 1 << 15;
const DESC: u16 = 2;

/// Takes all that is available and returns it, without publishing; answers how many chains.
fn return_all<W: Window>(device: &mut Device<W>) -> usize {
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

fn take_all<T, W: Window>(driver: &mut Driver<T, W>) -> usize {
    driver.poll().unwrap();
    let mut count = 0;
    while driver.take().unwrap().is_some() {
        count += 1;
    }
    count
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
    let stored = |stores: &Stores| -> Vec<_> {
        let stores = stores.since().into_iter();
        stores.map(|store| (store.offset, store.bytes)).collect()
    };
    for lap in 0..3 {
        driver.add(&[BUFFER], &[BUFFER], ()).unwrap();
        driver.add(&[BUFFER], &[], ()).unwrap();
        driver.add(&[BUFFER], &[BUFFER], ()).unwrap();
        let _ = driver.publish();
        let mut expected = vec![address(0)];
        expected.extend((1..5).flat_map(|at| [address(at), state(at)]));
        expected.push(state(0));
        assert_eq!(stored(&driver_stores), expected, "lap {lap}");

        device.poll().unwrap();
        while let Some(chain) = device.take(&space, &mut segments).unwrap() {
            device.complete(chain, 0).unwrap();
        }
        let _ = device.publish();
        // One word a chain and nothing else, the batch's first last.
        let expected = [state(2), state(3), state(0)];
        assert_eq!(stored(&device_stores), expected, "lap {lap}");
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

#[test]
fn defect_4_a_bad_chain_stops_the_queue_and_nobody_spins() {
    let memory = Memory::new(5);
    let mut device = memory.device(Features::empty());
    let mut segments = [Buffer::default(); 5];
    // It goes on in a descriptor that is not available.
    memory.write_available(0, BUFFER, 0, NEXT);
    // A worker that goes on for as long as it is told that there may be work.
    let mut looks = 0;
    while device.poll().is_ok_and(|found| found > 0) {
        while let Ok(Some(_)) = device.take(&space(64), &mut segments) {}
        looks += 1;
        assert!(looks < 2, "the worker spins on a chain that it cannot take");
    }
    assert!(device.fault().is_some());
    device.reset();
    memory.write_available(0, BUFFER, 0, 0);
    assert_eq!(device.poll(), Ok(1));
    assert!(device.take(&space(64), &mut segments).unwrap().is_some());
}

#[test]
fn defect_5_empty_and_broken_are_told_apart() {
    let memory = Memory::new(5);
    let mut device = memory.device(Features::empty());
    let mut driver = memory.driver(Features::empty());
    let mut segments = [Buffer::default(); 5];
    assert_eq!(device.poll(), Ok(0));
    assert_eq!(device.take(&space(64), &mut segments), Ok(None));
    driver.add(&[BUFFER], &[], ()).unwrap();
    let _ = driver.publish();
    assert_eq!((driver.poll(), driver.take()), (Ok(0), Ok(None)));

    memory.write_available(0, BUFFER, 5, 0);
    device.poll().unwrap();
    assert!(device.take(&space(64), &mut segments).is_err());
    assert!(device.take(&space(64), &mut segments).is_err());
    memory.write_used(0, 1, 0);
    driver.poll().unwrap();
    assert!(driver.take().is_err());
    assert!(driver.take().is_err());
}

#[test]
fn defect_7_no_id_makes_a_side_panic() {
    let mut segments = [Buffer::default(); 5];
    for id in [5, 6, 255, 256, 32767, 32768, u16::MAX] {
        let memory = Memory::new(5);
        let mut device = memory.device(Features::empty());
        memory.write_available(0, BUFFER, 0, NEXT);
        memory.write_available(1, BUFFER, id, 0);
        device.poll().unwrap();
        let fault = device.take(&space(64), &mut segments).unwrap_err();
        assert!(matches!(fault, DeviceFault::Head { head, .. } if head == id));

        let memory = Memory::new(5);
        let mut driver = memory.driver(Features::empty());
        driver.add(&[BUFFER], &[], ()).unwrap();
        let _ = driver.publish();
        memory.write_used(0, id, 0);
        driver.poll().unwrap();
        let position = WRAP;
        let id = u32::from(id);
        assert_eq!(driver.take(), Err(DriverFault::NotLent { position, id }));
    }
}

#[test]
fn defect_10_each_place_has_one_width() {
    let memory = Memory::new(5);
    let [ring, driver_area, device_area] = [(); 3].map(|()| Widths::default());
    let areas = || memory.probed(ring.clone(), driver_area.clone(), device_area.clone());
    let features = Features::EVENT_IDX | Features::INDIRECT_DESC;
    let mut driver = DriverQueue::with_heap(DriverRing::new(areas(), features).unwrap());
    let mut device = DeviceQueue::with_heap(DeviceRing::new(areas(), features).unwrap());
    let mut segments = [Buffer::default(); 5];
    for round in 0..20 {
        driver.add(&[BUFFER], &[BUFFER], round).unwrap();
        let _ = driver.publish();
        device.poll().unwrap();
        let chain = device.take(&space(64), &mut segments).unwrap().unwrap();
        device.complete(chain, round % 8).unwrap();
        let _ = device.publish();
        driver.poll().unwrap();
        assert_eq!(driver.take().unwrap().unwrap().cookie, round);
        let _ = (driver.enable_notifications(), device.enable_notifications());
    }
    assert!(
        ring.found()
            .into_iter()
            .eq((0..10).map(|word| (8 * word, 8)))
    );
    let area = |offset| [(offset, 4)].into();
    assert_eq!(driver_area.found(), area(0));
    assert_eq!(device_area.found(), area(0));
}

#[test]
fn defect_12_a_batch_reads_each_word_once() {
    const SIZE: u16 = 8;
    let entries = u64::from(SIZE);
    let memory = Memory::new(SIZE);
    let [by_driver, by_device] = [(); 2].map(|()| Counting::default());
    let areas =
        |ring: &Counting| memory.probed(ring.clone(), Counting::default(), Counting::default());
    let mut driver =
        DriverQueue::with_heap(DriverRing::new(areas(&by_driver), Features::empty()).unwrap());
    let mut device =
        DeviceQueue::with_heap(DeviceRing::new(areas(&by_device), Features::empty()).unwrap());
    for _ in 0..3 {
        let (loads, stores) = (by_driver.loads(), by_driver.stores());
        for _ in 0..SIZE {
            driver.add(&[BUFFER], &[], ()).unwrap();
        }
        let _ = driver.publish();
        assert_eq!(by_driver.loads(), loads, "adding reads nothing");
        assert_eq!(by_driver.stores() - stores, 2 * entries);

        let (loads, stores) = (by_device.loads(), by_device.stores());
        assert_eq!(return_all(&mut device), usize::from(SIZE));
        let _ = device.publish();
        // Each descriptor's two words; the first one's state also when the batch begins.
        assert!(by_device.loads() - loads <= 2 * entries + 2);
        assert_eq!(by_device.stores() - stores, entries);

        let loads = by_driver.loads();
        assert_eq!(take_all(&mut driver), usize::from(SIZE));
        assert!(by_driver.loads() - loads <= entries + 2);
    }
}
