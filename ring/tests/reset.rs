//! A queue that is reset, and enabled again (virtio 1.4, section 2.6.1), of every type.

mod support;

use shmbus_ring::{
    Buffer, CompleteError, DeviceFormat, DeviceQueue, DeviceSlot, DriverFormat, DriverQueue,
    DriverSlot,
};
use shmbus_virtio::Features;
use support::heap_ring::{Memory, space};
use support::{packed_ring, tagged_ring};

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
