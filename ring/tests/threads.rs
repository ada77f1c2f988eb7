//! Two threads over heap memory with real payload, both sides asleep whenever they may be: what Miri and
//! ThreadSanitizer run.

mod support;

use std::thread::{self, Thread};

use shmbus_ring::{
    AddError, Buffer, DeviceFormat, DeviceQueue, DeviceSlot, DriverFormat, DriverQueue, DriverSlot,
    Recheck,
};
use shmbus_shm::{Bytes, Mapped, Notify, OffsetSpace};
use shmbus_virtio::Features;
use support::heap_ring::{Memory, bytes, space};
use support::{packed_ring, tagged_ring};

const SIZE: u16 = 8;
const PIECE: u64 = 512;
const CHAINS: u32 = if cfg!(miri) { 60 } else { 20_000 };

/// Thread parking stands for the channel: a token that is kept if it comes before the sleep.
fn ring(notify: Notify, peer: &Thread) -> u64 {
    if notify.is_needed() {
        peer.unpark();
    }
    u64::from(notify.is_needed())
}

type Driver<D> = DriverQueue<D, (u32, u64), Vec<DriverSlot<(u32, u64)>>>;
type Device<V> = DeviceQueue<V, Vec<DeviceSlot>>;

/// Answers each request with its bytes, inverted; in batches, every other one completed back to front.
fn serve<V: DeviceFormat>(
    mut device: Device<V>,
    space: OffsetSpace<Mapped>,
    driver: Thread,
) -> u64 {
    let mut segments = [Buffer::default(); SIZE as usize];
    let mut batch = Vec::new();
    let (mut served, mut notified) = (0, 0);
    while served < CHAINS {
        device.disable_notifications();
        device.poll().unwrap();
        while let Some(chain) = device.take(&space, &mut segments).unwrap() {
            let mut request = vec![0; chain.readable_bytes() as usize];
            chain.read(&space, 0, &mut request).unwrap();
            let answer: Vec<u8> = request.iter().map(|byte| !byte).collect();
            let written = chain.write(&space, 0, &answer).unwrap();
            batch.push((chain.into_head(), written as u32));
        }
        if served % 2 == 0 {
            batch.reverse();
        }
        served += batch.len() as u32;
        for (head, written) in batch.drain(..) {
            device.complete(head, written).unwrap();
        }
        notified += ring(device.publish(), &driver);
        if served < CHAINS && device.enable_notifications() == Recheck::Empty {
            thread::park();
        }
    }
    notified
}

fn request(number: u32) -> Vec<u8> {
    let len = 1 + number as usize % 40;
    (0..len)
        .map(|at| (number as usize * 7 + at) as u8)
        .collect()
}

fn drive<D: DriverFormat>(
    mut driver: Driver<D>,
    space: &OffsetSpace<Mapped>,
    device: &Thread,
) -> u64 {
    let mut pieces: Vec<u64> = (0..u64::from(SIZE)).map(|piece| piece * PIECE).collect();
    let (mut sent, mut returned, mut notified) = (0, 0, 0);
    while returned < CHAINS {
        driver.disable_notifications();
        while sent < CHAINS
            && let Some(piece) = pieces.pop()
        {
            let payload = request(sent);
            let len = payload.len() as u32;
            let [first, second] = [len / 2, len - len / 2];
            let readable = [
                Buffer::new(piece + 128, first),
                Buffer::new(piece + 192, second),
            ];
            // Every other one is not used completely.
            let writable = [Buffer::new(piece + 256, len + sent % 2)];
            bytes(space, readable[0]).copy_from(0, &payload[..first as usize]);
            bytes(space, readable[1]).copy_from(0, &payload[first as usize..]);
            let table = Bytes::new(space.window(), piece as usize, 48).unwrap();
            let added = if sent % 3 == 0 {
                driver.add_indirect(&readable, &writable, &table, piece, (sent, piece))
            } else {
                driver.add(&readable, &writable, (sent, piece))
            };
            if let Err(rejected) = added {
                let reason = rejected.reason;
                assert!(matches!(reason, AddError::Full { .. }), "{reason}");
                pieces.push(piece);
                break;
            }
            sent += 1;
        }
        notified += ring(driver.publish(), device);
        let found = driver.poll().unwrap();
        while let Some(used) = driver.take().unwrap() {
            let (number, piece) = used.cookie;
            let expected: Vec<u8> = request(number).iter().map(|byte| !byte).collect();
            let mut answer = vec![0; used.written as usize];
            bytes(space, Buffer::new(piece + 256, used.written)).copy_to(0, &mut answer);
            assert_eq!(answer, expected);
            pieces.push(piece);
            returned += 1;
        }
        // What came back makes room for more: sleep only behind a full ring.
        if found == 0 && driver.enable_notifications() == Recheck::Empty {
            thread::park();
        }
    }
    notified
}

fn run<D: DriverFormat, V: DeviceFormat + Send + 'static>(driver: Driver<D>, device: Device<V>) {
    let space = space(usize::from(SIZE) * PIECE as usize);
    let shared = space.clone();
    let this = thread::current();
    let server = thread::spawn(move || serve(device, shared, this));
    let kicks = drive(driver, &space, server.thread());
    let calls = server.join().unwrap();
    assert!(kicks > 0 && calls > 0, "somebody must have slept");
}

const BY_FLAGS: Features = Features::INDIRECT_DESC;
const BY_EVENTS: Features = Features::INDIRECT_DESC.union(Features::EVENT_IDX);

#[test]
fn payload_crosses_two_threads_by_a_split_ring_with_flags() {
    let memory = Memory::new(SIZE);
    run(memory.driver(BY_FLAGS), memory.device(BY_FLAGS));
}

#[test]
fn payload_crosses_two_threads_by_a_split_ring_with_event_indices() {
    let memory = Memory::with_halves(SIZE);
    run(memory.driver(BY_EVENTS), memory.device(BY_EVENTS));
}

#[test]
fn payload_crosses_two_threads_by_a_packed_ring_with_flags() {
    let memory = packed_ring::Memory::new(SIZE);
    run(memory.driver(BY_FLAGS), memory.device(BY_FLAGS));
}

/// Seven is no power of two and no multiple of a chain's length.
#[test]
fn payload_crosses_two_threads_by_a_packed_ring_with_event_positions() {
    let memory = packed_ring::Memory::new(SIZE - 1);
    run(memory.driver(BY_EVENTS), memory.device(BY_EVENTS));
}

/// Every other batch is completed back to front, so chains wait for their turn.
#[test]
fn payload_crosses_two_threads_in_order_by_a_split_ring() {
    for features in [BY_FLAGS, BY_EVENTS] {
        let memory = Memory::new(SIZE);
        run(
            memory.in_order_driver(features),
            memory.in_order_device(features),
        );
    }
}

#[test]
fn payload_crosses_two_threads_in_order_by_a_packed_ring() {
    for features in [BY_FLAGS, BY_EVENTS] {
        let memory = packed_ring::Memory::new(SIZE - 1);
        run(
            memory.in_order_driver(features),
            memory.in_order_device(features),
        );
    }
}

#[test]
fn payload_crosses_two_threads_by_a_tagged_ring_with_flags() {
    let memory = tagged_ring::Memory::new(SIZE);
    run(memory.driver(BY_FLAGS), memory.device(BY_FLAGS));
}

#[test]
fn payload_crosses_two_threads_by_a_tagged_ring_with_event_positions() {
    let memory = tagged_ring::Memory::new(SIZE);
    run(memory.driver(BY_EVENTS), memory.device(BY_EVENTS));
}
