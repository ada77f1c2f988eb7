//! What virtio 1.4 demands of chains, in every format: their bounds, the order of their buffers, and that messages lie in
//! them as they like.

mod support;

use shmbus_ring::{
    AddError, Buffer, DeviceFormat, DeviceQueue, DeviceSlot, DriverFormat, DriverQueue, DriverSlot,
    packed, split, tagged,
};
use shmbus_shm::testing::Probed;
use shmbus_shm::{Bytes, OffsetSpace, heap};
use shmbus_virtio::Features;
use support::heap_ring::{Memory, space};
use support::stores::Stores;
use support::{packed_ring, tagged_ring};

const SIZE: u16 = 16;
const INDIRECT: Features = Features::INDIRECT_DESC;

type Driver<D> = DriverQueue<D, u32, Vec<DriverSlot<u32>>>;
type Device<V> = DeviceQueue<V, Vec<DeviceSlot>>;

/// Chains that are too long are refused, and what is refused leaves no trace.
fn bounds_are_kept<D: DriverFormat>(mut driver: Driver<D>, stores: &Stores) {
    let tables = space(4096);
    let table = Bytes::new(tables.window(), 0, 4096).unwrap();
    let half = Buffer::new(0, 1 << 31);
    let byte = Buffer::new(0, 1);
    driver.add(&[half], &[half], 0).unwrap();
    driver
        .add_indirect(&[half, half], &[], &table, 0, 1)
        .unwrap();
    let _ = driver.publish();

    let before = (driver.free(), driver.positions());
    stores.since();
    for (readable, writable) in [
        (&[half, half][..], &[byte][..]),
        (&[half], &[half, byte]),
        (&[], &[half, half, byte]),
    ] {
        let refused = driver.add(readable, writable, 2).unwrap_err();
        assert_eq!(refused.reason, AddError::TooManyBytes);
        let refused = driver.add_indirect(readable, writable, &table, 0, 2);
        assert_eq!(refused.unwrap_err().reason, AddError::TooManyBytes);
    }
    let too_many = |needed, limit: u16| AddError::TooManyDescriptors {
        needed,
        limit: usize::from(limit),
    };
    // One more than the ring takes, and than a table may have: the queue's size.
    let capacity = driver.capacity();
    for (needed, readable) in [(17, 17), (17, 9), (17, 0), (usize::from(capacity) + 1, 3)] {
        let buffers = vec![byte; needed];
        let (readable, writable) = buffers.split_at(readable);
        let refused = driver.add(readable, writable, 3).unwrap_err();
        assert_eq!(refused.reason, too_many(needed, capacity));
        if needed > usize::from(SIZE) {
            let refused = driver.add_indirect(readable, writable, &table, 0, 3);
            assert_eq!(refused.unwrap_err().reason, too_many(needed, SIZE));
        }
    }
    assert!(!driver.publish().is_needed());
    assert_eq!(stores.since(), []);
    assert_eq!((driver.free(), driver.positions()), before);
}

/// A chain for which there is no room is not begun.
fn chains_are_placed_whole<D: DriverFormat>(mut driver: Driver<D>, stores: &Stores) {
    let buffers = [Buffer::new(0, 1); SIZE as usize];
    let capacity = driver.capacity();
    for taken in 0..=capacity {
        driver.reset(|_| ());
        for _ in 0..taken {
            driver.add(&buffers[..1], &[], 0).unwrap();
        }
        let free = capacity - taken;
        stores.since();
        for needed in free + 1..=capacity {
            let refused = driver.add(&buffers[..usize::from(needed)], &[], 1);
            assert_eq!(
                refused.unwrap_err().reason,
                AddError::Full {
                    needed: usize::from(needed),
                    free
                }
            );
        }
        assert_eq!(stores.since(), []);
        if free > 0 {
            driver.add(&buffers[..usize::from(free)], &[], 2).unwrap();
        }
        assert_eq!(driver.free(), 0);
    }
}

/// All ways to cut `len` bytes from `at` on into buffers, with a byte between any two.
fn cuts(at: u64, len: u32) -> impl Iterator<Item = Vec<Buffer>> {
    (0..1_u32 << (len - 1)).map(move |cut| {
        let mut buffers = vec![Buffer::new(at, 1)];
        for byte in 1..len {
            let last = buffers.last_mut().unwrap();
            if cut >> (byte - 1) & 1 == 0 {
                last.len += 1;
            } else {
                let next = last.address + u64::from(last.len) + 1;
                buffers.push(Buffer::new(next, 1));
            }
        }
        buffers
    })
}

