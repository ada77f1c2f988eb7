//! rust-vmm's `virtio-queue`, as its users use it.

use std::hint::black_box;
use std::sync::Arc;

use shmbus_benches::Contender;
use shmbus_ring::split::Layout;
use virtio_queue::{DescriptorChain, Queue, QueueT};
use vm_memory::{GuestMemory, Permissions};

use super::super::format::{SPLIT_DEVICE_MEMORY, Split};
use super::super::memory::Memory;
use super::super::{HONEST, SIZE};
use super::{Device, Driver, SetUp, Shape, alone, ring};

struct VirtioQueue {
    queue: Queue,
    memory: Arc<Memory>,
}

impl VirtioQueue {
    /// Finds a chain's buffers and completes it.
    fn complete(&mut self, chain: DescriptorChain<&Memory>, memory: &Memory) {
        let head = chain.head_index();
        let mut written = 0;
        for descriptor in chain {
            let access = if descriptor.is_write_only() {
                written += descriptor.len();
                Permissions::Write
            } else {
                Permissions::Read
            };
            let slices = memory.get_slices(descriptor.addr(), descriptor.len() as usize, access);
            for slice in slices.expect(HONEST) {
                black_box(slice.expect(HONEST).len());
            }
        }
        self.queue.add_used(memory, head, written).expect(HONEST);
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
        }
        let _ = black_box(self.queue.needs_notification(memory));
        done
    }
}

pub(super) fn set_up(shape: Shape) -> SetUp<Contender> {
    let (driver, _, space) = ring::<Split>()?;
    let layout = Layout::new(SIZE)?;
    let mut queue = Queue::new(SIZE)?;
    let address = |offset: usize| Some(offset as u32);
    queue.set_desc_table_address(address(layout.descriptors_offset()), Some(0));
    queue.set_avail_ring_address(address(layout.available_offset()), Some(0));
    queue.set_used_ring_address(address(SPLIT_DEVICE_MEMORY + layout.used_offset()), Some(0));
    queue.set_event_idx(true);
    queue.set_ready(true);
    let memory = Arc::clone(space.memory());
    if !queue.is_valid(&*memory) {
        return Err("virtio-queue does not take the ring".into());
    }
    let driver = Driver::new(driver, space, shape);
    Ok(alone("virtio-queue", driver, VirtioQueue { queue, memory }))
}
