//! Defects of well-known rings, as far as they concern the split ring, by their numbers in the project's field notes: each
//! has a test that would catch it. `CONFORMANCE.md` says where the others are.

mod support;

use shmbus_ring::split::{DeviceRing, DriverRing};
use shmbus_ring::{
    Buffer, ChainError, DeviceFault, DeviceFormat, DeviceQueue, DeviceSlot, DriverFault,
    DriverFormat, DriverQueue, DriverSlot,
};
use shmbus_shm::testing::Counting;
use shmbus_virtio::Features;
use support::heap_ring::{Memory, set, space};
use support::widths::Widths;
use support::{packed_ring, tagged_ring};

const SIZE: u16 = 8;
const BUFFER: Buffer = Buffer::new(0, 8);
const NOWHERE: Buffer = Buffer::new(1 << 40, 8);

#[test]
fn defect_4_a_bad_chain_stops_the_queue_and_nobody_spins() {
    let memory = Memory::new(SIZE);
    let mut device = memory.device(Features::empty());
    let mut segments = [Buffer::default(); SIZE as usize];
    memory.write_descriptor(0, BUFFER, 1, 0);
    memory.write_available(0, 0);
    // A worker that goes on for as long as it is told that there may be work.
    let mut looks = 0;
    while device.poll().is_ok_and(|found| found > 0) {
        while let Ok(Some(_)) = device.take(&space(64), &mut segments) {}
        looks += 1;
        assert!(looks < 2, "the worker spins on a chain that it cannot take");
    }
    assert!(device.fault().is_some());
    device.reset();
    set::<u16>(&memory.available, 2, 0);
    memory.write_descriptor(0, BUFFER, 0, 0);
    memory.write_available(0, 0);
    assert_eq!(device.poll(), Ok(1));
    assert!(device.take(&space(64), &mut segments).unwrap().is_some());
}

#[test]
fn defect_5_empty_and_broken_are_told_apart() {
    let memory = Memory::new(SIZE);
    let mut device = memory.device(Features::empty());
    let mut driver = memory.driver::<()>(Features::empty());
    let mut segments = [Buffer::default(); SIZE as usize];
    assert_eq!(device.poll(), Ok(0));
    assert_eq!(device.take(&space(64), &mut segments), Ok(None));
    assert_eq!(driver.poll(), Ok(0));
    assert_eq!(driver.take(), Ok(None));

    memory.write_available(0, SIZE);
    device.poll().unwrap();
    assert!(device.take(&space(64), &mut segments).is_err());
    assert!(device.take(&space(64), &mut segments).is_err());
    memory.write_used(0, 0, 0);
    assert!(driver.poll().is_err());
    assert!(driver.take().is_err());
}

fn failed_chains_leak_nothing<D: DriverFormat, V: DeviceFormat>(
    mut driver: DriverQueue<D, u16, Vec<DriverSlot<u16>>>,
    mut device: DeviceQueue<V, Vec<DeviceSlot>>,
) {
    let space = space(64);
    let mut segments = [Buffer::default(); SIZE as usize];
    for round in 0..3 * SIZE {
        for _ in 0..2 {
            driver.add(&[BUFFER, NOWHERE], &[BUFFER], round).unwrap();
        }
        let _ = driver.publish();
        device.poll().unwrap();
        let chain = device.take(&space, &mut segments).unwrap().unwrap();
        let error = chain.read(&space, 0, &mut [0; 16]).unwrap_err();
        if round % 2 == 0 {
            // The device has an answer for requests that fail, and goes on.
            device.complete(chain, 0).unwrap();
            let chain = device.take(&space, &mut segments).unwrap().unwrap();
            device.complete(chain, 0).unwrap();
            let _ = device.publish();
            assert!(driver.poll().unwrap() > 0);
            while driver.take().unwrap().is_some() {}
        } else {
            // It has none, and stops.
            device.fail(chain, error);
            device.reset();
            let mut returned = 0;
            driver.reset(|_| returned += 1);
            assert_eq!(returned, 2);
        }
        assert_eq!(driver.free(), driver.capacity(), "round {round}");
    }
}

