//! Our device side against the driver queues of rcore-os's virtio-drivers.

mod peers;

use std::sync::atomic::{Ordering::SeqCst, fence};

use peers::foreign::bounce::{self, Buffers, Queue};
use peers::our_device::OurDevice;
use peers::sides::{Driver, run_at_once, take_turns};
use peers::traffic::{Shape, Traffic, UNWRITTEN, request};
use shmbus_ring::DeviceQueue;
use shmbus_ring::split::{Areas, DeviceRing, Layout};
use shmbus_shm::{Mapped, OffsetSpace, Window};
use shmbus_virtio::Features;
use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus, Transport};
use virtio_drivers::{Error, PAGE_SIZE, PhysAddr, Result};

/// A transport as far as a queue needs one: it says which layout to use, and is told where the areas lie.
struct Registers {
    size: u32,
    legacy: bool,
    areas: Option<[PhysAddr; 3]>,
}

impl Transport for Registers {
    fn max_queue_size(&mut self, _: u16) -> u32 {
        self.size
    }

    fn requires_legacy_layout(&self) -> bool {
        self.legacy
    }

    fn queue_set(&mut self, _: u16, size: u32, a: PhysAddr, b: PhysAddr, c: PhysAddr) {
        assert_eq!(size, self.size);
        self.areas = Some([a, b, c]);
    }

    fn queue_used(&mut self, _: u16) -> bool {
        self.areas.is_some()
    }

    fn queue_unset(&mut self, _: u16) {
        self.areas = None;
    }

    fn device_type(&self) -> DeviceType {
        DeviceType::Console
    }

    fn read_device_features(&mut self) -> u64 {
        0
    }

    fn write_driver_features(&mut self, _: u64) {}

    fn notify(&mut self, _: u16) {}

    fn get_status(&self) -> DeviceStatus {
        DeviceStatus::empty()
    }

    fn set_status(&mut self, _: DeviceStatus) {}

    fn set_guest_page_size(&mut self, _: u32) {}

    fn ack_interrupt(&mut self) -> InterruptStatus {
        InterruptStatus::empty()
    }

    fn read_config_generation(&self) -> u32 {
        0
    }

    fn read_config_space<T>(&self, _: usize) -> Result<T> {
        Err(Error::ConfigSpaceMissing)
    }

    fn write_config_space<T>(&mut self, _: usize, _: T) -> Result<()> {
        Err(Error::ConfigSpaceMissing)
    }
}

/// The peer. It publishes each chain at once.
struct TheirDriver<const SIZE: usize> {
    queue: Queue<SIZE>,
    traffic: Traffic,
    /// The chains' numbers, by token.
    numbers: [u64; SIZE],
    must_tell: bool,
}

impl<const SIZE: usize> Driver for TheirDriver<SIZE> {
    fn add(&mut self, number: u64, shape: &Shape) -> bool {
        let mut bytes = request(number, shape.readable.iter().sum::<u32>() as usize).into_iter();
        let mut readable = |len: &u32| bytes.by_ref().take(*len as usize).collect();
        let writable = |len: &u32| vec![UNWRITTEN; *len as usize];
        let Some(token) = self.queue.add(Buffers {
            readable: shape.readable.iter().map(&mut readable).collect(),
            writable: shape.writable.iter().map(writable).collect(),
        }) else {
            return false;
        };
        self.numbers[usize::from(token)] = number;
        // The peer looks at the device's wish without a barrier behind its index (against section 2.7.13.4.1): it
        // might miss the wish, and the device the index.
        fence(SeqCst);
        // With EVENT_IDX it compares indices as if they did not wrap: asked after a batch that passes 65535 it would
        // say no. Asked after each chain it is right.
        self.must_tell |= self.queue.should_notify();
        true
    }

    fn publish(&mut self) -> bool {
        std::mem::take(&mut self.must_tell)
    }

