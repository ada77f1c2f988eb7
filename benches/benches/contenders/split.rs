//! The device side of a split ring: ours beside `virtio-queue`.
//!
//! Both work on the same kind of `vm-memory` guest memory, with a driver of ours on the other side of the ring, which
//! lends one device-writable buffer of 64 bytes a chain. For each chain both devices find the buffer in guest memory,
//! with vm-memory's checks, and complete it. `EVENT_IDX` is negotiated, and each publication is followed by the
//! decision whether to notify, with its fence. Payloads are not touched.

use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use shmbus_benches::{Contender, Partner, SetUpError};
use shmbus_ring::split::{Areas, DeviceRing, DriverRing, Layout};
use shmbus_ring::{Buffer, DeviceQueue, DeviceSlot, DriverQueue, DriverSlot};
use shmbus_shm::{Access, GuestSpace, Mapped, SharedBytes};
use shmbus_virtio::Features;
use virtio_queue::{DescriptorChain, Queue, QueueT};
use vm_memory::{GuestAddress, GuestMemory, GuestMemoryMmap, Permissions};

const SIZE: u16 = 256;
const BUFFER_BYTES: u32 = 64;

/// Where things lie in guest memory.
const DRIVER_AREAS: u64 = 0;
const DEVICE_AREA: u64 = 0x4000;
const BUFFERS: u64 = 0x8000;
const MEMORY_BYTES: usize = 0x2_0000;

type Memory = GuestMemoryMmap<()>;
type Driver = DriverQueue<DriverRing<Mapped>, u16, Vec<DriverSlot<u16>>>;

/// Does all that is there, once; returns how many chains that were.
trait Device: Send + 'static {
    fn pass(&mut self) -> u64;
}

/// When a device publishes what it completed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Publish {
    /// After each chain.
    Each,
    /// After all that one look at the ring found. `virtio-queue` writes its index after each chain all the same; it
    /// decides on the notification once.
    Batch,
}

struct Ours {
    queue: DeviceQueue<DeviceRing<Mapped>, Vec<DeviceSlot>>,
    space: GuestSpace<Memory>,
    publish: Publish,
}

impl Device for Ours {
    fn pass(&mut self) -> u64 {
        let mut segments = [Buffer::default(); 4];
        let mut done = 0;
        self.queue.poll().expect(HONEST);
        while let Some(chain) = self.queue.take(&self.space, &mut segments).expect(HONEST) {
            for slice in chain.writable_slices(&self.space) {
                black_box(slice.expect(HONEST).len());
            }
            self.queue.complete(chain, BUFFER_BYTES).expect(HONEST);
            done += 1;
            if self.publish == Publish::Each {
                let _ = black_box(self.queue.publish());
            }
        }
        if self.publish == Publish::Batch && done > 0 {
            let _ = black_box(self.queue.publish());
        }
        done
    }
}

struct VirtioQueue {
    queue: Queue,
    memory: Arc<Memory>,
    publish: Publish,
}

impl VirtioQueue {
    /// Finds a chain's buffers and completes it.
    fn complete(&mut self, chain: DescriptorChain<&Memory>, memory: &Memory) {
        let head = chain.head_index();
        for descriptor in chain.writable() {
            let len = descriptor.len() as usize;
            let slices = memory.get_slices(descriptor.addr(), len, Permissions::Write);
            for slice in slices.expect(HONEST) {
                black_box(slice.expect(HONEST).len());
            }
        }
        let used = self.queue.add_used(memory, head, BUFFER_BYTES);
        used.expect(HONEST);
    }
}

impl Device for VirtioQueue {
    fn pass(&mut self) -> u64 {
        let memory = Arc::clone(&self.memory);
        let memory = &*memory;
        let mut done = 0;
        while let Some(chain) = self.queue.pop_descriptor_chain(memory) {
            self.complete(chain, memory);
            done += 1;
            if self.publish == Publish::Each {
                let _ = black_box(self.queue.needs_notification(memory));
            }
        }
        if self.publish == Publish::Batch && done > 0 {
            let _ = black_box(self.queue.needs_notification(memory));
        }
        done
    }
}

const HONEST: &str = "the other side makes no mistakes";

fn ours(publish: Publish) -> Result<(Driver, Ours), SetUpError> {
    let (driver, areas, space) = ring()?;
    let device = DeviceQueue::with_heap(DeviceRing::new(areas, Features::EVENT_IDX)?);
    let device = Ours {
        queue: device,
        space,
        publish,
    };
    Ok((driver, device))
}

fn virtio_queue(publish: Publish) -> Result<(Driver, VirtioQueue), SetUpError> {
    let (driver, _, space) = ring()?;
    let layout = Layout::new(SIZE)?;
    let mut queue = Queue::new(SIZE)?;
    let address = |base, offset| Some((base + offset as u64) as u32);
    queue.set_desc_table_address(address(DRIVER_AREAS, layout.descriptors_offset()), Some(0));
    queue.set_avail_ring_address(address(DRIVER_AREAS, layout.available_offset()), Some(0));
    queue.set_used_ring_address(address(DEVICE_AREA, layout.used_offset()), Some(0));
    queue.set_event_idx(true);
    queue.set_ready(true);
    let memory = Arc::clone(space.memory());
    if !queue.is_valid(&*memory) {
        return Err("virtio-queue does not take the ring".into());
    }
    let device = VirtioQueue {
        queue,
        memory,
        publish,
    };
    Ok((driver, device))
}

