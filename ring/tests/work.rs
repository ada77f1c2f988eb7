//! How much a call may do at most, as the documentation of the two queues says: every access of the ring's memory is
//! counted, over an honest peer and over one whose memory changes between any two loads.

#![cfg(not(miri))] // counting does not depend on the memory model, and takes long under it

mod support;

use proptest::prelude::*;
use shmbus_ring::{Buffer, ChainError, DeviceFault, DeviceFormat, DeviceQueue, DeviceSlot};
use shmbus_ring::{DriverFormat, DriverQueue, DriverSlot, RingFeatures, packed, split, tagged};
use shmbus_shm::testing::{Counting, Hostile, Probed};
use shmbus_shm::{Bytes, Mapped, OffsetSpace, heap};
use shmbus_virtio::{Features, PrivateFeatures};
use support::{IN_ORDER, heap_ring, packed_ring, tagged_ring};

const SIZE: u16 = 32;
const MOST_BUFFERS: usize = 20;
/// More than a chain may ever need.
const MOST_SCRATCH: usize = 2 * SIZE as usize;
/// An indirect table has room for the longest chain that is tried.
const TABLE_BYTES: usize = 16 * 2 * MOST_BUFFERS;
/// Tables lie here, one for each chain; and buffers, anywhere.
const OTHER_BYTES: usize = TABLE_BYTES * SIZE as usize;

type Probe = (Counting, Hostile);
type Driver<D> = DriverQueue<D, (), Vec<DriverSlot<()>>>;
type Device<V> = DeviceQueue<V, Vec<DeviceSlot>>;

/// Accesses of the ring, and bytes that were copied out of or into other memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Work {
    loads: u64,
    stores: u64,
    bytes: u64,
}

impl Work {
    fn assert_at_most(self, loads: u64, stores: u64, bytes: u64) {
        assert!(
            self.loads <= loads && self.stores <= stores && self.bytes <= bytes,
            "{self:?}, which is more than {loads} loads, {stores} stores, {bytes} bytes"
        );
    }
}

/// What a side sees of memory, lied to and counted.
#[derive(Clone, Debug)]
struct Meter {
    ring: Probe,
    other: Probe,
}

impl Meter {
    fn new(case: &Case) -> Self {
        let probe = || (Counting::default(), Hostile::new(case.seed, case.lies));
        Self {
            ring: probe(),
            other: probe(),
        }
    }

    fn measure<T>(&self, call: impl FnOnce() -> T) -> (T, Work) {
        let (ring, other) = (&self.ring.0, &self.other.0);
        let now = || [ring.loads(), ring.stores(), other.loads() + other.stores()];
        let before = now();
        let result = call();
        let after = now();
        let work = Work {
            loads: after[0] - before[0],
            stores: after[1] - before[1],
            bytes: after[2] - before[2],
        };
        (result, work)
    }
}

/// What honest peers cost exactly, where the formats differ.
#[derive(Clone, Copy, Debug)]
struct Costs {
    /// Loads of a chain, apart from two for each of its descriptors.
    chain: u64,
    /// Accesses of a used element.
    element: u64,
    /// Stores that keep the device from going on behind what is published.
    wall: u64,
    in_order: bool,
}

#[derive(Clone, Debug)]
struct Shape {
    readable: usize,
    writable: usize,
    indirect: bool,
}

impl Shape {
    fn buffers(&self) -> [Vec<Buffer>; 2] {
        [self.readable, self.writable].map(|count| vec![Buffer::new(0, 4); count])
    }

    fn descriptors(&self) -> u64 {
        (self.readable + self.writable) as u64
    }
}

#[derive(Clone, Debug)]
struct Case {
    /// The chains of each batch; those that do not fit are left out.
    batches: Vec<Vec<Shape>>,
    /// Those that every ring type has, and those that the split ring has in addition.
    everywhere: Features,
    split: RingFeatures,
    halves: bool,
    /// How many of 256 loads find what is not there.
    lies: u8,
    seed: u64,
    /// How many descriptors of a chain the device takes.
    scratch: usize,
    /// Whether chains are completed back to front.
    reversed: bool,
}