    fn take(&mut self) -> Option<u64> {
        let (token, written, buffers) = self.queue.take()?;
        let number = self.numbers[usize::from(token)];
        let request = buffers.readable.concat();
        let found = buffers.writable.concat();
        let expected = self.traffic.answer(&request, found.len());
        let written = written as usize;
        assert_eq!(found[..written], expected, "chain {number}");
        assert!(found[written..].iter().all(|byte| *byte == UNWRITTEN));
        Some(number)
    }

    fn disable_notifications(&mut self) {
        self.queue.set_notified(false);
    }

    fn enable_notifications(&mut self) -> bool {
        self.queue.set_notified(true);
        // The peer has no barrier between its wish, or its `used_event`, and the look at the used index.
        fence(SeqCst);
        !self.queue.can_take()
    }
}

/// The areas where the peer says they lie.
fn areas(registers: &Registers, memory: &Mapped) -> Areas<Mapped> {
    let layout = Layout::new(registers.size as u16).unwrap();
    let [descriptors, available, used] = registers.areas.unwrap().map(|address| address as usize);
    let window = |offset, bytes| memory.narrow(offset, bytes).unwrap();
    if registers.legacy {
        let legacy = layout.legacy(PAGE_SIZE as u32).unwrap();
        assert_eq!(available - descriptors, legacy.available_offset());
        assert_eq!(used - descriptors, legacy.used_offset());
        Areas::legacy(legacy, &window(descriptors, legacy.bytes())).unwrap()
    } else {
        Areas::new(
            layout,
            &window(descriptors, layout.descriptors_bytes()),
            &window(available, layout.available_bytes()),
            &window(used, layout.used_bytes()),
        )
        .unwrap()
    }
}

/// The peer's tables are freed by a pointer that its own `Box::leak` took the right from: Miri stops there.
const INDIRECT: &[bool] = if cfg!(miri) { &[false] } else { &[false, true] };

const CHAINS: u64 = if cfg!(miri) { 12 } else { 100_000 };

fn each_combination<const SIZE: usize>(
    most: usize,
    run: impl Fn(TheirDriver<SIZE>, OurDevice<DeviceRing<Mapped>, OffsetSpace<Mapped>>, Traffic),
) {
    for event_idx in [false, true] {
        for &indirect in INDIRECT {
            let memory = bounce::set_up(if cfg!(miri) { 1 << 16 } else { 1 << 24 });
            let mut registers = Registers {
                size: SIZE as u32,
                legacy: event_idx != indirect,
                areas: None,
            };
            // With INDIRECT_DESC, the peer makes a table for each chain of more than one buffer.
            let traffic = Traffic::up_to(most);
            let driver = TheirDriver {
                queue: Queue::<SIZE>::new(&mut registers, indirect, event_idx),
                traffic,
                numbers: [0; SIZE],
                must_tell: false,
            };
            let mut features = Features::empty();
            features.set(Features::VERSION_1, !registers.legacy);
            features.set(Features::EVENT_IDX, event_idx);
            features.set(Features::INDIRECT_DESC, indirect);
            let ring = DeviceRing::new(areas(&registers, &memory), features).unwrap();
            let device = OurDevice::new(
                DeviceQueue::with_heap(ring),
                OffsetSpace::new(memory),
                traffic,
            );
            run(driver, device, traffic);
        }
    }
}

fn turns<const SIZE: usize>() {
    each_combination::<SIZE>(SIZE, |driver, device, traffic| {
        take_turns(driver, device, traffic, SIZE as u64, CHAINS);
    });
}

#[test]
fn rings_of_one_to_eight_entries() {
    turns::<4>();
    if cfg!(not(miri)) {
        turns::<1>();
        turns::<2>();
        turns::<8>();
    }
}

#[test]
#[cfg(not(miri))] // more than it gets through in a minute
fn rings_of_256_entries_with_chains_as_long() {
    turns::<256>();
}

#[test]
fn two_threads() {
    const SIZE: usize = if cfg!(miri) { 4 } else { 64 };
    each_combination::<SIZE>(SIZE.min(10), |driver, device, traffic| {
        run_at_once(driver, device, traffic, 7, CHAINS);
    });
}
