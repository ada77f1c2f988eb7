//! Our driver side against the device side of rust-vmm's virtio-queue, over the same guest memory.
#![cfg(not(miri))] // vm-memory maps its regions

use std::io::{Read, Write};
use std::sync::Arc;

use proptest::prelude::*;
use shmbus_ring::split::{Areas, DriverRing, Layout};
use shmbus_ring::{AddError, Buffer, DriverQueue};
use shmbus_shm::{Access, AddressSpace, Bytes, GuestSpace, Mapped, SharedBytes};
use shmbus_virtio::Features;
use virtio_queue::{Queue, QueueT};
use vm_memory::{GuestAddress, GuestMemoryMmap};

const SIZE: u16 = 32;
const DRIVER_AREAS: u64 = 0;
const DEVICE_AREA: u64 = 0x2000;
const BUFFERS: u64 = 0x4000;
const PIECE: u64 = 2048;
const TABLE_BYTES: u64 = 256;
const MEMORY_BYTES: usize = 0x4000 + SIZE as usize * PIECE as usize;

type Memory = GuestMemoryMmap<()>;

/// The device: answers with the request's bytes, inverted and back to front.
struct Device {
    queue: Queue,
    memory: Arc<Memory>,
}

impl Device {
    fn new(memory: &Arc<Memory>, layout: Layout, event_idx: bool) -> Self {
        let mut queue = Queue::new(SIZE).unwrap();
        let at = |address: u64| (Some(address as u32), Some((address >> 32) as u32));
        let (low, high) = at(DRIVER_AREAS + layout.descriptors_offset() as u64);
        queue.set_desc_table_address(low, high);
        let (low, high) = at(DRIVER_AREAS + layout.available_offset() as u64);
        queue.set_avail_ring_address(low, high);
        let (low, high) = at(DEVICE_AREA + layout.used_offset() as u64);
        queue.set_used_ring_address(low, high);
        queue.set_event_idx(event_idx);
        queue.set_ready(true);
        assert!(queue.is_valid(&**memory));
        Self {
            queue,
            memory: Arc::clone(memory),
        }
    }

    /// Serves what is there; returns whether the driver must be told.
    fn serve(&mut self, most: usize) -> bool {
        let memory = &*self.memory;
        let mut served = 0;
        while served < most
            && let Some(chain) = self.queue.pop_descriptor_chain(memory)
        {
            let mut request = Vec::new();
            let mut reader = chain.clone().reader(memory).unwrap();
            reader.read_to_end(&mut request).unwrap();
            let head = chain.head_index();
            let mut writer = chain.writer(memory).unwrap();
            let answer = answer(&request, writer.available_bytes());
            writer.write_all(&answer).unwrap();
            self.queue
                .add_used(memory, head, answer.len() as u32)
                .unwrap();
            served += 1;
        }
        served > 0 && self.queue.needs_notification(memory).unwrap()
    }

    /// Whether something came that is not notified.
    fn sleep(&mut self) -> bool {
        self.queue.enable_notification(&*self.memory).unwrap()
    }
}

fn answer(request: &[u8], room: usize) -> Vec<u8> {
    request.iter().rev().map(|byte| !byte).take(room).collect()
}

struct Lent {
    piece: u64,
    request: Vec<u8>,
    writable: Vec<Buffer>,
}

/// One chain to send: the lengths of its buffers, and whether it has a table of its own.
type Shape = (Vec<u16>, Vec<u16>, bool);

fn shapes() -> impl Strategy<Value = Vec<Shape>> {
    // Of virtio-queue's device no zero-length buffers are asked.
    let lengths = |least| prop::collection::vec(1_u16..100, least..6);
    prop::collection::vec((lengths(1), lengths(0), any::<bool>()), 1..600)
}