fn cases() -> impl Strategy<Value = Case> {
    let counts = (0..=MOST_BUFFERS, 0..=MOST_BUFFERS, any::<bool>());
    let shape = counts.prop_map(|(readable, writable, indirect)| Shape {
        readable,
        writable,
        indirect,
    });
    (
        prop::collection::vec(prop::collection::vec(shape, 1..10), 1..10),
        any::<[bool; 5]>(),
        prop_oneof![Just(0), any::<u8>()],
        any::<u64>(),
        prop_oneof![Just(MOST_SCRATCH), 0..usize::from(SIZE)],
    )
        .prop_map(
            |(batches, [event_idx, notify, indices, halves, reversed], lies, seed, scratch)| {
                let mut everywhere = Features::INDIRECT_DESC;
                everywhere.set(Features::EVENT_IDX, event_idx);
                let mut split = RingFeatures::default();
                split.virtio.set(Features::NOTIFY_ON_EMPTY, notify);
                split.private.set(PrivateFeatures::PUBLISH_INDICES, indices);
                Case {
                    batches,
                    everywhere,
                    split,
                    halves,
                    lies,
                    seed,
                    scratch,
                    reversed,
                }
            },
        )
}

/// Lends a batch; returns what fitted.
fn lend<D: DriverFormat>(driver: &mut Driver<D>, tables: &Mapped, batch: &[Shape]) -> Vec<Shape> {
    let mut lent = Vec::new();
    for (number, shape) in batch.iter().enumerate() {
        let [readable, writable] = shape.buffers();
        let added = if shape.indirect {
            let address = number * TABLE_BYTES;
            let table = Bytes::new(tables, address, TABLE_BYTES).unwrap();
            driver.add_indirect(&readable, &writable, &table, address as u64, ())
        } else {
            driver.add(&readable, &writable, ())
        };
        if added.is_ok() {
            lent.push(shape.clone());
        }
    }
    let _ = driver.publish();
    lent
}

fn device_works<D: DriverFormat, V: DeviceFormat>(
    mut driver: Driver<D>,
    mut device: Device<V>,
    meter: &Meter,
    case: &Case,
    costs: Costs,
) {
    let tables = heap(OTHER_BYTES);
    let space = OffsetSpace::new(Probed::new(tables.clone(), meter.other.clone()));
    let honest = case.lies == 0;
    // One more is looked at before a chain is refused.
    let longest = case.scratch.min(device.size().into()) as u64 + 1;
    for batch in &case.batches {
        let mut lent = lend(&mut driver, &tables, batch).into_iter();
        let (_, work) = meter.measure(|| device.poll());
        work.assert_at_most(1, 0, 0);
        let mut heads = Vec::new();
        loop {
            let mut segments = [Buffer::default(); MOST_SCRATCH];
            let segments = &mut segments[..case.scratch];
            let (taken, work) = meter.measure(|| device.take(&space, segments));
            work.assert_at_most(2 * longest + 1, 1, 256 * longest);
            let Ok(Some(chain)) = taken else {
                break;
            };
            let descriptors = (chain.readable().len() + chain.writable().len()) as u64;
            work.assert_at_most(2 * descriptors + 1, 1, 256 * descriptors);
            if honest {
                let shape = lent.next().unwrap();
                assert_eq!(descriptors, shape.descriptors());
                let (direct, bytes) = if shape.indirect {
                    (1, 16 * descriptors)
                } else {
                    (descriptors, 0)
                };
                assert_eq!((work.loads, work.bytes), (2 * direct + costs.chain, bytes));
            }
            heads.push(chain.into_head());
        }
        if case.reversed {
            heads.reverse();
        }
        let shown = heads.len() as u64;
        for head in heads {
            let written = u32::try_from(head.writable_bytes()).unwrap_or(u32::MAX);
            let (completed, work) = meter.measure(|| device.complete(head, written));
            completed.unwrap();
            work.assert_at_most(0, costs.element, 0);
        }
        let (_, work) = meter.measure(|| device.publish());
        work.assert_at_most(2, 2 * shown + 1, 0);
        if honest && costs.in_order {
            // One used element for all of them.
            work.assert_at_most(2, costs.element + 1, 0);
        }
        let (_, work) = meter.measure(|| device.enable_notifications());
        work.assert_at_most(1, 1, 0);
        let ((), work) = meter.measure(|| device.disable_notifications());
        work.assert_at_most(0, 1, 0);

        let _ = driver.poll();
        while driver.take().is_ok_and(|used| used.is_some()) {}
        if device.fault().is_some() || driver.fault().is_some() {
            device.reset();
            driver.reset(|()| ());
        }
    }
}

