//! Our two sides.

use shmbus_ring::{
    AddError, Buffer, ChainHead, DeviceFormat, DeviceQueue, DeviceSlot, DriverFormat, DriverQueue,
    DriverSlot,
};
use shmbus_shm::{Access, AddressSpace, SharedBytes};

use super::answered::Answered;
use super::sides::{Device, Driver};
use super::traffic::{Dice, Shape, Traffic, UNWRITTEN, request};

const DESCRIPTOR_BYTES: usize = 16;

/// Our driver. Each chain has a piece of memory of its own: a table, then its buffers.
pub struct OurDriver<D, A> {
    queue: DriverQueue<D, Lent, Vec<DriverSlot<Lent>>>,
    space: A,
    traffic: Traffic,
    dice: Dice,
    pieces: Vec<u64>,
}

/// What a chain carries as its cookie.
pub struct Lent {
    number: u64,
    piece: u64,
    request: Vec<u8>,
    writable: Vec<Buffer>,
}

impl Traffic {
    pub fn piece_bytes(&self) -> u64 {
        self.descriptors[1] as u64 * (DESCRIPTOR_BYTES as u64 + u64::from(self.longest))
    }
}

impl<D: DriverFormat, A: AddressSpace> OurDriver<D, A> {
    /// Chains lie in as many pieces as the queue has entries, from `buffers` on.
    pub fn new(
        queue: DriverQueue<D, Lent, Vec<DriverSlot<Lent>>>,
        space: A,
        traffic: Traffic,
        buffers: u64,
    ) -> Self {
        let pieces = (0..u64::from(queue.size()))
            .map(|piece| buffers + piece * traffic.piece_bytes())
            .collect();
        Self {
            queue,
            space,
            traffic,
            dice: Dice::new(2),
            pieces,
        }
    }
}

impl<D: DriverFormat, A: AddressSpace> Driver for OurDriver<D, A> {
    fn add(&mut self, number: u64, shape: &Shape) -> bool {
        let Some(piece) = self.pieces.pop() else {
            return false;
        };
        let mut address = piece + (self.traffic.descriptors[1] * DESCRIPTOR_BYTES) as u64;
        let mut place = |len: &u32| {
            let buffer = Buffer::new(address, *len);
            address += u64::from(*len);
            buffer
        };
        let readable: Vec<_> = shape.readable.iter().map(&mut place).collect();
        let writable: Vec<_> = shape.writable.iter().map(&mut place).collect();

        let request = request(number, total(&readable));
        let mut rest = request.as_slice();
        for buffer in &readable {
            let (bytes, behind) = rest.split_at(buffer.len as usize);
            write(&self.space, *buffer, bytes);
            rest = behind;
        }
        for buffer in &writable {
            write(&self.space, *buffer, &vec![UNWRITTEN; buffer.len as usize]);
        }
        let lent = Lent {
            number,
            piece,
            request,
            writable: writable.clone(),
        };
        let table_bytes = DESCRIPTOR_BYTES * shape.descriptors();
        let table = self
            .space
            .translate(piece, table_bytes as u32, Access::Write)
            .unwrap();
        // Where a table would lie in two regions it has no one piece of memory to be written to.
        let result = if shape.indirect && table.len() == table_bytes {
            self.queue
                .add_indirect(&readable, &writable, &table, piece, lent)
        } else {
            self.queue.add(&readable, &writable, lent)
        };
        match result {
            Ok(()) => true,
            Err(rejected) => {
                assert!(matches!(rejected.reason, AddError::Full { .. }));
                self.pieces.push(piece);
                false
            }
        }
    }

    fn publish(&mut self) -> bool {
        self.queue.publish().is_needed()
    }

    fn take(&mut self) -> Option<u64> {
        let used = match self.queue.take().unwrap() {
            Some(used) => used,
            None => {
                let found = if self.dice.once_in(2) {
                    self.queue.poll_spinning()
                } else {
                    self.queue.poll()
                };
                if found.unwrap() == 0 {
                    return None;
                }
                self.queue.take().unwrap()?
            }
        };
        let Lent {
            number,
            piece,
            request,
            writable,
        } = used.cookie;
        let mut found = Vec::with_capacity(total(&writable));
        for buffer in &writable {
            let start = found.len();
            found.resize(start + buffer.len as usize, 0);
            read(&self.space, *buffer, &mut found[start..]);
        }
        let expected = self.traffic.answer(&request, found.len());
        let written = used.written as usize;
        assert_eq!(found[..written], expected, "chain {number}");
        assert!(found[written..].iter().all(|byte| *byte == UNWRITTEN));
        self.pieces.push(piece);
        Some(number)
    }

    fn disable_notifications(&mut self) {
        self.queue.disable_notifications();
    }

    /// Now and then for several chains at a time: the device has to find the event inside a batch.
    fn enable_notifications(&mut self) -> bool {
        let recheck = if self.dice.once_in(2) {
            let count = 1 + self.dice.below(8) as u16;
            self.queue.enable_notifications_after(count)
        } else {
            self.queue.enable_notifications()
        };
        recheck.is_empty()
    }
}

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
    pub fn new(queue: DeviceQueue<V, Vec<DeviceSlot>>, space: A, traffic: Traffic) -> Self {
        let segments = vec![Buffer::default(); usize::from(queue.size())];
        Self {
            queue,
            space,
            traffic,
            dice: Dice::new(3),
            segments,
            answered: Answered::in_any_order(),
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

fn total(buffers: &[Buffer]) -> usize {
    buffers.iter().map(|buffer| buffer.len as usize).sum()
}

fn write(space: &impl AddressSpace, buffer: Buffer, bytes: &[u8]) {
    let mut done = 0;
    while done < bytes.len() {
        let address = buffer.address + done as u64;
        let left = (bytes.len() - done) as u32;
        let piece = space.translate(address, left, Access::Write).unwrap();
        done += piece.copy_from(0, &bytes[done..]);
    }
}

fn read(space: &impl AddressSpace, buffer: Buffer, bytes: &mut [u8]) {
    let mut done = 0;
    while done < bytes.len() {
        let address = buffer.address + done as u64;
        let left = (bytes.len() - done) as u32;
        let piece = space.translate(address, left, Access::Read).unwrap();
        done += piece.copy_to(0, &mut bytes[done..]);
    }
}
