//! Chains with contents, lent, served and taken back in a guest's memory.

use proptest::prelude::*;
use shmbus_ring::{
    Buffer, Chain, ChainHead, DeviceFault, DeviceQueue, DeviceSlot, DriverQueue, DriverSlot,
};
use shmbus_shm::{AddressError, GuestSpace, SharedBytes};
use vm_memory::GuestMemory;

use super::formats::{Format, SIZE, areas};
use super::guest::Guest;

/// A chain's own piece of memory: a table, then buffers. No multiple of a page, so that borders lie anywhere.
const PIECE: u64 = 0x1700;
const TABLE_BYTES: u64 = 16 * 8;
const PIECES: u64 = SIZE as u64;

pub struct Lent {
    number: usize,
    piece: u64,
    writable: Vec<Buffer>,
}

type Driver<F> = DriverQueue<<F as Format>::Driver, Lent, Vec<DriverSlot<Lent>>>;
type Device<F> = DeviceQueue<<F as Format>::Device, Vec<DeviceSlot>>;

#[derive(Clone, Debug)]
pub struct Shape {
    pub readable: Vec<u16>,
    pub writable: Vec<u16>,
    pub indirect: bool,
    /// Where in its piece the chain begins.
    pub skip: u16,
}

pub fn shapes() -> impl Strategy<Value = Vec<Shape>> {
    let lengths = || prop::collection::vec(0_u16..500, 0..4);
    let shape = (lengths(), lengths(), any::<bool>(), 0_u16..1000)
        .prop_map(|(readable, writable, indirect, skip)| Shape {
            readable,
            writable,
            indirect,
            skip,
        })
        .prop_filter("a chain has a buffer", |shape| {
            !shape.readable.is_empty() || !shape.writable.is_empty()
        });
    prop::collection::vec(shape, 1..60)
}

fn request(number: usize, len: usize) -> Vec<u8> {
    (0..len).map(|at| (number * 31 + at * 7) as u8).collect()
}

fn answer(number: usize, len: usize) -> Vec<u8> {
    (0..len).map(|at| !(number * 17 + at * 3) as u8).collect()
}

fn total(buffers: &[Buffer]) -> usize {
    buffers.iter().map(|buffer| buffer.len as usize).sum()
}

/// Both sides of a queue in a guest's memory.
pub struct Run<F: Format> {
    pub guest: Guest,
    /// Where chains may go; the last one is used first.
    pub pieces: Vec<u64>,
    pub driver: Driver<F>,
    pub device: Device<F>,
    pub lent: usize,
    /// How many chains the device took: it takes them in the order in which they were lent.
    pub taken: usize,
    in_flight: Vec<(ChainHead, usize)>,
    pub returned: Vec<usize>,
}

impl<F: Format> Run<F> {
    pub fn new<M>(guest: &Guest, space: &GuestSpace<M>) -> Self
    where
        M: GuestMemory + Send + Sync + 'static,
    {
        let buffers = guest.buffers();
        Self {
            guest: guest.clone(),
            pieces: (0..PIECES).map(|piece| buffers + piece * PIECE).collect(),
            driver: DriverQueue::with_heap(F::driver(areas::<F, _>(&guest.space(), 0))),
            device: DeviceQueue::with_heap(F::device(areas::<F, _>(space, guest.ring()))),
            lent: 0,
            taken: 0,
            in_flight: Vec::new(),
            returned: Vec::new(),
        }
    }

