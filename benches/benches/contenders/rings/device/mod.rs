//! The device side alone, on one thread: ours beside `virtio-queue`.
//!
//! A driver of ours fills the ring, and the device serves it in one pass, which is what is timed. For each chain both
//! devices pop it, find the memory behind every one of its descriptors (vm-memory's guest memory, with its checks; the
//! bytes are not touched), and complete it, so that the driver could see it at once. Whether to notify the driver is
//! decided once a pass, by both; `EVENT_IDX` is negotiated.

mod ours;
mod virtio_queue;

use std::time::{Duration, Instant};

use shmbus_benches::{Comparison, Contender, SetUpError};
use shmbus_ring::{DriverFormat, DriverQueue, DriverSlot};
use shmbus_shm::{Access, AddressSpace, GuestSpace};
use shmbus_virtio::Features;

use super::format::{Format, Packed, Split};
use super::memory::{Memory, TABLE_BYTES, buffer, guest_memory, ring_memory, table};
use super::{HONEST, SIZE};

/// What was negotiated.
const FEATURES: Features = Features::EVENT_IDX.union(Features::INDIRECT_DESC);

/// How the driver lends its buffers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// A device-writable buffer.
    One,
    /// Two buffers to read and two to write.
    Chain4,
    /// The same in an indirect table.
    Indirect4,
}

impl Shape {
    const ALL: [(Self, &str, &str); 3] = [
        (
            Self::One,
            "device",
            "one thread: pop a descriptor, find its buffer, complete it",
        ),
        (
            Self::Chain4,
            "device-chain4",
            "one thread: pop a chain of four, find its buffers, complete it",
        ),
        (
            Self::Indirect4,
            "device-indirect4",
            "one thread: pop an indirect table of four, find its buffers, complete it",
        ),
    ];

    /// How many chains fill the ring.
    fn chains(self) -> u16 {
        match self {
            Self::One | Self::Indirect4 => SIZE,
            Self::Chain4 => SIZE / 4,
        }
    }
}

/// Serves all that is there, once; returns how many chains that were.
trait Device {
    fn pass(&mut self) -> u64;
}

pub(super) fn add(all: &mut Vec<Comparison>) {
    for (shape, name, about) in Shape::ALL {
        let format = Split::NAME;
        all.push(Comparison::new(
            format!("{format}/{name}"),
            about,
            move || {
                shmbus_benches::pin_to_first_processor()?;
                Ok(vec![
                    ours::set_up::<Split>(shape)?,
                    virtio_queue::set_up(shape)?,
                ])
            },
        ));
        let format = Packed::NAME;
        all.push(Comparison::new(
            format!("{format}/{name}"),
            about,
            move || {
                shmbus_benches::pin_to_first_processor()?;
                Ok(vec![ours::set_up::<Packed>(shape)?])
            },
        ));
    }
}

/// The driver of a ring in a guest's memory.
struct Driver<D> {
    queue: DriverQueue<D, u16, Vec<DriverSlot<u16>>>,
    space: GuestSpace<Memory>,
    shape: Shape,
}

impl<D: DriverFormat> Driver<D> {
    fn new(ring: D, space: GuestSpace<Memory>, shape: Shape) -> Self {
        let queue = DriverQueue::with_heap(ring);
        Self {
            queue,
            space,
            shape,
        }
    }

    fn lend(&mut self, number: u16) {
        let buffers = [0, 1, 2, 3].map(|index| buffer(number.wrapping_mul(4) % SIZE + index));
        let lent = match self.shape {
            Shape::One => self.queue.add(&[], &[buffer(number)], number),
            Shape::Chain4 => self.queue.add(&buffers[..2], &buffers[2..], number),
            Shape::Indirect4 => {
                let address = table(number);
                let rows = self.space.translate(address, TABLE_BYTES, Access::Write);
                let (read, write) = buffers.split_at(2);
                self.queue
                    .add_indirect(read, write, &rows.expect(HONEST), address, number)
            }
        };
        lent.expect("there is room");
    }

    fn fill(&mut self) {
        for number in 0..self.shape.chains() {
            self.lend(number);
        }
    }

    /// Takes all chains back and lends them again.
    fn refill(&mut self) {
        assert!(self.queue.poll().expect(HONEST) > 0, "nothing was used");
        while let Some(used) = self.queue.take().expect(HONEST) {
            self.lend(used.cookie);
        }
    }
}

/// Not inlined, so that callgrind can tell it from what the driver does.
#[inline(never)]
fn timed_pass(device: &mut impl Device) -> u64 {
    device.pass()
}

fn alone<D: DriverFormat + 'static>(
    name: &'static str,
    mut driver: Driver<D>,
    mut device: impl Device + 'static,
) -> Contender {
    let chains = u64::from(driver.shape.chains());
    driver.fill();
    Contender::new(name, move |operations| {
        let rounds = operations.div_ceil(chains);
        let mut took = Duration::ZERO;
        for _ in 0..rounds {
            let _ = driver.queue.publish();
            let start = Instant::now();
            let done = timed_pass(&mut device);
            took += start.elapsed();
            assert_eq!(done, chains);
            driver.refill();
        }
        took.mul_f64(operations as f64 / (rounds * chains) as f64)
    })
}

type SetUp<T> = Result<T, SetUpError>;

/// A ring in a guest's memory.
fn ring<F: Format>() -> SetUp<(F::Driver, F::Device, GuestSpace<Memory>)> {
    let space = guest_memory()?;
    let (driver, device) = F::sides(&ring_memory(&space)?, F::features(FEATURES))?;
    Ok((driver, device, space))
}