#[test]
fn defect_6_the_head_of_a_failed_chain_is_not_leaked() {
    let memory = Memory::new(SIZE);
    let features = Features::empty();
    failed_chains_leak_nothing(memory.driver(features), memory.device(features));
}

#[test]
fn defect_6_the_id_of_a_failed_packed_chain_is_not_leaked() {
    let memory = packed_ring::Memory::new(SIZE);
    let features = Features::empty();
    failed_chains_leak_nothing(memory.driver(features), memory.device(features));
}

#[test]
fn defect_6_the_tag_of_a_failed_chain_is_not_leaked() {
    let memory = tagged_ring::Memory::new(SIZE);
    let features = Features::empty();
    failed_chains_leak_nothing(memory.driver(features), memory.device(features));
}

#[test]
fn defect_7_no_id_makes_a_side_panic() {
    let space = space(64);
    let mut segments = [Buffer::default(); SIZE as usize];
    for head in [SIZE, SIZE + 1, 255, 256, 32767, 32768, u16::MAX] {
        let memory = Memory::new(SIZE);
        let mut device = memory.device(Features::empty());
        memory.write_available(0, head);
        device.poll().unwrap();
        let fault = device.take(&space, &mut segments).unwrap_err();
        assert!(matches!(fault, DeviceFault::Head { head: at, .. } if at == head));

        device.reset();
        memory.write_descriptor(3, BUFFER, 1, head);
        memory.write_available(0, 3);
        device.poll().unwrap();
        let fault = device.take(&space, &mut segments).unwrap_err();
        let DeviceFault::Chain { reason, .. } = fault else {
            panic!("{fault:?}");
        };
        assert!(matches!(reason, ChainError::Next { next, .. } if next == head));
    }
    for id in [1, 7, 8, 255, 65535, 65536, 1 << 31, u32::MAX] {
        let memory = Memory::new(SIZE);
        let mut driver = memory.driver(Features::empty());
        driver.add(&[BUFFER], &[], ()).unwrap();
        let _ = driver.publish();
        memory.write_used(0, id, 0);
        driver.poll().unwrap();
        assert_eq!(driver.take(), Err(DriverFault::NotLent { position: 0, id }));
    }
}

#[test]
fn defect_8_the_driver_believes_no_id_and_no_length() {
    let with_two_chains = || {
        let memory = Memory::new(SIZE);
        let mut driver = memory.driver(Features::empty());
        driver.add(&[BUFFER], &[BUFFER, BUFFER], "first").unwrap();
        driver.add(&[BUFFER], &[], "second").unwrap();
        let _ = driver.publish();
        (memory, driver)
    };
    // Chains are 0 (with 1 and 2) and 3.
    let (memory, mut driver) = with_two_chains();
    memory.write_used(0, 0, 16);
    memory.write_used(1, 0, 0);
    assert_eq!(driver.poll(), Ok(2));
    assert_eq!(driver.take().unwrap().unwrap().cookie, "first");
    assert_eq!(
        driver.take(),
        Err(DriverFault::NotLent { position: 1, id: 0 }),
        "completed twice"
    );

    for id in [1, 2, 4] {
        let (memory, mut driver) = with_two_chains();
        memory.write_used(0, id, 0);
        driver.poll().unwrap();
        assert_eq!(
            driver.take(),
            Err(DriverFault::NotLent { position: 0, id }),
            "never lent as a chain's head"
        );
    }
    for (id, written, writable) in [(0, 17, 16), (3, 1, 0), (0, u32::MAX, 16)] {
        let (memory, mut driver) = with_two_chains();
        memory.write_used(0, u32::from(id), written);
        driver.poll().unwrap();
        assert_eq!(
            driver.take(),
            Err(DriverFault::TooLong {
                position: 0,
                id,
                written,
                writable
            })
        );
        // The cookie is not lost.
        let mut returned = Vec::new();
        driver.reset(|cookie| returned.push(cookie));
        assert_eq!(returned, ["first", "second"]);
    }
}

