//! Our driver side against the device side of rust-vmm's virtio-queue, over the same guest memory.

mod peers;

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use peers::answered::Answered;
use peers::foreign::guest;
use peers::our_driver::OurDriver;
use peers::our_queue::OurQueue;
use peers::sides::{Device, run_at_once, take_turns};
use peers::traffic::Traffic;
use shmbus_ring::split::{Areas, DriverRing, InOrderDriverRing, Layout};
use shmbus_ring::{DriverFormat, DriverQueue};
use shmbus_shm::{Access, GuestSpace, Mapped};
use shmbus_virtio::Features;
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

type Memory = GuestMemoryMmap<()>;

/// Guest memory in three regions: two that touch, so that buffers lie in both, and one behind a hole.
struct Guest {
    memory: Arc<Memory>,
    /// Where the descriptor area, the driver area and the device area lie.
    areas: [u64; 3],
    buffers: u64,
}

const HOLE: u64 = 1 << 20;

impl Guest {
    /// The areas are aligned to 16, 2 and 4 bytes and to no more; with `halves` the used elements are not even words.
    fn new(layout: Layout, buffer_bytes: u64, halves: bool) -> Self {
        let whole_pages = |bytes: u64| bytes.next_multiple_of(4096);
        let descriptors = 4096 + 16;
        let available = (descriptors + layout.descriptors_bytes() as u64).next_multiple_of(4) + 2;
        let end = available + layout.available_bytes() as u64;
        // The areas of both sides lie in the first region and buffers too, up to the middle of the second.
        let buffers = end + 3;
        let first = whole_pages(end) + 4096;
        let second = whole_pages(buffer_bytes);
        let device_region = whole_pages(first + second) + HOLE;
        let used = device_region + if halves { 8 } else { 4 };
        let memory = guest::memory(&[
            (GuestAddress(0), first as usize),
            (GuestAddress(first), second as usize),
            (
                GuestAddress(device_region),
                whole_pages(8 + layout.used_bytes() as u64) as usize,
            ),
        ]);
        Self {
            memory: Arc::new(memory),
            areas: [descriptors, available, used],
            buffers,
        }
    }

    fn space(&self) -> GuestSpace<Memory> {
        GuestSpace::new(Arc::clone(&self.memory))
    }

    fn areas(&self, layout: Layout) -> Areas<Mapped> {
        let lengths = [
            layout.descriptors_bytes(),
            layout.available_bytes(),
            layout.used_bytes(),
        ];
        let window = |area: usize| {
            let bytes = lengths[area] as u32;
            self.space()
                .window(self.areas[area], bytes, Access::ReadWrite)
                .unwrap()
        };
        Areas::new(layout, &window(0), &window(1), &window(2)).unwrap()
    }
}

/// The peer. Without `EVENT_IDX` it tells of everything, whatever the driver's flags ask for.
struct TheirDevice {
    queue: Queue,
    memory: Arc<Memory>,
    traffic: Traffic,
    answered: Answered<(u16, u32)>,
}

impl TheirDevice {
    fn new(guest: &Guest, size: u16, features: Features, position: u16, traffic: Traffic) -> Self {
        let mut queue = Queue::new(size).unwrap();
        let halves = |address: u64| (Some(address as u32), Some((address >> 32) as u32));
        let [descriptors, available, used] = guest.areas.map(halves);
        queue.set_desc_table_address(descriptors.0, descriptors.1);
        queue.set_avail_ring_address(available.0, available.1);
        queue.set_used_ring_address(used.0, used.1);
        queue.set_event_idx(features.contains(Features::EVENT_IDX));
        queue.set_next_avail(position);
        queue.set_next_used(position);
        queue.set_ready(true);
        let memory = Arc::clone(&guest.memory);
        assert!(queue.is_valid(&*memory));
        // After a migration the index is in memory already: this device does not write it.
        let used_index = GuestAddress(guest.areas[2] + 2);
        memory.store(position, used_index, Relaxed).unwrap();
        Self {
            queue,
            memory,
            traffic,
            answered: Answered::new(features.contains(Features::IN_ORDER)),
        }
    }
}

impl Device for TheirDevice {
    fn serve(&mut self, most: usize) -> usize {
        let memory = &*self.memory;
        let mut taken = 0;
        for chain in self.queue.iter(memory).unwrap().take(most) {
            let mut request = Vec::new();
            let mut reader = chain.clone().reader(memory).unwrap();
            reader.read_to_end(&mut request).unwrap();
            let head = chain.head_index();
            let mut writer = chain.writer(memory).unwrap();
            let answer = self.traffic.answer(&request, writer.available_bytes());
            writer.write_all(&answer).unwrap();
            self.answered.push((head, answer.len() as u32));
            taken += 1;
        }
        let mut returned = 0;
        for (head, written) in self.answered.returned(taken) {
            self.queue.add_used(memory, head, written).unwrap();
            returned += 1;
        }
        returned
    }

