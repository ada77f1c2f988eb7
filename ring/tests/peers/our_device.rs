//! Our device.

use shmbus_ring::{Buffer, ChainHead, DeviceFormat, DeviceQueue, DeviceSlot};
use shmbus_shm::AddressSpace;

use super::answered::Answered;
use super::sides::Device;
use super::traffic::{Dice, Traffic};

/// Our device.
pub struct OurDevice<V, A> {
    queue: DeviceQueue<V, Vec<DeviceSlot>>,
    space: A,
    traffic: Traffic,
    dice: Dice,
    segments: Vec<Buffer>,
    answered: Answered<(ChainHead, u32)>,
}

impl<V: DeviceFormat, A: AddressSpace> OurDevice<V, A> {
    /// In order, if the ring's type asks for it.
    pub fn new(queue: DeviceQueue<V, Vec<DeviceSlot>>, space: A, traffic: Traffic) -> Self {
        let in_order = queue.kind().in_order;
        let segments = vec![Buffer::default(); usize::from(queue.size())];
        Self {
            queue,
            space,
            traffic,
            dice: Dice::new(3),
            segments,
            answered: Answered::new(in_order),
        }
    }
}

impl<V: DeviceFormat, A: AddressSpace> Device for OurDevice<V, A> {
    fn serve(&mut self, most: usize) -> usize {
        let found = if self.dice.once_in(2) {
            self.queue.poll_spinning()
        } else {
            self.queue.poll()
        };
        found.unwrap();
        let mut taken = 0;
        while taken < most
            && let Some(chain) = self.queue.take(&self.space, &mut self.segments).unwrap()
        {
            let mut request = vec![0; chain.readable_bytes() as usize];
            chain.read(&self.space, 0, &mut request).unwrap();
            let room = chain.writable_bytes() as usize;
            let answer = self.traffic.answer(&request, room);
            let written = chain.write(&self.space, 0, &answer).unwrap();
            assert_eq!(written, answer.len());
            self.answered.push((chain.into_head(), written as u32));
            taken += 1;
        }
        let mut returned = 0;
        for (head, written) in self.answered.returned(taken) {
            self.queue.complete(head, written).unwrap();
            returned += 1;
        }
        returned
    }

    fn publish(&mut self) -> bool {
        self.queue.publish().is_needed()
    }

    fn disable_notifications(&mut self) {
        self.queue.disable_notifications();
    }

    fn enable_notifications(&mut self) -> bool {
        self.queue.enable_notifications().is_empty()
    }
}