fn driver_works<D: DriverFormat, V: DeviceFormat>(
    mut driver: Driver<D>,
    mut device: Device<V>,
    meter: &Meter,
    case: &Case,
    costs: Costs,
) {
    let tables = heap(OTHER_BYTES);
    let counted = Probed::new(tables.clone(), meter.other.clone());
    let space = OffsetSpace::new(tables);
    for batch in &case.batches {
        for (number, shape) in batch.iter().enumerate() {
            let [readable, writable] = shape.buffers();
            let descriptors = shape.descriptors();
            if shape.indirect {
                let address = number * TABLE_BYTES;
                let table = Bytes::new(&counted, address, TABLE_BYTES).unwrap();
                let (_, work) = meter.measure(|| {
                    driver.add_indirect(&readable, &writable, &table, address as u64, ())
                });
                work.assert_at_most(0, 3, 16 * descriptors);
            } else {
                let (_, work) = meter.measure(|| driver.add(&readable, &writable, ()));
                work.assert_at_most(0, 2 * descriptors + 1, 0);
            }
        }
        let (_, work) = meter.measure(|| driver.publish());
        work.assert_at_most(1, 1 + costs.wall, 0);

        let mut heads = Vec::new();
        let mut segments = [Buffer::default(); SIZE as usize];
        let _ = device.poll();
        while let Ok(Some(chain)) = device.take(&space, &mut segments) {
            heads.push(chain.into_head());
        }
        if case.reversed {
            heads.reverse();
        }
        for head in heads {
            let written = head.writable_bytes() as u32;
            device.complete(head, written).unwrap();
        }
        let _ = device.publish();

        let (_, work) = meter.measure(|| driver.poll());
        work.assert_at_most(1, 0, 0);
        let mut loads = 0;
        loop {
            let (used, work) = meter.measure(|| driver.take());
            work.assert_at_most(2, 1, 0);
            loads += work.loads;
            if !used.is_ok_and(|used| used.is_some()) {
                break;
            }
        }
        if case.lies == 0 && costs.in_order {
            assert!(loads <= costs.element, "{loads} loads for one batch");
        }
        let (_, work) = meter.measure(|| driver.enable_notifications());
        work.assert_at_most(1, 1, 0);
        let ((), work) = meter.measure(|| driver.disable_notifications());
        work.assert_at_most(0, 1, 0);
        if device.fault().is_some() || driver.fault().is_some() {
            device.reset();
            driver.reset(|()| ());
        }
    }
}

fn split_memory(case: &Case, in_order: bool) -> (heap_ring::Memory, Costs) {
    let memory = if case.halves {
        heap_ring::Memory::with_halves(SIZE)
    } else {
        heap_ring::Memory::new(SIZE)
    };
    let costs = Costs {
        chain: 1,
        element: 1 + u64::from(case.halves),
        wall: 0,
        in_order,
    };
    (memory, costs)
}

/// Descriptors carry their own publication.
const ONE_RING: Costs = Costs {
    chain: 0,
    element: 1,
    wall: 0,
    in_order: false,
};

