//! Defects of well-known rings that concern saved state, by their numbers in the project's field notes: each has a test
//! that would catch it.

mod support;

use shmbus_ring::{
    Buffer, ChainHead, DeviceFormat, DeviceQueue, DeviceSlot, DeviceState, DriverFormat,
    DriverQueue, DriverSlot, Positions, StateError, packed, split, tagged,
};
use shmbus_virtio::Features;
use support::heap_ring::{Memory, space};
use support::{IN_ORDER, packed_ring, tagged_ring};

const SIZE: u16 = 8;
const BUFFER: Buffer = Buffer::new(0, 8);

type Driver<D> = DriverQueue<D, u32, Vec<DriverSlot<u32>>>;
type Device<V> = DeviceQueue<V, Vec<DeviceSlot>>;

fn lend<D: DriverFormat>(driver: &mut Driver<D>, cookies: impl IntoIterator<Item = u32>) {
    for cookie in cookies {
        driver.add(&[], &[BUFFER], cookie).unwrap();
    }
    let _ = driver.publish();
}

/// Takes so many of the chains that are available.
fn take<V: DeviceFormat>(device: &mut Device<V>, count: usize) -> Vec<ChainHead> {
    let mut segments = [Buffer::default(); SIZE as usize];
    device.poll().unwrap();
    (0..count)
        .map(|_| {
            let chain = device.take(&space(64), &mut segments).unwrap();
            chain.expect("a chain is available").into_head()
        })
        .collect()
}

fn complete<V: DeviceFormat>(device: &mut Device<V>, head: ChainHead) {
    device.complete(head, 8).unwrap();
    let _ = device.publish();
}

fn returned<D: DriverFormat>(driver: &mut Driver<D>) -> Vec<u32> {
    let mut cookies = Vec::new();
    while driver.poll().unwrap() > 0 {
        while let Some(used) = driver.take().unwrap() {
            cookies.push(used.cookie);
        }
    }
    cookies
}

/// The device goes on over `ring` from what `device` saved; the chains that were in flight are taken again.
fn restored<V: DeviceFormat>(mut device: Device<V>, ring: V) -> (Device<V>, Vec<ChainHead>) {
    let mut memory = vec![0; DeviceState::max_bytes(SIZE)];
    let state = device.save(&mut memory).unwrap();
    let slots = vec![DeviceSlot::new(); usize::from(SIZE)];
    let mut device = DeviceQueue::restore(ring, slots, &state).unwrap();
    let mut segments = [Buffer::default(); SIZE as usize];
    let heads = state.chains().map(|chain| {
        let chain = device.retake(chain, &space(64), &mut segments).unwrap();
        chain.expect("it was in flight").into_head()
    });
    let heads = heads.collect();
    (device, heads)
}

/// One queue of two is stopped and goes on; its state is its own, and the other takes no notice.
fn one_queue_is_saved<D: DriverFormat, V: DeviceFormat>(
    queues: [(Driver<D>, Device<V>); 2],
    ring: impl Fn() -> V,
) {
    let [
        (mut driver, mut device),
        (mut other_driver, mut other_device),
    ] = queues;
    lend(&mut driver, 0..5);
    lend(&mut other_driver, 100..103);
    let mut heads = take(&mut device, 3);
    let mut other_heads = take(&mut other_device, 2);
    complete(&mut device, heads.remove(0));
    complete(&mut other_device, other_heads.remove(0));

    let mut memory = vec![0; DeviceState::max_bytes(SIZE)];
    let state = device.save(&mut memory).unwrap();
    let Positions {
        available,
        used,
        in_flight,
    } = state.positions();
    assert_eq!((available & 7, used & 7, in_flight), (3, 1, 2));
    assert_eq!(state.chains().count(), 2);
    assert_eq!(other_device.save(&mut memory).unwrap().chains().count(), 1);
    complete(&mut other_device, other_heads.remove(0));
    other_heads = take(&mut other_device, 1);

    let (mut device, heads) = restored(device, ring());
    complete(&mut other_device, other_heads.remove(0));
    for head in heads {
        complete(&mut device, head);
    }
    for head in take(&mut device, 2) {
        complete(&mut device, head);
    }
    assert_eq!(returned(&mut driver), [0, 1, 2, 3, 4]);
    assert_eq!(returned(&mut other_driver), [100, 101, 102]);
}

#[test]
fn defect_11_one_split_queue_of_a_device_is_saved_alone() {
    let memories = [Memory::new(SIZE), Memory::new(SIZE)];
    let none = Features::empty();
    let queues = [0, 1].map(|at| (memories[at].driver(none), memories[at].device(none)));
    one_queue_is_saved(queues, || {
        split::DeviceRing::new(memories[0].areas(), none).unwrap()
    });
}