    /// Lends a chain, if there is room.
    pub fn add(&mut self, shape: &Shape) -> bool {
        let Some(piece) = self.pieces.pop() else {
            return false;
        };
        let table = piece + u64::from(shape.skip);
        let mut address = table + TABLE_BYTES;
        let mut place = |lengths: &[u16]| -> Vec<Buffer> {
            lengths
                .iter()
                .map(|len| {
                    let buffer = Buffer::new(address, u32::from(*len));
                    address += u64::from(*len);
                    buffer
                })
                .collect()
        };
        let (readable, writable) = (place(&shape.readable), place(&shape.writable));
        let number = self.lent;
        if let Some(first) = readable.first() {
            // They follow one another.
            let request = request(number, total(&readable));
            self.guest.write(first.address, &request);
        }
        let lent = Lent {
            number,
            piece,
            writable: writable.clone(),
        };
        let added = if shape.indirect {
            let bytes = self.guest.table(table, TABLE_BYTES as usize);
            self.driver
                .add_indirect(&readable, &writable, &bytes, table, lent)
        } else {
            self.driver.add(&readable, &writable, lent)
        };
        match added {
            Ok(()) => self.lent += 1,
            Err(rejected) => self.pieces.push(rejected.cookie.piece),
        }
        let _ = self.driver.publish();
        self.lent > number
    }

    /// Takes the next chain, and does all that it asks for.
    pub fn take<M: GuestMemory>(&mut self, space: &GuestSpace<M>) -> Result<bool, DeviceFault> {
        let mut segments = [Buffer::default(); SIZE as usize];
        let number = self.taken;
        let Some(chain) = self.device.take(space, &mut segments)? else {
            return Ok(false);
        };
        self.taken += 1;
        match use_chain(space, number, &chain) {
            Ok(written) => {
                self.in_flight.push((chain.into_head(), written));
                Ok(true)
            }
            Err(reason) => Err(self.device.fail(chain, reason)),
        }
    }

    pub fn complete(&mut self, which: usize) {
        let (head, written) = self.in_flight.swap_remove(which % self.in_flight.len());
        self.device.complete(head, written as u32).unwrap();
        let _ = self.device.publish();
    }

    pub fn take_back(&mut self) {
        self.driver.poll().unwrap();
        while let Some(used) = self.driver.take().unwrap() {
            let Lent {
                number,
                piece,
                writable,
            } = used.cookie;
            let written = answer(number, total(&writable));
            assert_eq!(used.written as usize, written.len());
            if let Some(first) = writable.first() {
                let found = self.guest.read(first.address, u64::from(used.written));
                assert_eq!(found, written, "chain {number}");
            }
            self.pieces.push(piece);
            self.returned.push(number);
        }
    }

    /// Everything comes back.
    pub fn drain<M: GuestMemory>(&mut self, space: &GuestSpace<M>) {
        while self.returned.len() < self.lent {
            self.device.poll().unwrap();
            while self.take(space).unwrap() {}
            while !self.in_flight.is_empty() {
                self.complete(self.taken);
            }
            self.take_back();
        }
        self.returned.sort();
        assert!(self.returned.iter().copied().eq(0..self.lent));
        assert_eq!(self.driver.free(), self.driver.capacity());
    }

    pub fn reset(&mut self) {
        self.device.reset();
        self.in_flight.clear();
        let (pieces, returned) = (&mut self.pieces, &mut self.returned);
        self.driver.reset(|lent| {
            pieces.push(lent.piece);
            returned.push(lent.number);
        });
        self.taken = self.lent;
    }
}

/// Reads all, in place and as a copy, and writes all.
pub fn use_chain<M: GuestMemory>(
    space: &GuestSpace<M>,
    number: usize,
    chain: &Chain<'_>,
) -> Result<usize, AddressError> {
    let expected = request(number, total(chain.readable()));
    let mut copy = vec![0; expected.len()];
    assert_eq!(chain.read(space, 0, &mut copy)?, copy.len());
    assert_eq!(copy, expected, "chain {number}");
    let mut pieces = Vec::new();
    for piece in chain.readable_slices(space) {
        let piece = piece?;
        let start = pieces.len();
        pieces.resize(start + piece.len(), 0);
        assert_eq!(piece.copy_to(0, &mut pieces[start..]), piece.len());
    }
    assert_eq!(pieces, expected, "chain {number}, piece by piece");
    let answer = answer(number, total(chain.writable()));
    chain.write(space, 0, &answer)
}