/// A loop of descriptors is as long as the longest chain, however much scratch memory there is.
#[test]
fn a_loop_is_followed_as_far_as_the_queue_is_long() {
    let next = 1_u16;
    let indirect = 4_u16;
    let loops = [(0, next), (16, indirect)];
    for (len, flags) in loops {
        let memory = heap_ring::Memory::new(SIZE);
        let counting = Counting::default();
        let areas = memory.probed(counting.clone(), counting.clone());
        let device = split::DeviceRing::new(areas, Features::INDIRECT_DESC).unwrap();
        let mut device = DeviceQueue::with_heap(device);
        memory.write_descriptor(0, Buffer::new(0, len), flags, 0);
        memory.write_available(0, 0);
        // The first descriptor of either table names itself as the next.
        let table = heap(16);
        heap_ring::set(&table, 8, u64::from(next) << 32);
        let copied = Counting::default();
        let space = OffsetSpace::new(Probed::new(table, copied.clone()));

        assert_eq!(device.poll(), Ok(1));
        let before = counting.loads();
        let mut segments = [Buffer::default(); MOST_SCRATCH];
        let fault = device.take(&space, &mut segments).unwrap_err();
        let limit = usize::from(SIZE);
        let reason = ChainError::TooManyDescriptors { limit };
        assert!(matches!(fault, DeviceFault::Chain { reason: found, .. } if found == reason));
        let loads = counting.loads() - before;
        let most = 2 * (u64::from(SIZE) + 1) + 1;
        assert_eq!(
            (loads, copied.loads()),
            if flags == next { (most, 0) } else { (3, 16) }
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 3 } else { 500 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn work_on_a_split_ring_is_bounded(case in cases()) {
        let (memory, costs) = split_memory(&case, false);
        let features = RingFeatures { virtio: case.everywhere | case.split.virtio, ..case.split };
        let meter = Meter::new(&case);
        let areas = || memory.probed(meter.ring.clone(), meter.ring.clone());
        let driver = split::DriverRing::new(memory.areas(), features).unwrap();
        let device = split::DeviceRing::new(areas(), features).unwrap();
        let (driver, device) = (DriverQueue::with_heap(driver), DeviceQueue::with_heap(device));
        device_works(driver, device, &meter, &case, costs);

        let driver = split::DriverRing::new(areas(), features).unwrap();
        let device = split::DeviceRing::new(memory.areas(), features).unwrap();
        let (driver, device) = (DriverQueue::with_heap(driver), DeviceQueue::with_heap(device));
        driver_works(driver, device, &meter, &case, costs);
    }

    #[test]
    fn work_on_a_split_ring_in_order_is_bounded(case in cases()) {
        let (memory, costs) = split_memory(&case, true);
        let features = RingFeatures { virtio: case.everywhere | IN_ORDER, ..case.split };
        let meter = Meter::new(&case);
        let areas = || memory.probed(meter.ring.clone(), meter.ring.clone());
        let driver = split::InOrderDriverRing::new(memory.areas(), features).unwrap();
        let device = split::InOrderDeviceRing::new(areas(), features).unwrap();
        let (driver, device) = (DriverQueue::with_heap(driver), DeviceQueue::with_heap(device));
        device_works(driver, device, &meter, &case, costs);

        let driver = split::InOrderDriverRing::new(areas(), features).unwrap();
        let device = split::InOrderDeviceRing::new(memory.areas(), features).unwrap();
        let (driver, device) = (DriverQueue::with_heap(driver), DeviceQueue::with_heap(device));
        driver_works(driver, device, &meter, &case, costs);
    }

    #[test]
    fn work_on_a_packed_ring_is_bounded(case in cases()) {
        let memory = packed_ring::Memory::new(SIZE - 1);
        let meter = Meter::new(&case);
        let probe = || meter.ring.clone();
        let areas = || memory.probed(probe(), probe(), probe());
        let device = packed::DeviceRing::new(areas(), case.everywhere).unwrap();
        let device = DeviceQueue::with_heap(device);
        device_works(memory.driver(case.everywhere), device, &meter, &case, ONE_RING);

        let driver = packed::DriverRing::new(areas(), case.everywhere).unwrap();
        let driver = DriverQueue::with_heap(driver);
        driver_works(driver, memory.device(case.everywhere), &meter, &case, ONE_RING);
    }

    #[test]
    fn work_on_a_packed_ring_in_order_is_bounded(case in cases()) {
        let memory = packed_ring::Memory::new(SIZE - 1);
        let features = case.everywhere | IN_ORDER;
        let meter = Meter::new(&case);
        let probe = || meter.ring.clone();
        let areas = || memory.probed(probe(), probe(), probe());
        let costs = Costs { in_order: true, ..ONE_RING };
        let device = packed::InOrderDeviceRing::new(areas(), features).unwrap();
        let device = DeviceQueue::with_heap(device);
        device_works(memory.in_order_driver(features), device, &meter, &case, costs);

        let driver = packed::InOrderDriverRing::new(areas(), features).unwrap();
        let driver = DriverQueue::with_heap(driver);
        driver_works(driver, memory.in_order_device(features), &meter, &case, costs);
    }

    #[test]
    fn work_on_a_tagged_ring_is_bounded(case in cases()) {
        let memory = tagged_ring::Memory::new(SIZE);
        let meter = Meter::new(&case);
        let probe = || meter.ring.clone();
        let costs = Costs { wall: 1, ..ONE_RING };
        let areas = || memory.probed(probe(), probe(), probe());
        let device = tagged::DeviceRing::new(areas(), case.everywhere).unwrap();
        let device = DeviceQueue::with_heap(device);
        device_works(memory.driver(case.everywhere), device, &meter, &case, costs);

        let driver = tagged::DriverRing::new(areas(), case.everywhere).unwrap();
        let driver = DriverQueue::with_heap(driver);
        driver_works(driver, memory.device(case.everywhere), &meter, &case, costs);
    }
}