/// A guest memory with a ring in it, and the ring's driver.
fn ring() -> Result<(Driver, Areas<Mapped>, GuestSpace<Memory>), SetUpError> {
    let memory = Memory::from_ranges(&[(GuestAddress(0), MEMORY_BYTES)])?;
    let space = GuestSpace::new(Arc::new(memory));
    let layout = Layout::new(SIZE)?;
    let window = |address, bytes| space.window(address, bytes as u32, Access::ReadWrite);
    let areas = Areas::in_memories(
        layout,
        &window(DRIVER_AREAS, layout.driver_bytes())?,
        &window(DEVICE_AREA, layout.device_bytes())?,
    )?;
    let ring = DriverRing::new(areas.clone(), Features::EVENT_IDX)?;
    Ok((DriverQueue::with_heap(ring), areas, space))
}

/// Lends the buffer with this number.
fn lend(driver: &mut Driver, number: u16) {
    let address = BUFFERS + u64::from(number) * u64::from(BUFFER_BYTES);
    let buffer = Buffer::new(address, BUFFER_BYTES);
    driver.add(&[], &[buffer], number).expect("there is room");
}

/// The device's half alone, on one thread: a full ring is served in a pass, and only that is timed.
fn device_alone(
    name: &'static str,
    (mut driver, mut device): (Driver, impl Device),
) -> Result<Contender, SetUpError> {
    for number in 0..SIZE {
        lend(&mut driver, number);
    }
    Ok(Contender::new(name, move |operations| {
        let rounds = operations.div_ceil(u64::from(SIZE));
        let mut took = Duration::ZERO;
        for _ in 0..rounds {
            let _ = driver.publish();
            let start = Instant::now();
            let done = device.pass();
            took += start.elapsed();
            assert_eq!(done, u64::from(SIZE));
            assert_eq!(driver.poll().expect(HONEST), SIZE);
            while let Some(used) = driver.take().expect(HONEST) {
                lend(&mut driver, used.cookie);
            }
        }
        took.mul_f64(operations as f64 / (rounds * u64::from(SIZE)) as f64)
    }))
}

/// Driver and device on a processor each; the driver keeps up to `outstanding` chains with the device.
fn two_threads(
    name: &'static str,
    outstanding: u16,
    (mut driver, mut device): (Driver, impl Device),
) -> Result<Contender, SetUpError> {
    let partner = Partner::spawn(move |operations| {
        let mut done = 0;
        while done < operations {
            done += device.pass();
        }
    })?;
    driver.disable_notifications();
    let mut idle: VecDeque<u16> = (0..outstanding).collect();
    Ok(Contender::new(name, move |operations| {
        partner.beside(operations, || {
            let (mut lent, mut returned) = (0, 0);
            while returned < operations {
                if driver.poll().expect(HONEST) > 0 {
                    while let Some(used) = driver.take().expect(HONEST) {
                        idle.push_back(used.cookie);
                        returned += 1;
                    }
                }
                while lent < operations
                    && let Some(number) = idle.pop_front()
                {
                    lend(&mut driver, number);
                    lent += 1;
                }
                let _ = black_box(driver.publish());
            }
        })
    }))
}

const OURS: &str = "shmbus";
const PEER: &str = "virtio-queue";

/// Each chain published by itself.
pub(super) fn device_each() -> Result<Vec<Contender>, SetUpError> {
    shmbus_benches::pin_to_first_processor()?;
    Ok(vec![
        device_alone(OURS, ours(Publish::Each)?)?,
        device_alone(PEER, virtio_queue(Publish::Each)?)?,
    ])
}

/// A ring full of chains published together.
pub(super) fn device_batch() -> Result<Vec<Contender>, SetUpError> {
    shmbus_benches::pin_to_first_processor()?;
    Ok(vec![
        device_alone(OURS, ours(Publish::Batch)?)?,
        device_alone(PEER, virtio_queue(Publish::Batch)?)?,
    ])
}

/// One chain there and back.
pub(super) fn round_trip() -> Result<Vec<Contender>, SetUpError> {
    Ok(vec![
        two_threads(OURS, 1, ours(Publish::Each)?)?,
        two_threads(PEER, 1, virtio_queue(Publish::Each)?)?,
    ])
}

/// Up to 32 chains with the device.
pub(super) fn stream() -> Result<Vec<Contender>, SetUpError> {
    Ok(vec![
        two_threads(OURS, 32, ours(Publish::Batch)?)?,
        two_threads(PEER, 32, virtio_queue(Publish::Batch)?)?,
    ])
}
