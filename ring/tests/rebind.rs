//! A queue's memory is found at other addresses, as after a hot-plug, while chains are in flight.

#![cfg(not(miri))] // it copies a ring at another width than the ring has, which Miri does not model

mod support;

use shmbus_ring::{
    Buffer, DeviceFormat, DeviceQueue, DeviceSlot, DriverFormat, DriverQueue, DriverSlot,
    SetupError,
};
use shmbus_shm::{Bytes, Mapped, Window};
use shmbus_virtio::Features;
use support::heap_ring::{Memory, space};
use support::packed_ring;

const SIZE: u16 = 4;

type Driver<D> = DriverQueue<D, u16, Vec<DriverSlot<u16>>>;
type Device<V> = DeviceQueue<V, Vec<DeviceSlot>>;

/// Copies a memory's bytes to another, and spoils them.
fn move_bytes(from: &Mapped, to: &Mapped) {
    let mut copy = vec![0; from.len()];
    let old = Bytes::new(from, 0, from.len()).unwrap();
    old.copy_to(0, &mut copy);
    Bytes::new(to, 0, to.len()).unwrap().copy_from(0, &copy);
    old.copy_from(0, &vec![0xa5; from.len()]);
}

/// A ring's memory.
trait Moves {
    fn move_to(&self, other: &Self);
}

impl Moves for Memory {
    fn move_to(&self, other: &Self) {
        move_bytes(&self.descriptors, &other.descriptors);
        move_bytes(&self.used, &other.used);
    }
}

impl Moves for packed_ring::Memory {
    fn move_to(&self, other: &Self) {
        move_bytes(&self.window, &other.window);
    }
}

/// Goes round the ring a few times. In each round the memory moves between any two steps.
fn check<D: DriverFormat, V: DeviceFormat>(
    mut driver: Driver<D>,
    mut device: Device<V>,
    mut moves: impl FnMut(&mut Driver<D>, &mut Device<V>),
) {
    let (space, mut segments) = (space(64), [Buffer::default(); 2]);
    for number in 0..3 * SIZE {
        let buffer = Buffer::new(u64::from(number), 4);
        driver.add(&[buffer], &[buffer], number).unwrap();
        let _ = driver.publish();
        moves(&mut driver, &mut device);
        device.poll().unwrap();
        let chain = device.take(&space, &mut segments).unwrap().unwrap();
        assert_eq!(
            (chain.readable(), chain.writable()),
            (&[buffer][..], &[buffer][..])
        );
        moves(&mut driver, &mut device);
        device.complete(chain, 3).unwrap();
        let _ = device.publish();
        moves(&mut driver, &mut device);
        assert!(!driver.enable_notifications().is_empty());
        assert!(device.enable_notifications().is_empty());
        driver.poll().unwrap();
        let used = driver.take().unwrap().unwrap();
        assert_eq!((used.cookie, used.written), (number, 3));
    }
}

macro_rules! goes_on {
    ($memory:expr, $driver:ident, $device:ident, $features:expr) => {{
        let mut memory = $memory;
        let (driver, device) = (memory.$driver($features), memory.$device($features));
        check(driver, device, |driver, device| {
            let next = $memory;
            memory.move_to(&next);
            driver.rebind(next.areas()).unwrap();
            device.rebind(next.areas()).unwrap();
            memory = next;
        });
    }};
}

#[test]
fn a_split_ring_goes_on_in_memory_that_moved() {
    let features = Features::EVENT_IDX;
    goes_on!(Memory::new(SIZE), driver, device, features);
    goes_on!(
        Memory::new(SIZE),
        in_order_driver,
        in_order_device,
        features
    );
}

#[test]
fn a_packed_ring_goes_on_in_memory_that_moved() {
    let features = Features::EVENT_IDX;
    let memory = || packed_ring::Memory::new(SIZE - 1);
    goes_on!(memory(), driver, device, features);
    goes_on!(memory(), in_order_driver, in_order_device, features);
}

/// A queue's size never changes, and what is refused changes nothing.
#[test]
fn areas_of_another_size_are_refused() {
    let refused = Err(SetupError::OtherSize {
        found: 2,
        expected: SIZE,
    });
    let memory = Memory::new(SIZE);
    let (mut driver, mut device) = (
        memory.driver(Features::empty()),
        memory.device(Features::empty()),
    );
    assert_eq!(driver.rebind(Memory::new(2).areas()), refused);
    assert_eq!(device.rebind(Memory::new(2).areas()), refused);
    check(driver, device, |_, _| ());
    let memory = packed_ring::Memory::new(SIZE);
    let (mut driver, mut device) = (
        memory.driver(Features::empty()),
        memory.device(Features::empty()),
    );
    assert_eq!(driver.rebind(packed_ring::Memory::new(2).areas()), refused);
    assert_eq!(device.rebind(packed_ring::Memory::new(2).areas()), refused);
    check(driver, device, |_, _| ());
}
