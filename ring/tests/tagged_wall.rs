//! What a tagged ring's memory holds, step by step: the wall behind what is published, the order of stores, completions
//! in place; and what would happen without the wall.

mod support;

use std::sync::{Arc, Mutex};

use shmbus_ring::record::{RecordLayout, Recorded};
use shmbus_ring::tagged::{DeviceRing, DriverRing};
use shmbus_ring::{Buffer, DeviceFault, DeviceFormat, DeviceQueue, DeviceSlot, DriverQueue};
use shmbus_shm::testing::{Counting, Probe, Probed};
use shmbus_shm::{Window, heap};
use shmbus_virtio::Features;
use support::heap_ring::space;
use support::tagged_ring::{AVAILABLE, CLAIMED, Device, Driver, Memory, NEXT, USED, WALL, WRITE};

const BUFFER: Buffer = Buffer::new(0, 8);

/// Takes what is available; returns the chains' heads.
fn take_all<W: Window>(device: &mut Device<W>) -> Vec<shmbus_ring::ChainHead> {
    let mut segments = [Buffer::default(); 64];
    let mut heads = Vec::new();
    device.poll().unwrap();
    while let Some(chain) = device.take(&space(64), &mut segments).unwrap() {
        heads.push(chain.into_head());
    }
    heads
}

