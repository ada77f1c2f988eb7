//! A queue that is reset, and enabled again (virtio 1.4, section 2.6.1), of every type.

mod support;

use shmbus_ring::{
    Buffer, CompleteError, DeviceFormat, DeviceQueue, DeviceSlot, DriverFormat, DriverQueue,
    DriverSlot, packed, split, tagged,
};
use shmbus_shm::{Bytes, Mapped, Window, heap};
use shmbus_virtio::Features;
use support::heap_ring::{Memory, space};
use support::{IN_ORDER, packed_ring, tagged_ring};

const SIZE: u16 = 4;
const BUFFER: Buffer = Buffer::new(0, 8);

type Driver<D> = DriverQueue<D, u32, Vec<DriverSlot<u32>>>;
type Device<V> = DeviceQueue<V, Vec<DeviceSlot>>;

/// Sends four chains one by one, of two descriptors each: more than there is room for at once. A queue at its start
/// tells of the first; of the others, who asks.
fn work<D: DriverFormat, V: DeviceFormat>(driver: &mut Driver<D>, device: &mut Device<V>) {
    let mut segments = [Buffer::default(); 2];
    for cookie in 10..14 {
        driver.add(&[BUFFER], &[BUFFER], cookie).unwrap();
        assert!(
            driver.publish().is_needed(),
            "a new queue is told of everything"
        );
        device.poll().unwrap();
        let chain = device.take(&space(64), &mut segments).unwrap().unwrap();
        device.complete(chain, cookie % 8).unwrap();
        assert!(device.publish().is_needed());
        driver.poll().unwrap();
        let used = driver.take().unwrap().unwrap();
        assert_eq!((used.cookie, used.written), (cookie, cookie % 8));
        assert!(driver.enable_notifications().is_empty());
        assert!(device.enable_notifications().is_empty());
    }
}

/// Whatever it was in the midst of.
fn starts_over<D: DriverFormat, V: DeviceFormat>(mut driver: Driver<D>, mut device: Device<V>) {
    let mut segments = [Buffer::default(); 2];
    let start = (driver.positions(), device.positions());
    for life in 0..4 {
        work(&mut driver, &mut device);
        // One chain is completed, one in flight, one available and one not yet published. Nobody wants to be told.
        let mut lent = vec![20, 21];
        for cookie in [20, 21] {
            driver.add(&[], &[BUFFER], cookie).unwrap();
        }
        let _ = driver.publish();
        device.poll().unwrap();
        let [completed, in_flight] = [(); 2].map(|()| {
            let chain = device.take(&space(64), &mut segments).unwrap();
            chain.unwrap().into_head()
        });
        device.complete(completed, 8).unwrap();
        driver.add(&[], &[BUFFER], 22).unwrap();
        let _ = driver.publish();
        driver.add(&[], &[BUFFER], 23).unwrap();
        lent.extend([22, 23]);
        if life % 2 == 1 {
            device.poll().unwrap();
            let _ = device.publish();
            driver.poll().unwrap();
            assert_eq!(driver.take().unwrap().unwrap().cookie, 20);
            lent.remove(0);
        }
        driver.disable_notifications();
        device.disable_notifications();

        device.reset();
        let refused = device.complete(in_flight, 8).unwrap_err();
        assert!(matches!(refused.reason, CompleteError::NotTaken { .. }));
        assert!(
            !device.publish().is_needed(),
            "nothing is shown of the life before"
        );
        let mut returned = Vec::new();
        driver.reset(|cookie| returned.push(cookie));
        returned.sort();
        assert_eq!(returned, lent);
        assert_eq!((driver.positions(), device.positions()), start);
        assert_eq!(driver.free(), driver.capacity());
        assert!(
            !driver.publish().is_needed(),
            "nor is anything made available"
        );
        assert_eq!((device.poll(), driver.poll()), (Ok(0), Ok(0)));
    }
    work(&mut driver, &mut device);
}

/// Two queues of one device, side by side in its memories.
fn leaves_the_other_alone<D: DriverFormat, V: DeviceFormat>(
    memories: &[Mapped],
    mut pairs: [(Driver<D>, Device<V>); 2],
) {
    let mut segments = [Buffer::default(); 2];
    let mut heads = Vec::new();
    for (driver, device) in &mut pairs {
        // Of each, one chain is returned, one is with the device, one is available.
        for cookie in 0..3 {
            driver.add(&[], &[BUFFER], cookie).unwrap();
            let _ = driver.publish();
        }
        device.poll().unwrap();
        let [returned, taken] = [(); 2].map(|()| {
            let chain = device.take(&space(64), &mut segments).unwrap();
            chain.unwrap().into_head()
        });
        device.complete(returned, 8).unwrap();
        let _ = device.publish();
        heads.push(taken);
    }
    let [(driver, device), (other_driver, other_device)] = &mut pairs;
    let other_head = heads.pop().unwrap();
    let before = (other_driver.positions(), other_device.positions());
    let contents = memories.iter().map(second_half).collect::<Vec<_>>();

    device.reset();
    let mut returned = Vec::new();
    driver.reset(|cookie| returned.push(cookie));
    returned.sort();
    assert_eq!(returned, [0, 1, 2]);
    let refused = device.complete(heads.pop().unwrap(), 8).unwrap_err();
    assert!(matches!(refused.reason, CompleteError::NotTaken { .. }));

    let after = (other_driver.positions(), other_device.positions());
    assert_eq!(after, before);
    let kept = memories.iter().map(second_half).collect::<Vec<_>>();
    assert_eq!(kept, contents, "a byte of the other queue was written");
    work(driver, device);
    other_device.complete(other_head, 7).unwrap();
    let chain = other_device.take(&space(64), &mut segments).unwrap();
    other_device.complete(chain.unwrap(), 6).unwrap();
    let _ = other_device.publish();
    let mut written = Vec::new();
    while other_driver.poll().unwrap() > 0 {
        while let Some(used) = other_driver.take().unwrap() {
            written.push((used.cookie, used.written));
        }
    }
    assert_eq!(written, [(0, 8), (1, 7), (2, 6)]);
    assert!(other_driver.enable_notifications().is_empty());
    assert!(other_device.enable_notifications().is_empty());
    work(other_driver, other_device);
}