    fn publish(&mut self) -> bool {
        self.queue.needs_notification(&*self.memory).unwrap()
    }

    fn disable_notifications(&mut self) {
        self.queue.disable_notification(&*self.memory).unwrap();
    }

    fn enable_notifications(&mut self) -> bool {
        !self.queue.enable_notification(&*self.memory).unwrap()
    }
}

/// Our driver's type, which stands for what is negotiated besides.
trait DriverType {
    const FEATURES: Features;
    type Ring: DriverFormat;

    fn ring(areas: Areas<Mapped>, features: Features) -> Self::Ring;
}

struct AnyOrder;

impl DriverType for AnyOrder {
    const FEATURES: Features = Features::VERSION_1;
    type Ring = DriverRing<Mapped>;

    fn ring(areas: Areas<Mapped>, features: Features) -> Self::Ring {
        DriverRing::new(areas, features).unwrap()
    }
}

/// The peer knows nothing of batches: it writes a used element for each chain.
struct InOrder;

impl DriverType for InOrder {
    const FEATURES: Features = Features::VERSION_1.union(Features::IN_ORDER);
    type Ring = InOrderDriverRing<Mapped>;

    fn ring(areas: Areas<Mapped>, features: Features) -> Self::Ring {
        InOrderDriverRing::new(areas, features).unwrap()
    }
}

type OurSide<T> = OurDriver<OurQueue<<T as DriverType>::Ring>, GuestSpace<Memory>>;

/// Chains for each combination of features.
const CHAINS: u64 = if cfg!(miri) { 12 } else { 100_000 };

fn each_combination<T: DriverType>(
    size: u16,
    most: usize,
    run: impl Fn(OurSide<T>, TheirDevice, Traffic),
) {
    let layout = Layout::new(size).unwrap();
    for event_idx in [false, true] {
        for indirect in [false, true] {
            let mut features = T::FEATURES;
            features.set(Features::EVENT_IDX, event_idx);
            features.set(Features::INDIRECT_DESC, indirect);
            let traffic = Traffic {
                indirect,
                ..Traffic::up_to(most)
            };
            // Either from the start, or so that the indices wrap soon, Miri's few chains included.
            let position = if indirect { 0 } else { u16::MAX - 5 };
            let buffer_bytes = u64::from(size) * traffic.piece_bytes();
            let guest = Guest::new(layout, buffer_bytes, event_idx != indirect);
            let ring = T::ring(guest.areas(layout), features);
            let queue = OurQueue::new(DriverQueue::with_heap_at(ring, position).unwrap());
            let driver = OurDriver::new(queue, guest.space(), traffic, guest.buffers);
            let device = TheirDevice::new(&guest, size, features, position, traffic);
            run(driver, device, traffic);
        }
    }
}

fn turns<T: DriverType>(size: u16, most: usize) {
    each_combination::<T>(size, most, |driver, device, traffic| {
        take_turns(driver, device, traffic, u64::from(size), CHAINS);
    });
}

const SMALL: &[u16] = if cfg!(miri) { &[4] } else { &[1, 2, 4, 8] };

#[test]
fn rings_of_one_to_eight_entries() {
    for &size in SMALL {
        turns::<AnyOrder>(size, usize::from(size));
    }
}

#[test]
#[cfg(not(miri))] // more memory than it gets through in a minute
fn rings_of_256_entries_with_chains_as_long() {
    turns::<AnyOrder>(256, 256);
}

#[test]
#[cfg(not(miri))] // likewise
fn rings_of_32768_entries() {
    turns::<AnyOrder>(32768, 12);
}

#[test]
fn two_threads() {
    let size: u16 = if cfg!(miri) { 4 } else { 64 };
    each_combination::<AnyOrder>(
        size,
        usize::from(size).min(10),
        |driver, device, traffic| {
            run_at_once(driver, device, traffic, 7, CHAINS);
        },
    );
}

#[test]
fn in_order() {
    for &size in SMALL {
        turns::<InOrder>(size, usize::from(size));
    }
}

#[test]
fn in_order_and_two_threads() {
    let size: u16 = if cfg!(miri) { 4 } else { 64 };
    each_combination::<InOrder>(
        size,
        usize::from(size).min(10),
        |driver, device, traffic| {
            run_at_once(driver, device, traffic, 7, CHAINS);
        },
    );
}
