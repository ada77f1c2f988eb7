//! Our driver.

use shmbus_ring::{Buffer, DESCRIPTOR_BYTES};
use shmbus_shm::{Access, AddressSpace, SharedBytes};

use super::our_queue::Lending;
use super::sides::Driver;
use super::traffic::{Shape, Traffic, UNWRITTEN, request};

/// Our driver. Each chain has a piece of memory of its own: a table, then its buffers.
pub struct OurDriver<Q, A> {
    queue: Q,
    space: A,
    traffic: Traffic,
    buffers: u64,
    /// The pieces that no chain has.
    free: Vec<usize>,
    /// By piece.
    lent: Vec<Option<Lent>>,
}

struct Lent {
    number: u64,
    request: Vec<u8>,
    writable: Vec<Buffer>,
}

impl Traffic {
    pub fn piece_bytes(&self) -> u64 {
        self.descriptors[1] as u64 * (DESCRIPTOR_BYTES as u64 + u64::from(self.longest))
    }
}

impl<Q: Lending, A: AddressSpace> OurDriver<Q, A> {
    /// Chains lie in as many pieces as the queue has entries, from `buffers` on.
    pub fn new(queue: Q, space: A, traffic: Traffic, buffers: u64) -> Self {
        let pieces = usize::from(queue.size());
        Self {
            queue,
            space,
            traffic,
            buffers,
            free: (0..pieces).collect(),
            lent: (0..pieces).map(|_| None).collect(),
        }
    }
}

impl<Q: Lending, A: AddressSpace> Driver for OurDriver<Q, A> {
    fn add(&mut self, number: u64, shape: &Shape) -> bool {
        let Some(piece) = self.free.pop() else {
            return false;
        };
        let table = self.buffers + piece as u64 * self.traffic.piece_bytes();
        let mut address = table + (self.traffic.descriptors[1] * DESCRIPTOR_BYTES) as u64;
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
        let table = shape.indirect.then_some(table);
        let (space, cookie) = (&self.space, piece as u64);
        if !self.queue.add(&readable, &writable, table, space, cookie) {
            self.free.push(piece);
            return false;
        }
        self.lent[piece] = Some(Lent {
            number,
            request,
            writable,
        });
        true
    }

    fn publish(&mut self) -> bool {
        self.queue.publish()
    }

    fn take(&mut self) -> Option<u64> {
        let (cookie, written) = self.queue.take()?;
        let (piece, written) = (cookie as usize, written as usize);
        let Lent {
            number,
            request,
            writable,
        } = self.lent[piece].take().expect("it is lent");
        let mut found = Vec::with_capacity(total(&writable));
        for buffer in &writable {
            let start = found.len();
            found.resize(start + buffer.len as usize, 0);
            read(&self.space, *buffer, &mut found[start..]);
        }
        let expected = self.traffic.answer(&request, found.len());
        assert_eq!(found[..written], expected, "chain {number}");
        assert!(found[written..].iter().all(|byte| *byte == UNWRITTEN));
        self.free.push(piece);
        Some(number)
    }

    fn disable_notifications(&mut self) {
        self.queue.disable_notifications();
    }

    fn enable_notifications(&mut self) -> bool {
        self.queue.enable_notifications()
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
