//! Both sides of a queue, driven step by step beside the model.

use std::collections::VecDeque;

use proptest::prelude::*;
use shmbus_ring::{
    AddError, Buffer, ChainHead, CompleteError, DeviceFormat, DeviceQueue, DeviceSlot,
    DriverFormat, DriverQueue, DriverSlot, Rejected,
};
use shmbus_shm::{Bytes, Mapped, OffsetSpace};
use shmbus_virtio::Features;

use crate::direction::Direction;
use crate::rules::Rules;
use crate::steps::Step;
use crate::support::heap_ring::{bytes, space};

/// Each chain has its own piece of memory: an indirect table, then buffers.
const PIECE: u64 = 1024;
const TABLE_BYTES: u64 = 256;

/// What the driver lent; it is the cookie as well, and as it is no copy it cannot come back twice.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Lent {
    number: u8,
    piece: u64,
    readable: Vec<Buffer>,
    writable: Vec<Buffer>,
    descriptors: u16,
}

#[derive(Debug)]
pub(crate) struct Taken {
    number: u8,
    entries: u64,
    pub(crate) head: ChainHead,
    pub(crate) writable: Vec<Buffer>,
}

/// A chain's number, its buffers, and the entries that it takes up.
pub(crate) type Made = (u8, Vec<Buffer>, Vec<Buffer>, u64);

pub(crate) struct Run<'r, D, V> {
    /// The rings of a further life, over the same memory.
    pub(crate) driver_ring: &'r dyn Fn() -> D,
    pub(crate) device_ring: &'r dyn Fn() -> V,
    pub(crate) space: OffsetSpace<Mapped>,
    pieces: Vec<u64>,
    pub(crate) driver: DriverQueue<D, Lent, Vec<DriverSlot<Lent>>>,
    pub(crate) device: DeviceQueue<V, Vec<DeviceSlot>>,
    indirect: bool,
    event_idx: bool,
    pub(crate) rules: Rules,
    pub(crate) size: u16,
    /// How many descriptors are free while nothing is lent.
    pub(crate) capacity: u16,
    free: u16,
    number: u8,
    pub(crate) available: Direction<Made>,
    pub(crate) in_flight: Vec<Taken>,
    /// Which chains were taken and are not shown as used, in order.
    pub(crate) turns: VecDeque<Made>,
    /// Completed chains that wait for their turn, where chains come back in order.
    pub(crate) early: Vec<((u8, u32), u64)>,
    pub(crate) used: Direction<(u8, u32)>,
}

/// The content of a chain's byte at `at`: what the driver wrote, or what the device answers.
fn content(number: u8, at: usize, answer: bool) -> u8 {
    number.wrapping_mul(7).wrapping_add(at as u8) ^ if answer { 0xff } else { 0 }
}

fn total(buffers: &[Buffer]) -> usize {
    buffers.iter().map(|buffer| buffer.len as usize).sum()
}

impl<'r, D: DriverFormat, V: DeviceFormat> Run<'r, D, V> {
    pub(crate) fn new(
        driver_ring: &'r dyn Fn() -> D,
        device_ring: &'r dyn Fn() -> V,
        rules: Rules,
        position: u16,
        features: Features,
    ) -> Self {
        let event_idx = features.contains(Features::EVENT_IDX);
        let driver = DriverQueue::with_heap_at(driver_ring(), position).unwrap();
        let (size, capacity) = (driver.size(), driver.capacity());
        Self {
            driver_ring,
            device_ring,
            space: space(usize::from(size) * PIECE as usize),
            pieces: (0..u64::from(size)).map(|piece| piece * PIECE).collect(),
            driver,
            device: DeviceQueue::with_heap_at(device_ring(), position).unwrap(),
            indirect: features.contains(Features::INDIRECT_DESC),
            event_idx,
            rules,
            size,
            capacity,
            free: capacity,
            number: 0,
            available: Direction::new(rules, event_idx),
            in_flight: Vec::new(),
            turns: VecDeque::new(),
            early: Vec::new(),
            used: Direction::new(rules, event_idx),
        }
    }

    pub(crate) fn run(mut self, steps: &[Step]) {
        for step in steps {
            self.step(step);
        }
        self.drain();
    }