fn run(shapes: &[Shape], event_idx: bool, batch: usize, served: usize) {
    let memory: Arc<Memory> =
        Arc::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY_BYTES)]).unwrap());
    let space = GuestSpace::new(Arc::clone(&memory));
    let layout = Layout::new(SIZE).unwrap();
    let window = |address, bytes: usize| -> Mapped {
        space
            .window(address, bytes as u32, Access::ReadWrite)
            .unwrap()
    };
    let areas = Areas::in_memories(
        layout,
        &window(DRIVER_AREAS, layout.driver_bytes()),
        &window(DEVICE_AREA, layout.device_bytes()),
    )
    .unwrap();
    let mut features = Features::INDIRECT_DESC;
    features.set(Features::EVENT_IDX, event_idx);
    let mut driver = DriverQueue::with_heap(DriverRing::new(areas, features).unwrap());
    let mut device = Device::new(&memory, layout, event_idx);
    let buffers = window(BUFFERS, SIZE as usize * PIECE as usize);

    let mut pieces: Vec<u64> = (0..u64::from(SIZE))
        .map(|piece| BUFFERS + piece * PIECE)
        .collect();
    let (mut sent, mut returned) = (0, 0);
    let (mut device_awake, mut driver_told) = (true, false);
    while returned < shapes.len() {
        let before = (sent, returned, false);
        let mut added = 0;
        while added < batch
            && sent < shapes.len()
            && let Some(piece) = pieces.pop()
        {
            let (readable, writable, indirect) = &shapes[sent];
            let mut address = piece + TABLE_BYTES;
            let mut place = |lengths: &[u16]| -> Vec<Buffer> {
                let buffer = |len: &u16| {
                    let buffer = Buffer::new(address, u32::from(*len));
                    address += u64::from(*len);
                    buffer
                };
                lengths.iter().map(buffer).collect()
            };
            let (readable, writable) = (place(readable), place(writable));
            let mut request = Vec::new();
            for buffer in &readable {
                let payload: Vec<u8> = (0..buffer.len)
                    .map(|at| (sent as u32 * 31 + at + request.len() as u32) as u8)
                    .collect();
                space
                    .translate(buffer.address, buffer.len, Access::Write)
                    .unwrap()
                    .copy_from(0, &payload);
                request.extend(payload);
            }
            let cookie = Lent {
                piece,
                request,
                writable: writable.clone(),
            };
            let result = if *indirect {
                let table =
                    Bytes::new(&buffers, (piece - BUFFERS) as usize, TABLE_BYTES as usize).unwrap();
                driver.add_indirect(&readable, &writable, &table, piece, cookie)
            } else {
                driver.add(&readable, &writable, cookie)
            };
            if let Err(rejected) = result {
                assert!(matches!(rejected.reason, AddError::Full { .. }));
                pieces.push(piece);
                break;
            }
            sent += 1;
            added += 1;
        }
        device_awake |= driver.publish().is_needed();

        // The device sleeps until it is told; so a wrong answer to "must it be told?" ends in a standstill.
        if device_awake {
            driver_told |= device.serve(served);
            device_awake = device.sleep();
        }

        if driver_told {
            driver.poll().unwrap();
            while let Some(used) = driver.take().unwrap() {
                let Lent {
                    piece,
                    request,
                    writable,
                } = used.cookie;
                let room = writable.iter().map(|buffer| buffer.len as usize).sum();
                let mut found = Vec::new();
                for buffer in &writable {
                    let mut part = vec![0; buffer.len as usize];
                    space
                        .translate(buffer.address, buffer.len, Access::Read)
                        .unwrap()
                        .copy_to(0, &mut part);
                    found.extend(part);
                }
                found.truncate(used.written as usize);
                assert_eq!(found, answer(&request, room));
                pieces.push(piece);
                returned += 1;
            }
            // Whatever comes from here on must be told.
            driver_told = !driver.enable_notifications().is_empty();
        }
        let now = (sent, returned, device_awake);
        assert_ne!(now, before, "a standstill");
    }
    assert_eq!(driver.free(), SIZE);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn our_driver_and_virtio_queues_device_understand_each_other(
        shapes in shapes(),
        event_idx: bool,
        batch in 1_usize..40,
        served in 1_usize..40,
    ) {
        run(&shapes, event_idx, batch, served);
    }
}

/// Far enough that both indices wrap at 65536 several times.
#[test]
fn indices_wrap_with_virtio_queues_device() {
    let chains = if cfg!(debug_assertions) {
        140_000
    } else {
        1_000_000
    };
    let shapes: Vec<Shape> = (0..chains)
        .map(|number| {
            let readable = (0..1 + number % 3).map(|at| 1 + (number + at) as u16 % 50);
            let writable = (0..number % 4).map(|at| 1 + (number * 3 + at) as u16 % 50);
            (readable.collect(), writable.collect(), number % 5 == 0)
        })
        .collect();
    run(&shapes, true, 7, 5);
    run(&shapes[..shapes.len() / 2], false, 7, 5);
}