#[test]
fn defect_10_indices_are_single_accesses_and_each_place_has_one_width() {
    for (memory, element) in [(Memory::new(SIZE), 8), (Memory::with_halves(SIZE), 4)] {
        let (driver_writes, device_writes) = (Widths::default(), Widths::default());
        let areas = memory.probed(driver_writes.clone(), device_writes.clone());
        let features = Features::EVENT_IDX;
        let mut driver = DriverQueue::with_heap(DriverRing::new(areas.clone(), features).unwrap());
        let mut device = DeviceQueue::with_heap(DeviceRing::new(areas, features).unwrap());
        let mut segments = [Buffer::default(); SIZE as usize];
        let space = space(64);
        for round in 0..3 * SIZE {
            driver.add(&[BUFFER], &[BUFFER], round).unwrap();
            let _ = driver.publish();
            device.poll().unwrap();
            let chain = device.take(&space, &mut segments).unwrap().unwrap();
            device.complete(chain, u32::from(round % 8)).unwrap();
            let _ = device.publish();
            driver.poll().unwrap();
            assert_eq!(driver.take().unwrap().unwrap().cookie, round);
            let _ = (driver.enable_notifications(), device.enable_notifications());
        }
        let driver_widths = driver_writes.found();
        let available = memory.layout.available_offset();
        assert_eq!(driver_widths[&(available + 2)], 2);
        assert!(
            driver_widths
                .range(..available)
                .all(|(_, bytes)| *bytes == 8)
        );
        let device_widths = device_writes.found();
        assert_eq!((device_widths[&0], device_widths[&2]), (2, 2));
        let elements = device_widths.range(4..memory.layout.avail_event_offset());
        assert!(elements.clone().all(|(_, bytes)| *bytes == element));
        assert_eq!(elements.count() * element, 8 * usize::from(SIZE));
        assert_eq!(device_widths[&memory.layout.avail_event_offset()], 2);
    }
}

#[test]
fn defect_12_a_batch_reads_the_index_once_and_each_word_once() {
    let memory = Memory::new(SIZE);
    let (driver_writes, device_writes) = (Counting::default(), Counting::default());
    let areas = memory.probed(driver_writes.clone(), device_writes.clone());
    let mut driver =
        DriverQueue::with_heap(DriverRing::new(areas.clone(), Features::empty()).unwrap());
    let mut device = DeviceQueue::with_heap(DeviceRing::new(areas, Features::empty()).unwrap());
    let mut segments = [Buffer::default(); SIZE as usize];
    let space = space(64);
    let entries = u64::from(SIZE);
    for lap in 0..3 {
        let stores = driver_writes.stores();
        for _ in 0..SIZE {
            driver.add(&[BUFFER], &[], ()).unwrap();
        }
        let _ = driver.publish();
        // Two words a descriptor and one index; the entries are stored in the first lap and stay as they are.
        let entries_stored = if lap == 0 { entries } else { 0 };
        assert_eq!(
            driver_writes.stores() - stores,
            2 * entries + 1 + entries_stored
        );

        let (loads, stores) = (driver_writes.loads(), device_writes.stores());
        device.poll().unwrap();
        while let Some(chain) = device.take(&space, &mut segments).unwrap() {
            device.complete(chain, 0).unwrap();
        }
        assert_eq!(driver_writes.loads() - loads, 1 + entries + 2 * entries);
        let _ = device.publish();
        assert_eq!(device_writes.stores() - stores, 1 + entries_stored);

        let loads = device_writes.loads();
        driver.poll().unwrap();
        while driver.take().unwrap().is_some() {}
        assert_eq!(device_writes.loads() - loads, 1 + entries);
    }
}