/// A request is read, and an answer written, however they are cut; what is written goes to writable buffers alone.
fn framing_does_not_matter<D: DriverFormat, V: DeviceFormat>(
    mut driver: Driver<D>,
    mut device: Device<V>,
) {
    const REQUEST: [u8; 6] = *b"framed";
    const ANSWER: [u8; 5] = *b"reply";
    let stores = Stores::default();
    let memory = heap(1024);
    let space = OffsetSpace::new(Probed::new(memory.clone(), stores.clone()));
    let mut segments = [Buffer::default(); SIZE as usize];
    let table = Bytes::new(&memory, 512, 256).unwrap();
    // Under Miri some of the ways will do.
    let some = if cfg!(miri) { 5 } else { 1 };
    for readable in cuts(0, REQUEST.len() as u32).step_by(some) {
        let mut from = &REQUEST[..];
        for buffer in &readable {
            let (piece, rest) = from.split_at(buffer.len as usize);
            Bytes::new(&memory, buffer.address as usize, piece.len())
                .unwrap()
                .copy_from(0, piece);
            from = rest;
        }
        for (round, writable) in (0..).zip(cuts(64, ANSWER.len() as u32).step_by(some)) {
            if round % 2 == 0 {
                driver.add(&readable, &writable, round).unwrap();
            } else {
                driver
                    .add_indirect(&readable, &writable, &table, 512, round)
                    .unwrap();
            }
            let _ = driver.publish();
            device.poll().unwrap();
            let chain = device.take(&space, &mut segments).unwrap().unwrap();
            assert_eq!(
                (chain.readable(), chain.writable()),
                (&readable[..], &writable[..])
            );
            let mut request = [0; 8];
            assert_eq!(chain.read(&space, 0, &mut request), Ok(6));
            assert_eq!(request[..6], REQUEST);
            assert_eq!(chain.read(&space, 4, &mut request), Ok(2));
            assert_eq!(request[..2], REQUEST[4..]);
            stores.since();
            // More than there is room for.
            assert_eq!(chain.write(&space, 0, b"reply and more"), Ok(5));
            let expected = writable
                .iter()
                .flat_map(|buffer| buffer.address..buffer.address + u64::from(buffer.len))
                .zip(ANSWER)
                .map(|(address, byte)| (address as usize, 1, u64::from(byte)));
            let found = stores.since();
            assert!(
                found
                    .iter()
                    .map(|store| (store.offset, store.bytes, store.value))
                    .eq(expected),
                "{found:?}"
            );
            device.complete(chain, 5).unwrap();
            let _ = device.publish();
            driver.poll().unwrap();
            let used = driver.take().unwrap().unwrap();
            assert_eq!((used.cookie, used.written), (round, 5));
        }
    }
}

#[test]
fn the_bounds_of_chains_are_kept_in_a_split_ring() {
    let stores = Stores::default();
    let areas = Memory::new(SIZE).probed(stores.clone(), Stores::default());
    let ring = split::DriverRing::new(areas, INDIRECT).unwrap();
    bounds_are_kept(DriverQueue::with_heap(ring), &stores);
}

#[test]
fn the_bounds_of_chains_are_kept_in_a_packed_ring() {
    let stores = Stores::default();
    let probe = || stores.clone();
    let areas = packed_ring::Memory::new(SIZE).probed(probe(), probe(), probe());
    let ring = packed::DriverRing::new(areas, INDIRECT).unwrap();
    bounds_are_kept(DriverQueue::with_heap(ring), &stores);
}

#[test]
fn the_bounds_of_chains_are_kept_in_a_tagged_ring() {
    let stores = Stores::default();
    let probe = || stores.clone();
    let areas = tagged_ring::Memory::new(SIZE).probed(probe(), probe(), probe());
    let ring = tagged::DriverRing::new(areas, INDIRECT).unwrap();
    bounds_are_kept(DriverQueue::with_heap(ring), &stores);
}

#[test]
fn chains_are_placed_whole_or_not_at_all_in_a_split_ring() {
    let stores = Stores::default();
    let areas = Memory::new(SIZE).probed(stores.clone(), Stores::default());
    let ring = split::DriverRing::new(areas, INDIRECT).unwrap();
    chains_are_placed_whole(DriverQueue::with_heap(ring), &stores);
}

#[test]
fn chains_are_placed_whole_or_not_at_all_in_a_packed_ring() {
    let stores = Stores::default();
    let probe = || stores.clone();
    let areas = packed_ring::Memory::new(SIZE).probed(probe(), probe(), probe());
    let ring = packed::DriverRing::new(areas, INDIRECT).unwrap();
    chains_are_placed_whole(DriverQueue::with_heap(ring), &stores);
}

#[test]
fn chains_are_placed_whole_or_not_at_all_in_a_tagged_ring() {
    let stores = Stores::default();
    let probe = || stores.clone();
    let areas = tagged_ring::Memory::new(SIZE).probed(probe(), probe(), probe());
    let ring = tagged::DriverRing::new(areas, INDIRECT).unwrap();
    chains_are_placed_whole(DriverQueue::with_heap(ring), &stores);
}

#[test]
fn messages_in_a_split_ring_are_framed_in_any_way() {
    let memory = Memory::new(SIZE);
    framing_does_not_matter(memory.driver(INDIRECT), memory.device(INDIRECT));
}

#[test]
fn messages_in_a_packed_ring_are_framed_in_any_way() {
    let memory = packed_ring::Memory::new(SIZE);
    framing_does_not_matter(memory.driver(INDIRECT), memory.device(INDIRECT));
}

#[test]
fn messages_in_a_tagged_ring_are_framed_in_any_way() {
    let memory = tagged_ring::Memory::new(SIZE);
    framing_does_not_matter(memory.driver(INDIRECT), memory.device(INDIRECT));
}
