//! The driver side alone, on one thread: ours beside `virtio-drivers` and libblkio's `virtio-driver`.
//!
//! A driver fills the ring with device-writable buffers, each chain of them available at once, and decides on the
//! notification at the end; a device of ours serves the ring; the driver takes all chains back. What the driver does is
//! timed, what the device does is not. Addresses are the buffers' own: no contender translates, shares or copies.
//! `EVENT_IDX` is not negotiated. Each driver finds out which of its chains came back.
//!
//! A chain is one buffer in the split ring. In the packed ring it is two, for all contenders: there `virtio-driver`
//! 0.6.1 leaves the flag NEXT set in the descriptor of a chain of one, so a device would take the next one for its rest.

mod ours;
mod virtio_driver;
mod virtio_drivers;

use std::time::{Duration, Instant};

use shmbus_benches::{Comparison, Contender, SetUpError};
use shmbus_ring::{Buffer, DeviceFormat, DeviceQueue, DeviceSlot};
use shmbus_shm::{OffsetSpace, heap};

use super::format::{Format, Packed, Split};
use super::{HONEST, SIZE};

/// Fills and empties the ring, with chains of `N` buffers.
trait Driver<const N: usize> {
    /// Lends a ring full of chains.
    fn lend(&mut self);

    /// Takes back all that the device used; returns how many chains that were.
    fn take(&mut self) -> u64;
}

/// How many chains of `N` buffers fill the ring.
const fn chains(n: usize) -> u16 {
    SIZE / n as u16
}

type SetUp<T> = Result<T, SetUpError>;

const ABOUT: &str = "one thread: add a chain and get it back, the device's time not counted";

pub(super) fn add(all: &mut Vec<Comparison>) {
    all.push(Comparison::new(
        format!("{}/driver", Split::NAME),
        ABOUT,
        || {
            shmbus_benches::pin_to_first_processor()?;
            Ok(vec![
                ours::set_up::<Split, 1>()?,
                virtio_drivers::set_up()?,
                virtio_driver::split()?,
            ])
        },
    ));
    all.push(Comparison::new(
        format!("{}/driver", Packed::NAME),
        ABOUT,
        || {
            shmbus_benches::pin_to_first_processor()?;
            Ok(vec![ours::set_up::<Packed, 2>()?, virtio_driver::packed()?])
        },
    ));
}

/// The device that all contenders have on the other side.
struct Device<V> {
    queue: DeviceQueue<V, Vec<DeviceSlot>>,
}

impl<V: DeviceFormat> Device<V> {
    fn new(ring: V) -> Self {
        let queue = DeviceQueue::with_heap(ring);
        Self { queue }
    }

    /// Uses all that is there completely, in order.
    fn serve(&mut self) {
        // No chain here is indirect: the space stays untouched.
        let space = OffsetSpace::new(heap(0));
        let mut segments = [Buffer::default(); 2];
        self.queue.poll().expect(HONEST);
        while let Some(chain) = self.queue.take(&space, &mut segments).expect(HONEST) {
            let written = chain.writable_bytes() as u32;
            self.queue.complete(chain, written).expect(HONEST);
        }
        let _ = self.queue.publish();
    }
}

/// Not inlined, so that callgrind can tell it from what the device does.
#[inline(never)]
fn timed_lend<const N: usize>(driver: &mut impl Driver<N>) {
    driver.lend();
}

/// As [`timed_lend`].
#[inline(never)]
fn timed_take<const N: usize>(driver: &mut impl Driver<N>) -> u64 {
    driver.take()
}

fn alone<V: DeviceFormat + 'static, const N: usize>(
    name: &'static str,
    mut driver: impl Driver<N> + 'static,
    mut device: Device<V>,
) -> Contender {
    let chains = u64::from(chains(N));
    Contender::new(name, move |operations| {
        let rounds = operations.div_ceil(chains);
        let mut took = Duration::ZERO;
        for _ in 0..rounds {
            let start = Instant::now();
            timed_lend(&mut driver);
            took += start.elapsed();
            device.serve();
            let start = Instant::now();
            let taken = timed_take(&mut driver);
            took += start.elapsed();
            assert_eq!(taken, chains);
        }
        took.mul_f64(operations as f64 / (rounds * chains) as f64)
    })
}