#[test]
fn defect_11_one_packed_queue_of_a_device_is_saved_alone() {
    let memories = [
        packed_ring::Memory::new(SIZE),
        packed_ring::Memory::new(SIZE),
    ];
    let none = Features::empty();
    let queues = [0, 1].map(|at| (memories[at].driver(none), memories[at].device(none)));
    one_queue_is_saved(queues, || {
        packed::DeviceRing::new(memories[0].areas(), none).unwrap()
    });
}

#[test]
fn defect_11_one_tagged_queue_of_a_device_is_saved_alone() {
    let memories = [
        tagged_ring::Memory::new(SIZE),
        tagged_ring::Memory::new(SIZE),
    ];
    let none = Features::empty();
    let queues = [0, 1].map(|at| (memories[at].driver(none), memories[at].device(none)));
    one_queue_is_saved(queues, || {
        tagged::DeviceRing::new(memories[0].areas(), none).unwrap()
    });
}

/// The used index does not say which chains came back: one that did is not handed out again, and one that did not is.
#[test]
fn defect_13_what_was_completed_out_of_order_is_not_replayed() {
    let memory = Memory::new(SIZE);
    let mut driver = memory.driver(Features::empty());
    let mut device = memory.device(Features::empty());
    lend(&mut driver, 0..4);
    let mut heads = take(&mut device, 3);
    complete(&mut device, heads.remove(1));
    let ring = split::DeviceRing::new(memory.areas(), Features::empty()).unwrap();
    let (mut device, heads) = restored(device, ring);
    assert!(heads.iter().map(ChainHead::index).eq([0, 2]));
    for head in heads.into_iter().rev() {
        complete(&mut device, head);
    }
    for head in take(&mut device, 1) {
        complete(&mut device, head);
    }
    assert_eq!(returned(&mut driver), [1, 2, 0, 3]);
    assert_eq!(driver.free(), SIZE);
}

/// Where completions lie in the place of descriptors, those of what is still in flight are overwritten.
fn what_is_overwritten_is_not_saved<D: DriverFormat, V: DeviceFormat>(
    mut driver: Driver<D>,
    mut device: Device<V>,
) {
    lend(&mut driver, 0..4);
    let mut heads = take(&mut device, 3);
    complete(&mut device, heads.remove(1));
    let mut bytes = vec![0; DeviceState::max_bytes(SIZE)];
    assert_eq!(
        device.save(&mut bytes).unwrap_err(),
        StateError::Overwritten { id: 0 }
    );
    // Nothing is lost by the attempt.
    for head in heads {
        complete(&mut device, head);
    }
    assert_eq!(returned(&mut driver), [1, 0, 2]);
}

#[test]
fn defect_13_what_a_packed_ring_cannot_replay_is_not_saved() {
    let memory = packed_ring::Memory::new(SIZE);
    let none = Features::empty();
    what_is_overwritten_is_not_saved(memory.driver(none), memory.device(none));
}

#[test]
fn defect_13_what_a_tagged_ring_cannot_replay_is_not_saved() {
    let memory = tagged_ring::Memory::new(SIZE);
    let none = Features::empty();
    what_is_overwritten_is_not_saved(memory.driver(none), memory.device(none));
}

/// With `VIRTIO_F_IN_ORDER` the used index says all: what was completed early and not shown is taken anew.
fn the_used_position_is_enough<D: DriverFormat, V: DeviceFormat>(
    mut driver: Driver<D>,
    mut device: Device<V>,
    ring: V,
) {
    lend(&mut driver, 0..4);
    let mut heads = take(&mut device, 4);
    complete(&mut device, heads.remove(0));
    complete(&mut device, heads.remove(1));
    let (mut device, heads) = restored(device, ring);
    assert_eq!(heads, []);
    for head in take(&mut device, 3) {
        complete(&mut device, head);
    }
    assert_eq!(returned(&mut driver), [0, 1, 2, 3]);
}

#[test]
fn defect_13_split_rings_in_order_are_replayed_from_the_used_index() {
    let memory = Memory::new(SIZE);
    let none = Features::empty();
    the_used_position_is_enough(
        memory.in_order_driver(none),
        memory.in_order_device(none),
        split::InOrderDeviceRing::new(memory.areas(), IN_ORDER).unwrap(),
    );
}

#[test]
fn defect_13_packed_rings_in_order_are_replayed_from_the_used_position() {
    let memory = packed_ring::Memory::new(SIZE);
    let none = Features::empty();
    the_used_position_is_enough(
        memory.in_order_driver(none),
        memory.in_order_device(none),
        packed::InOrderDeviceRing::new(memory.areas(), IN_ORDER).unwrap(),
    );
}