fn return_all<T, W: Window>(driver: &mut Driver<T, W>) -> Vec<T> {
    let mut cookies = Vec::new();
    driver.poll().unwrap();
    while let Some(used) = driver.take().unwrap() {
        cookies.push(used.cookie);
    }
    cookies
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
fn the_new_wall_stands_before_the_old_one_falls() {
    let memory = Memory::new(8);
    let (driver_stores, device_stores) = (Stores::default(), Stores::default());
    let areas =
        |stores: &Stores| memory.probed(stores.clone(), Stores::default(), Stores::default());
    let mut driver =
        DriverQueue::with_heap(DriverRing::new(areas(&driver_stores), Features::empty()).unwrap());
    let mut device =
        DeviceQueue::with_heap(DeviceRing::new(areas(&device_stores), Features::empty()).unwrap());
    driver_stores.since();
    let place = |at: usize| 16 * (at % 8);
    let (address, label) = (|at| (place(at), 8), |at| (place(at) + 8, 8));
    for start in [0, 5, 10, 15] {
        driver.add(&[BUFFER], &[BUFFER], ()).unwrap();
        driver.add(&[BUFFER], &[], ()).unwrap();
        driver.add(&[BUFFER], &[BUFFER], ()).unwrap();
        let mut expected = vec![address(start)];
        expected.extend((start + 1..start + 5).flat_map(|at| [address(at), label(at)]));
        assert_eq!(driver_stores.since(), expected, "from {start}");
        let _ = driver.publish();
        let expected = [label(start + 5), label(start)];
        assert_eq!(driver_stores.since(), expected, "from {start}");

        let heads = take_all(&mut device);
        // The last that was taken comes back first: one word a chain and nothing else, the batch's first last.
        for head in heads.into_iter().rev() {
            device.complete(head, 0).unwrap();
        }
        let _ = device.publish();
        let expected = [label(start + 2), label(start + 3), label(start)];
        assert_eq!(device_stores.since(), expected, "from {start}");
        assert_eq!(return_all(&mut driver).len(), 3);
    }
}

/// Chains of every length that fits, from every place in the ring: behind the last one stands the wall.
#[test]
fn a_wall_stands_behind_what_is_published() {
    for size in [2, 4, 8, 16] {
        for len in 1..size {
            let memory = Memory::new(size);
            let mut driver = memory.driver(Features::empty());
            let mut device = memory.device(Features::empty());
            let chain = vec![BUFFER; usize::from(len)];
            for round in 0..3 * size {
                driver.add(&[], &chain, round).unwrap();
                let _ = driver.publish();
                let start = round * len;
                for at in start..start + len {
                    let next = if at + 1 < start + len { NEXT } else { 0 };
                    let (_, _, flags) = memory.label(at % size);
                    assert_eq!(flags, WRITE | next | AVAILABLE, "entry {at} of {size}");
                }
                assert_eq!(memory.label((start + len) % size).2, WALL);
                let heads = take_all(&mut device);
                assert_eq!(heads.len(), 1);
                for head in heads {
                    device.complete(head, 5).unwrap();
                }
                let _ = device.publish();
                assert_eq!(memory.label(start % size), (5, 0, USED));
                assert_eq!(return_all(&mut driver), [round]);
                for positions in [driver.positions(), device.positions()] {
                    let expected = start + len;
                    assert_eq!((positions.available, positions.used), (expected, expected));
                }
            }
        }
    }
}

/// Lets all stores through, but for walls if they are to be left out.
#[derive(Clone, Copy, Debug)]
struct Walls {
    left_out: bool,
}

impl Probe for Walls {
    fn store(&self, _: usize, _: usize, value: u64) -> bool {
        value != 0 || !self.left_out
    }
}

/// A chain of one entry and one of two come back in the other order, so that an entry that nobody writes to still says
/// AVAILABLE when the next lap comes to it. What does the device find behind the next two chains?
fn second_lap(walls: Walls) -> Result<u16, DeviceFault> {
    let memory = Memory::new(4);
    let areas = memory.probed(walls, walls, walls);
    let ring = DriverRing::new(areas, Features::empty()).unwrap();
    let mut driver = DriverQueue::with_heap(ring);
    let mut device = memory.device(Features::empty());
    driver.add(&[BUFFER], &[], "short").unwrap();
    driver.add(&[BUFFER], &[BUFFER], "long").unwrap();
    let _ = driver.publish();
    for head in take_all(&mut device).into_iter().rev() {
        device.complete(head, 0).unwrap();
    }
    let _ = device.publish();
    assert_eq!(memory.states(), [USED, AVAILABLE, USED, WALL]);
    assert_eq!(return_all(&mut driver), ["long", "short"]);

    for cookie in ["third", "fourth"] {
        driver.add(&[BUFFER], &[], cookie).unwrap();
        let _ = driver.publish();
    }
    let mut segments = [Buffer::default(); 4];
    for _ in 0..2 {
        device.poll()?;
        let chain = device.take(&space(64), &mut segments)?;
        let _ = chain.expect("it was published").into_head();
    }
    let found = device.poll()?;
    device.take(&space(64), &mut segments)?;
    Ok(found)
}

#[test]
fn without_the_wall_an_entry_of_the_last_lap_would_be_taken() {
    assert_eq!(second_lap(Walls { left_out: false }), Ok(0));
    let without = second_lap(Walls { left_out: true });
    assert!(
        matches!(without, Err(DeviceFault::Chain { position: 5, .. })),
        "{without:?}"
    );
}

/// Notes the states that are stored in an entry.
#[derive(Clone, Debug, Default)]
struct States(Arc<Mutex<Vec<u16>>>);

impl Probe for States {
    fn store(&self, offset: usize, _: usize, value: u64) -> bool {
        if offset == 8 {
            self.0.lock().unwrap().push((value >> 48) as u16);
        }
        true
    }
}

/// Whoever recovers the ring tells by it whether the completion was shown: the driver never stores that state.
#[test]
fn a_device_that_keeps_a_record_claims_a_place_before_it_shows_what_lies_there() {
    for keeps_record in [false, true] {
        let memory = Memory::new(4);
        let mut driver = memory.driver(Features::empty());
        driver.add(&[BUFFER], &[], ()).unwrap();
        let _ = driver.publish();
        let states = States::default();
        let areas = memory.probed(states.clone(), States::default(), States::default());
        let ring = DeviceRing::new(areas, Features::empty()).unwrap();
        if keeps_record {
            let record = Probed::new(heap(RecordLayout::of(&ring).bytes()), States::default());
            let ring = Recorded::with_heap(ring, &record).unwrap();
            complete_one(DeviceQueue::with_heap(ring));
            assert_eq!(*states.0.lock().unwrap(), [CLAIMED, USED]);
        } else {
            complete_one(DeviceQueue::with_heap(ring));
            assert_eq!(*states.0.lock().unwrap(), [USED]);
        }
        assert_eq!(return_all(&mut driver), [()]);
    }
}

fn complete_one<V: DeviceFormat>(mut device: DeviceQueue<V, Vec<DeviceSlot>>) {
    device.poll().unwrap();
    let mut segments = [Buffer::default(); 1];
    let chain = device.take(&space(64), &mut segments).unwrap().unwrap();
    device.complete(chain, 0).unwrap();
    let _ = device.publish();
}

#[test]
fn half_a_ring_stays_free_if_the_driver_wishes() {
    let memory = Memory::new(8);
    let ring = DriverRing::new(memory.areas(), Features::empty()).unwrap();
    let mut driver = DriverQueue::with_heap(ring.with_half_distance());
    let mut device = memory.device(Features::empty());
    assert_eq!((driver.size(), driver.capacity()), (8, 4));
    for round in 0..10 {
        while driver.add(&[BUFFER], &[BUFFER], round).is_ok() {}
        let _ = driver.publish();
        let in_use = memory.states();
        let in_use = in_use.iter().filter(|state| **state == AVAILABLE);
        assert!(in_use.count() >= 4);
        assert_eq!(
            driver
                .positions()
                .available
                .wrapping_sub(device.positions().available),
            4
        );
        for head in take_all(&mut device) {
            device.complete(head, 0).unwrap();
        }
        let _ = device.publish();
        assert_eq!(return_all(&mut driver), [round; 2]);
    }
}

/// Each call's accesses to memory that the other side writes or reads: what is needed, and nothing that grows with the
/// ring.
#[test]
fn each_call_makes_as_many_accesses_as_its_chain_needs() {
    let memory = Memory::new(64);
    let (driver_side, device_side) = (Counting::default(), Counting::default());
    let areas = |count: &Counting| memory.probed(count.clone(), count.clone(), count.clone());
    let mut driver =
        DriverQueue::with_heap(DriverRing::new(areas(&driver_side), Features::EVENT_IDX).unwrap());
    let mut device =
        DeviceQueue::with_heap(DeviceRing::new(areas(&device_side), Features::EVENT_IDX).unwrap());
    let mut segments = [Buffer::default(); 64];
    let mut driver_before = (driver_side.loads(), driver_side.stores());
    let mut driver_since = || {
        let now = (driver_side.loads(), driver_side.stores());
        let since = (now.0 - driver_before.0, now.1 - driver_before.1);
        driver_before = now;
        since
    };
    let mut device_before = (device_side.loads(), device_side.stores());
    let mut device_since = || {
        let now = (device_side.loads(), device_side.stores());
        let since = (now.0 - device_before.0, now.1 - device_before.1);
        device_before = now;
        since
    };
    for len in (1..64).cycle().take(200) {
        driver.add(&vec![BUFFER; len as usize], &[], len).unwrap();
        assert_eq!(driver_since(), (0, 2 * len - 1));
        let _ = driver.publish();
        assert_eq!(driver_since(), (1, 2), "the wish; the wall and the first");
        let _ = driver.publish();
        assert_eq!(driver_since(), (0, 0), "nothing to publish");

        device.poll().unwrap();
        assert_eq!(device_since(), (1, 0));
        let chain = device.take(&space(64), &mut segments).unwrap().unwrap();
        let chain = chain.into_head();
        assert_eq!(device_since(), (2 * len, 0), "each word once");
        assert_eq!(device.take(&space(64), &mut segments), Ok(None));
        assert_eq!(device_since(), (1, 0), "the wall");
        device.complete(chain, 0).unwrap();
        let _ = device.publish();
        assert_eq!(device_since(), (1, 1), "the wish; the completion");

        driver.poll().unwrap();
        assert_eq!(driver_since(), (1, 0));
        assert_eq!(driver.take().unwrap().unwrap().cookie, len);
        assert_eq!(driver_since(), (1, 0));
        assert_eq!(driver.take(), Ok(None));
        assert_eq!(driver_since(), (0, 0), "nothing is in flight");
    }
}