    fn add(&mut self, readable: &[u8], writable: &[u8], indirect: bool) {
        let Some(piece) = self.pieces.last().copied() else {
            return;
        };
        let mut address = piece + TABLE_BYTES;
        let mut place = |lengths: &[u8]| -> Vec<Buffer> {
            lengths
                .iter()
                .map(|len| {
                    let buffer = Buffer::new(address, u32::from(*len));
                    address += u64::from(*len);
                    buffer
                })
                .collect()
        };
        let (readable, writable) = (place(readable), place(writable));
        let needed = readable.len() + writable.len();
        self.number = self.number.wrapping_add(1);
        let number = self.number;
        let mut at = 0;
        for buffer in &readable {
            for offset in 0..buffer.len as usize {
                bytes(&self.space, *buffer).copy_from(offset, &[content(number, at, false)]);
                at += 1;
            }
        }

        let descriptors = if indirect { 1 } else { needed as u16 };
        let limit = usize::from(if indirect { self.size } else { self.capacity });
        let cookie = Lent {
            number,
            piece,
            readable: readable.clone(),
            writable: writable.clone(),
            descriptors,
        };
        let expected = if needed == 0 {
            Some(AddError::Empty)
        } else if needed > limit {
            Some(AddError::TooManyDescriptors { needed, limit })
        } else if indirect && !self.indirect {
            Some(AddError::IndirectNotNegotiated)
        } else if descriptors > self.free {
            Some(AddError::Full {
                needed: usize::from(descriptors),
                free: self.free,
            })
        } else {
            None
        };
        let result = if indirect {
            let table =
                Bytes::new(self.space.window(), piece as usize, TABLE_BYTES as usize).unwrap();
            self.driver
                .add_indirect(&readable, &writable, &table, piece, cookie)
        } else {
            self.driver.add(&readable, &writable, cookie)
        };
        match (result, expected) {
            (Ok(()), None) => {
                self.pieces.pop();
                self.free -= descriptors;
                let entries = self.rules.entries(descriptors);
                self.available
                    .placed
                    .push(((number, readable, writable, entries), entries));
            }
            (Err(Rejected { reason, cookie }), Some(expected)) => {
                assert_eq!(reason, expected);
                assert_eq!(cookie.number, number, "another chain's cookie");
            }
            (result, expected) => panic!("{result:?}, expected {expected:?}"),
        }
        assert_eq!(self.driver.free(), self.free);
    }

    fn device_take(&mut self) {
        let mut segments = [Buffer::default(); 16];
        let chain = self.device.take(&self.space, &mut segments).unwrap();
        let expected = self.available.take(chain.is_some());
        let (Some(chain), Some((number, readable, writable, entries))) = (chain, expected) else {
            return;
        };
        assert_eq!(chain.readable(), readable);
        assert_eq!(chain.writable(), writable);
        assert_eq!(chain.readable_bytes(), total(&readable) as u64);
        assert_eq!(chain.writable_bytes(), total(&writable) as u64);
        let mut copy = [0; 300];
        let count = chain.read(&self.space, 0, &mut copy).unwrap();
        assert_eq!(count, total(&readable));
        assert!((0..count).all(|at| copy[at] == content(number, at, false)));
        let mut tail = [0; 10];
        let skip = count.saturating_sub(10);
        let tail_len = chain.read(&self.space, skip, &mut tail).unwrap();
        assert_eq!(tail[..tail_len], copy[skip..count]);
        self.turns
            .push_back((number, readable, writable.clone(), entries));
        self.in_flight.push(Taken {
            number,
            entries,
            head: chain.into_head(),
            writable,
        });
    }

    fn complete(&mut self, which: prop::sample::Index, len: Option<u8>) {
        if self.in_flight.is_empty() {
            return;
        }
        let Taken {
            number,
            entries,
            head,
            writable,
        } = self
            .in_flight
            .swap_remove(which.index(self.in_flight.len()));
        let writable_bytes = total(&writable);
        let written = len.map_or(writable_bytes, |len| writable_bytes.min(len.into()));
        let mut at = 0;
        for buffer in &writable {
            for offset in 0..buffer.len as usize {
                if at < written {
                    bytes(&self.space, *buffer).copy_from(offset, &[content(number, at, true)]);
                }
                at += 1;
            }
        }
        self.device.complete(head, written as u32).unwrap();
        self.place_used((number, written as u32), entries);
    }

    fn place_used(&mut self, used: (u8, u32), entries: u64) {
        if self.rules.in_order {
            self.early.push((used, entries));
        } else {
            self.used.placed.push((used, entries));
        }
    }

    /// Chains whose turn it is are placed.
    fn settle(&mut self) {
        while self.rules.in_order
            && let Some(turn) = self.turns.front()
            && let Some(at) = self.early.iter().position(|(used, _)| used.0 == turn.0)
        {
            self.turns.pop_front();
            self.used.placed.push(self.early.swap_remove(at));
        }
    }