fn second_half(memory: &Mapped) -> Vec<u8> {
    let half = memory.len() / 2;
    let mut copy = vec![0; half];
    Bytes::new(memory, half, half)
        .unwrap()
        .copy_to(0, &mut copy);
    copy
}

/// The two halves of a memory of twice so many bytes.
fn halves(memory: &Mapped) -> [Mapped; 2] {
    let half = memory.len() / 2;
    [0, half].map(|from| memory.narrow(from, half).unwrap())
}

macro_rules! pairs {
    ($areas:expr, $format:ident, $driver:ident, $device:ident, $features:expr) => {
        $areas.map(|areas| {
            (
                DriverQueue::with_heap($format::$driver::new(areas.clone(), $features).unwrap()),
                DeviceQueue::with_heap($format::$device::new(areas, $features).unwrap()),
            )
        })
    };
}

#[test]
fn a_split_queue_is_reset_alone() {
    let layout = split::Layout::new(SIZE).unwrap();
    for features in FEATURES {
        let memories = [layout.driver_bytes(), layout.device_bytes()].map(|bytes| heap(2 * bytes));
        let areas = || {
            let [driver, device] = [&memories[0], &memories[1]].map(halves);
            [0, 1].map(|at| split::Areas::in_memories(layout, &driver[at], &device[at]).unwrap())
        };
        let plain = pairs!(areas(), split, DriverRing, DeviceRing, features);
        leaves_the_other_alone(&memories, plain);
        let features = features | IN_ORDER;
        let in_order = pairs!(
            areas(),
            split,
            InOrderDriverRing,
            InOrderDeviceRing,
            features
        );
        leaves_the_other_alone(&memories, in_order);
    }
}

#[test]
fn a_packed_queue_is_reset_alone() {
    let layout = packed::Layout::new(SIZE + 1).unwrap();
    for features in FEATURES {
        let memory = heap(2 * layout.bytes());
        let areas = || halves(&memory).map(|half| packed::Areas::in_memory(layout, &half).unwrap());
        let plain = pairs!(areas(), packed, DriverRing, DeviceRing, features);
        leaves_the_other_alone(std::slice::from_ref(&memory), plain);
        let features = features | IN_ORDER;
        let in_order = pairs!(
            areas(),
            packed,
            InOrderDriverRing,
            InOrderDeviceRing,
            features
        );
        leaves_the_other_alone(std::slice::from_ref(&memory), in_order);
    }
}

#[test]
fn a_tagged_queue_is_reset_alone() {
    let layout = tagged::Layout::new(2 * SIZE).unwrap();
    for features in FEATURES {
        let memory = heap(2 * layout.bytes());
        let areas = halves(&memory).map(|half| tagged::Areas::in_memory(layout, &half).unwrap());
        let pairs = pairs!(areas, tagged, DriverRing, DeviceRing, features);
        leaves_the_other_alone(std::slice::from_ref(&memory), pairs);
    }
}

const FEATURES: [Features; 2] = [Features::empty(), Features::EVENT_IDX];

#[test]
fn a_split_queue_starts_over() {
    for features in FEATURES {
        let memory = Memory::new(SIZE);
        starts_over(memory.driver(features), memory.device(features));
    }
}

#[test]
fn a_packed_queue_starts_over() {
    for features in FEATURES {
        let memory = packed_ring::Memory::new(SIZE);
        starts_over(memory.driver(features), memory.device(features));
    }
}

#[test]
fn a_split_queue_in_order_starts_over() {
    for features in FEATURES {
        let memory = Memory::new(SIZE);
        starts_over(
            memory.in_order_driver(features),
            memory.in_order_device(features),
        );
    }
}

#[test]
fn a_packed_queue_in_order_starts_over() {
    for features in FEATURES {
        let memory = packed_ring::Memory::new(SIZE);
        starts_over(
            memory.in_order_driver(features),
            memory.in_order_device(features),
        );
    }
}

/// One of its entries is the wall.
#[test]
fn a_tagged_queue_starts_over() {
    for features in FEATURES {
        let memory = tagged_ring::Memory::new(2 * SIZE);
        starts_over(memory.driver(features), memory.device(features));
    }
}
