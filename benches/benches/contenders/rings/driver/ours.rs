//! Our driver side, of any format.

use std::array;
use std::hint::black_box;

use shmbus_benches::Contender;
use shmbus_ring::{Buffer, DriverFormat, DriverQueue, DriverSlot};

use shmbus_virtio::Features;

use super::super::format::Format;
use super::super::memory::{guest_memory, ring_memory};
use super::super::{BUFFER_BYTES, HONEST, OURS};
use super::{Device, Driver, SetUp, alone, chains};

struct Ours<D> {
    queue: DriverQueue<D, u16, Vec<DriverSlot<u16>>>,
}

impl<D: DriverFormat, const N: usize> Driver<N> for Ours<D> {
    fn lend(&mut self) {
        for number in 0..chains(N) {
            let buffers: [Buffer; N] = array::from_fn(|index| {
                let address = (usize::from(number) * N + index) as u64 * u64::from(BUFFER_BYTES);
                Buffer::new(address, BUFFER_BYTES)
            });
            self.queue
                .add(&[], &buffers, number)
                .expect("there is room");
            self.queue.expose();
        }
        let _ = black_box(self.queue.publish());
    }

    fn take(&mut self) -> u64 {
        let mut taken = 0;
        self.queue.poll().expect(HONEST);
        while let Some(used) = self.queue.take().expect(HONEST) {
            black_box(used.cookie);
            taken += 1;
        }
        taken
    }
}

pub(super) fn set_up<F: Format, const N: usize>() -> SetUp<Contender> {
    let space = guest_memory()?;
    let (driver, device) = F::sides(&ring_memory(&space)?, F::features(Features::empty()))?;
    let queue = DriverQueue::with_heap(driver);
    let driver = Ours { queue };
    Ok(alone::<_, N>(OURS, driver, Device::new(device)))
}