    fn driver_take(&mut self) {
        let used = self.driver.take().unwrap();
        let expected = self.used.take(used.is_some());
        let (Some(used), Some((number, written))) = (used, expected) else {
            return;
        };
        let lent = used.cookie;
        assert_eq!((lent.number, used.written), (number, written));
        let mut at = 0;
        for buffer in &lent.writable {
            for offset in 0..buffer.len as usize {
                if at < written as usize {
                    let mut byte = [0];
                    bytes(&self.space, *buffer).copy_to(offset, &mut byte);
                    assert_eq!(byte, [content(number, at, true)]);
                }
                at += 1;
            }
        }
        self.free += lent.descriptors;
        self.pieces.push(lent.piece);
        assert_eq!(self.driver.free(), self.free);
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Add {
                readable,
                writable,
                indirect,
            } => self.add(readable, writable, *indirect),
            Step::PublishAvailable => {
                assert_eq!(self.driver.publish(), self.available.publish());
            }
            Step::ExposeAvailable => {
                self.driver.expose();
                self.available.expose();
            }
            Step::DevicePoll => {
                let answer = self.device.poll().unwrap();
                self.available.poll(answer, usize::from(self.size));
            }
            Step::DeviceSpin => {
                let answer = self.device.poll_spinning().unwrap();
                self.available.spin(answer, usize::from(self.size));
            }
            Step::DeviceTake => self.device_take(),
            Step::Complete(which, len) => self.complete(*which, *len),
            Step::PublishUsed => {
                self.settle();
                assert_eq!(self.device.publish(), self.used.publish());
            }
            Step::ExposeUsed => {
                self.settle();
                self.device.expose();
                self.used.expose();
            }
            Step::DriverPoll => {
                let answer = self.driver.poll().unwrap();
                self.used.poll(answer, self.in_flight_of_driver());
            }
            Step::DriverSpin => {
                let answer = self.driver.poll_spinning().unwrap();
                self.used.spin(answer, self.in_flight_of_driver());
            }
            Step::DriverTake => self.driver_take(),
            Step::DriverNotifications(None) => {
                self.driver.disable_notifications();
                self.used.disable();
            }
            Step::DriverNotifications(Some(count)) => {
                let in_flight = self.driver.positions().in_flight;
                let count_asked = u64::from((*count).min(in_flight).max(1));
                assert_eq!(
                    self.driver.enable_notifications_after(*count),
                    self.used.enable(count_asked)
                );
            }
            Step::DeviceNotifications(false) => {
                self.device.disable_notifications();
                self.available.disable();
            }
            Step::DeviceNotifications(true) => {
                assert_eq!(self.device.enable_notifications(), self.available.enable(1));
            }
            Step::SaveDriver => self.save_driver(),
            Step::SaveDevice => self.save_device(),
            Step::Reset => self.reset(),
        }
        assert_eq!(
            usize::from(self.device.positions().in_flight),
            self.in_flight.len()
        );
    }

    fn in_flight_of_driver(&self) -> usize {
        usize::from(self.driver.positions().in_flight)
    }

    /// The driver gets all back that it lent; the device has nothing any more.
    fn reset(&mut self) {
        let pieces = &mut self.pieces;
        self.driver.reset(|lent| pieces.push(lent.piece));
        self.device.reset();
        for Taken { head, .. } in self.in_flight.drain(..) {
            let refused = self.device.complete(head, 0).unwrap_err();
            assert!(matches!(refused.reason, CompleteError::NotTaken { .. }));
        }
        self.free = self.capacity;
        self.available = Direction::new(self.rules, self.event_idx);
        self.used = Direction::new(self.rules, self.event_idx);
        self.turns.clear();
        self.early.clear();
        assert_eq!(self.driver.free(), self.free);
        assert_eq!(self.pieces.len(), usize::from(self.size));
    }

    /// Brings everything back: nothing was lost, and no descriptor leaked.
    fn drain(&mut self) {
        self.step(&Step::PublishAvailable);
        self.step(&Step::DevicePoll);
        for _ in 0..=self.size {
            self.step(&Step::DeviceTake);
        }
        while let Some(taken) = self.in_flight.pop() {
            self.place_used((taken.number, 0), taken.entries);
            self.device.complete(taken.head, 0).unwrap();
        }
        self.step(&Step::PublishUsed);
        self.step(&Step::DriverPoll);
        for _ in 0..=self.size {
            self.step(&Step::DriverTake);
        }
        assert_eq!(self.driver.free(), self.capacity);
        assert_eq!(self.driver.positions().in_flight, 0);
        assert_eq!(self.pieces.len(), usize::from(self.size));
    }
}
