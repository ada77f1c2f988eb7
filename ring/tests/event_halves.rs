//! The halves of `EVENT_IDX`: one side asks by position, and the other by flags.

mod support;

use shmbus_ring::{
    Buffer, DeviceFormat, DeviceQueue, DeviceSlot, DriverFormat, DriverQueue, DriverSlot,
    RingFeatures, packed, split,
};
use shmbus_virtio::PrivateFeatures;
use support::heap_ring::{Memory, space};
use support::{IN_ORDER, packed_ring};

const SIZE: u16 = 8;
const BUFFER: Buffer = Buffer::new(0, 8);

type Driver<D> = DriverQueue<D, (), Vec<DriverSlot<()>>>;
type Device<V> = DeviceQueue<V, Vec<DeviceSlot>>;

/// Makes one chain available; answers whether the device must be told.
fn kicks<D: DriverFormat>(driver: &mut Driver<D>) -> bool {
    driver.add(&[BUFFER], &[], ()).unwrap();
    driver.publish().is_needed()
}

/// Returns the next chain; answers whether the driver must be told.
fn calls<V: DeviceFormat>(device: &mut Device<V>) -> bool {
    device.poll().unwrap();
    let mut segments = [Buffer::default(); 1];
    let chain = device.take(&space(8), &mut segments).unwrap().unwrap();
    device.complete(chain, 0).unwrap();
    device.publish().is_needed()
}

fn take_all<D: DriverFormat>(driver: &mut Driver<D>) {
    driver.poll().unwrap();
    while driver.take().unwrap().is_some() {}
}

/// Both sides with one half: whether each is told of its wish by position, and of all that came after.
fn check<D: DriverFormat, V: DeviceFormat>(driver: D, device: V, half: PrivateFeatures) {
    let mut driver: Driver<D> = DriverQueue::with_heap(driver);
    let mut device = DeviceQueue::with_heap(device);
    for _ in 0..3 * SIZE {
        take_all(&mut driver);
        let _ = (
            driver.enable_notifications_after(3),
            device.enable_notifications(),
        );
        let told = [(); 3].map(|()| kicks(&mut driver));
        // By position of the first alone; by flags of each.
        let by_position = half == PrivateFeatures::AVAIL_EVENT;
        assert_eq!(told, [true, !by_position, !by_position]);

        assert!(driver.enable_notifications_after(3).is_empty());
        let told = [(); 3].map(|()| calls(&mut device));
        let by_position = half == PrivateFeatures::USED_EVENT;
        assert_eq!(told, [!by_position, !by_position, true]);
    }
    take_all(&mut driver);
    device.disable_notifications();
    driver.disable_notifications();
    if half == PrivateFeatures::USED_EVENT {
        assert!(!kicks(&mut driver), "its flags count");
    } else {
        kicks(&mut driver);
        assert!(!calls(&mut device), "its flags count");
    }
}

const HALVES: [PrivateFeatures; 2] = [PrivateFeatures::USED_EVENT, PrivateFeatures::AVAIL_EVENT];

#[test]
fn each_half_of_event_idx_works_alone_in_a_split_ring() {
    for half in HALVES {
        let memory = Memory::new(SIZE);
        let features = RingFeatures::default().with_private(half);
        let driver = split::DriverRing::new(memory.areas(), features).unwrap();
        let device = split::DeviceRing::new(memory.areas(), features).unwrap();
        check(driver, device, half);

        let memory = Memory::new(SIZE);
        let features = RingFeatures::from(IN_ORDER).with_private(half);
        let driver = split::InOrderDriverRing::new(memory.areas(), features).unwrap();
        let device = split::InOrderDeviceRing::new(memory.areas(), features).unwrap();
        check(driver, device, half);
    }
}

/// Of a size that no lap of three chains divides.
#[test]
fn each_half_of_event_idx_works_alone_in_a_packed_ring() {
    for half in HALVES {
        let memory = packed_ring::Memory::new(SIZE - 1);
        let features = RingFeatures::default().with_private(half);
        let driver = packed::DriverRing::new(memory.areas(), features).unwrap();
        let device = packed::DeviceRing::new(memory.areas(), features).unwrap();
        check(driver, device, half);

        let memory = packed_ring::Memory::new(SIZE - 1);
        let features = RingFeatures::from(IN_ORDER).with_private(half);
        let driver = packed::InOrderDriverRing::new(memory.areas(), features).unwrap();
        let device = packed::InOrderDeviceRing::new(memory.areas(), features).unwrap();
        check(driver, device, half);
    }
}
