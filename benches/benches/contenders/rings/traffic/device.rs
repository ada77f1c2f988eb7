//! The device's thread: uses what it finds.

use std::hint::black_box;

use shmbus_ring::{Buffer, Chain, ChainHead, DeviceFormat};
use shmbus_shm::{Mapped, OffsetSpace};

use super::super::{BUFFER_BYTES, HONEST};
use super::Device;
use super::bells::{Bell, Polling};

/// Uses `operations` elements, in the order in which they come.
pub(super) fn serve<V: DeviceFormat>(
    device: &mut Device<V>,
    space: &OffsetSpace<Mapped>,
    bell: &impl Bell,
    operations: u64,
) {
    let mut segments = [Buffer::default(); 4];
    let mut done = 0;
    loop {
        bell.await_available(device);
        while let Some(chain) = device.take(space, &mut segments).expect(HONEST) {
            let written = look_at(&chain);
            device.complete(chain, written).expect(HONEST);
            bell.publish_used(device);
            done += 1;
            if done == operations {
                bell.end(device);
                return;
            }
        }
    }
}

/// Sees where the buffers are; how many bytes the device says that it wrote.
#[inline(always)]
pub(super) fn look_at(chain: &Chain<'_>) -> u32 {
    black_box(chain.writable());
    chain.writable_bytes() as u32
}

/// How many elements the device has in hand, of which it completes any.
const IN_HAND: usize = 32;

/// A device that completes in random order.
pub(super) struct Shuffle {
    in_hand: Vec<ChainHead>,
    random: u64,
}

impl Shuffle {
    pub(super) fn new() -> Self {
        Self {
            in_hand: Vec::with_capacity(IN_HAND),
            random: 0x9e37_79b9_7f4a_7c15,
        }
    }

    /// As [`serve`], polling, but completes elements at random among [`IN_HAND`], with random lengths.
    pub(super) fn serve<V: DeviceFormat>(
        &mut self,
        device: &mut Device<V>,
        space: &OffsetSpace<Mapped>,
        operations: u64,
    ) {
        let mut segments = [Buffer::default(); 1];
        let mut taken = 0;
        while taken < operations {
            Polling.await_available(device);
            while taken < operations
                && let Some(chain) = device.take(space, &mut segments).expect(HONEST)
            {
                look_at(&chain);
                self.in_hand.push(chain.into_head());
                taken += 1;
                if self.in_hand.len() == IN_HAND {
                    self.complete_one(device);
                }
            }
        }
        while !self.in_hand.is_empty() {
            self.complete_one(device);
        }
    }

    fn complete_one<V: DeviceFormat>(&mut self, device: &mut Device<V>) {
        // Marsaglia's xorshift.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let chosen = (self.random >> 32) as usize % self.in_hand.len();
        let chain = self.in_hand.swap_remove(chosen);
        let written = self.random as u32 % BUFFER_BYTES;
        device.complete(chain, written).expect(HONEST);
        Polling.publish_used(device);
    }
}
