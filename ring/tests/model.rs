//! Driver against device, and both against a model, in every format: random batches, chains, indirect tables,
//! suppression and completion in any order, from any start position, so that indices wrap.

mod support;

use std::collections::VecDeque;

use proptest::prelude::*;
use shmbus_ring::{
    AddError, Buffer, ChainHead, DeviceFormat, DeviceQueue, DeviceSlot, DriverFormat, DriverQueue,
    DriverSlot, Recheck, Rejected,
};
use shmbus_ring::{packed, split};
use shmbus_shm::{Bytes, Mapped, Notify, OffsetSpace};
use shmbus_virtio::Features;
use support::heap_ring::{Memory, bytes, space};
use support::packed_ring;

/// Each chain has its own piece of memory: an indirect table, then buffers.
const PIECE: u64 = 1024;
const TABLE_BYTES: u64 = 256;

#[derive(Clone, Debug)]
enum Step {
    Add {
        readable: Vec<u8>,
        writable: Vec<u8>,
        indirect: bool,
    },
    PublishAvailable,
    DevicePoll,
    DeviceTake,
    Complete(prop::sample::Index, u8),
    PublishUsed,
    DriverPoll,
    DriverTake,
    DriverNotifications(Option<u16>),
    DeviceNotifications(bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let lengths = || prop::collection::vec(0_u8..60, 0..5);
    let step = prop_oneof![
        6 => (lengths(), lengths(), any::<bool>()).prop_map(|(readable, writable, indirect)| {
            Step::Add { readable, writable, indirect }
        }),
        3 => Just(Step::PublishAvailable),
        3 => Just(Step::DevicePoll),
        6 => Just(Step::DeviceTake),
        6 => (any::<prop::sample::Index>(), any::<u8>()).prop_map(|(at, len)| Step::Complete(at, len)),
        3 => Just(Step::PublishUsed),
        3 => Just(Step::DriverPoll),
        6 => Just(Step::DriverTake),
        1 => prop::option::of(0_u16..6).prop_map(Step::DriverNotifications),
        1 => any::<bool>().prop_map(Step::DeviceNotifications),
    ];
    prop::collection::vec(step, 1..if cfg!(miri) { 60 } else { 400 })
}

fn features() -> impl Strategy<Value = Features> {
    (any::<bool>(), any::<bool>()).prop_map(|(indirect, event_idx)| {
        let mut features = Features::empty();
        features.set(Features::INDIRECT_DESC, indirect);
        features.set(Features::EVENT_IDX, event_idx);
        features
    })
}

/// What the driver lent; it is the cookie as well, and as it is no copy it cannot come back twice.
#[derive(Debug, PartialEq, Eq)]
struct Lent {
    number: u8,
    piece: u64,
    readable: Vec<Buffer>,
    writable: Vec<Buffer>,
    descriptors: u16,
}

#[derive(Debug)]
struct Taken {
    number: u8,
    entries: u64,
    head: ChainHead,
    writable: Vec<Buffer>,
}

/// How the formats differ, to those who use them.
#[derive(Clone, Copy, Debug)]
struct Rules {
    /// Entries are told apart modulo this: events come round.
    lap: u64,
    /// A poll knows how many chains there are, and not only whether there is one; a batch ends there.
    counts: bool,
    /// With `EVENT_IDX` too, notifications can be switched off.
    disables: bool,
    /// Available positions are those of descriptors, so that a chain may take up several.
    by_descriptor: bool,
    /// Before any wish everything is told, with `EVENT_IDX` too.
    starts_enabled: bool,
}

impl Rules {
    const SPLIT: Self = Self {
        lap: 65536,
        counts: true,
        disables: false,
        by_descriptor: false,
        starts_enabled: false,
    };

    fn packed(size: u16) -> Self {
        Self {
            lap: 2 * u64::from(size),
            counts: false,
            disables: true,
            by_descriptor: true,
            starts_enabled: true,
        }
    }

    /// How many positions a chain of so many descriptors takes up.
    fn entries(self, descriptors: u16) -> u64 {
        if self.by_descriptor {
            u64::from(descriptors)
        } else {
            1
        }
    }
}

/// What a reader asked to be told of.
#[derive(Clone, Copy, Debug)]
enum Wish {
    Everything,
    Nothing,
    /// The entry (`VIRTIO_F_EVENT_IDX`).
    Entry(u64),
}

/// One direction of the ring: what was placed and published in it, and what its reader asked for. Positions are
/// counted in entries, without wrapping, from the start on.
#[derive(Debug)]
struct Direction<E> {
    rules: Rules,
    event_idx: bool,
    /// Each with the entries that it takes up.
    placed: Vec<(E, u64)>,
    published: VecDeque<(E, u64)>,
    /// How many of `published` the reader may take.
    batch: usize,
    index: u64,
    taken: u64,
    wish: Wish,
}

impl<E> Direction<E> {
    fn new(rules: Rules, event_idx: bool) -> Self {
        Self {
            rules,
            event_idx,
            placed: Vec::new(),
            published: VecDeque::new(),
            batch: 0,
            index: 0,
            taken: 0,
            wish: if event_idx && !rules.starts_enabled {
                Wish::Entry(0)
            } else {
                Wish::Everything
            },
        }
    }

    fn publish(&mut self) -> Notify {
        let old = self.index;
        self.index += self.placed.iter().map(|(_, entries)| entries).sum::<u64>();
        self.published.extend(self.placed.drain(..));
        let lap = self.rules.lap;
        let wanted = match self.wish {
            Wish::Everything => old != self.index,
            Wish::Nothing => false,
            Wish::Entry(event) => (old..self.index).any(|entry| entry % lap == event % lap),
        };
        if wanted { Notify::Yes } else { Notify::No }
    }

    /// `most` is how many chains a batch may have where the poll does not know their number.
    fn poll(&mut self, most: usize) -> u16 {
        let known = self.published.len();
        // A poll that finds nothing begins no batch: what comes behind it waits for the next one.
        self.batch = if self.rules.counts || known == 0 {
            known
        } else {
            most
        };
        (if self.rules.counts {
            known
        } else {
            known.min(1)
        }) as u16
    }

    fn take(&mut self) -> Option<E> {
        if self.batch == 0 {
            return None;
        }
        let (element, entries) = self.published.pop_front()?;
        self.batch -= 1;
        self.taken += entries;
        Some(element)
    }

    fn disable(&mut self) {
        if self.rules.disables || !self.event_idx {
            self.wish = Wish::Nothing;
        }
    }

    fn enable(&mut self, count: u64) -> Recheck {
        let count = if self.event_idx { count } else { 1 };
        self.wish = if self.event_idx {
            Wish::Entry(self.taken + count - 1)
        } else {
            Wish::Everything
        };
        // Who does not know their number takes what is there first.
        let enough = if self.rules.counts { count } else { 1 };
        if (self.published.len() as u64) < enough {
            Recheck::Empty
        } else {
            Recheck::Ready
        }
    }
}

struct Run<D, V> {
    space: OffsetSpace<Mapped>,
    pieces: Vec<u64>,
    driver: DriverQueue<D, Lent, Vec<DriverSlot<Lent>>>,
    device: DeviceQueue<V, Vec<DeviceSlot>>,
    indirect: bool,
    rules: Rules,
    size: u16,
    free: u16,
    number: u8,
    available: Direction<(u8, Vec<Buffer>, Vec<Buffer>, u64)>,
    in_flight: Vec<Taken>,
    used: Direction<(u8, u32)>,
}

/// The content of a chain's byte at `at`: what the driver wrote, or what the device answers.
fn content(number: u8, at: usize, answer: bool) -> u8 {
    number.wrapping_mul(7).wrapping_add(at as u8) ^ if answer { 0xff } else { 0 }
}

fn total(buffers: &[Buffer]) -> usize {
    buffers.iter().map(|buffer| buffer.len as usize).sum()
}

fn run_split(size: u16, position: u16, features: Features, halves: bool, steps: &[Step]) {
    let memory = if halves {
        Memory::with_halves(size)
    } else {
        Memory::new(size)
    };
    let driver = split::DriverRing::new(memory.areas(), features).unwrap();
    let device = split::DeviceRing::new(memory.areas(), features).unwrap();
    Run::new(driver, device, Rules::SPLIT, position, features).run(steps);
}

fn run_packed(size: u16, position: u16, features: Features, steps: &[Step]) {
    let memory = packed_ring::Memory::new(size);
    let driver = packed::DriverRing::new(memory.areas(), features).unwrap();
    let device = packed::DeviceRing::new(memory.areas(), features).unwrap();
    Run::new(driver, device, Rules::packed(size), position, features).run(steps);
}

impl<D: DriverFormat, V: DeviceFormat> Run<D, V> {
    fn new(driver: D, device: V, rules: Rules, position: u16, features: Features) -> Self {
        let event_idx = features.contains(Features::EVENT_IDX);
        let driver = DriverQueue::with_heap_at(driver, position).unwrap();
        let size = driver.size();
        Self {
            space: space(usize::from(size) * PIECE as usize),
            pieces: (0..u64::from(size)).map(|piece| piece * PIECE).collect(),
            driver,
            device: DeviceQueue::with_heap_at(device, position).unwrap(),
            indirect: features.contains(Features::INDIRECT_DESC),
            rules,
            size,
            free: size,
            number: 0,
            available: Direction::new(rules, event_idx),
            in_flight: Vec::new(),
            used: Direction::new(rules, event_idx),
        }
    }

    fn run(mut self, steps: &[Step]) {
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
        let cookie = Lent {
            number,
            piece,
            readable: readable.clone(),
            writable: writable.clone(),
            descriptors,
        };
        let expected = if needed == 0 {
            Some(AddError::Empty)
        } else if needed > usize::from(self.size) {
            Some(AddError::TooManyDescriptors {
                needed,
                limit: usize::from(self.size),
            })
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
        let Some((number, readable, writable, entries)) = self.available.take() else {
            assert_eq!(chain, None);
            return;
        };
        let chain = chain.expect("a chain is available");
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
        self.in_flight.push(Taken {
            number,
            entries,
            head: chain.into_head(),
            writable,
        });
    }

    fn complete(&mut self, which: prop::sample::Index, len: u8) {
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
        let written = usize::from(len).min(total(&writable));
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
        self.used.placed.push(((number, written as u32), entries));
    }

    fn driver_take(&mut self) {
        let used = self.driver.take().unwrap();
        let Some((number, written)) = self.used.take() else {
            assert_eq!(used, None);
            return;
        };
        let used = used.expect("a chain came back");
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
            Step::DevicePoll => {
                let most = usize::from(self.size);
                assert_eq!(self.device.poll().unwrap(), self.available.poll(most));
            }
            Step::DeviceTake => self.device_take(),
            Step::Complete(which, len) => self.complete(*which, *len),
            Step::PublishUsed => assert_eq!(self.device.publish(), self.used.publish()),
            Step::DriverPoll => {
                let most = usize::from(self.driver.positions().in_flight);
                assert_eq!(self.driver.poll().unwrap(), self.used.poll(most));
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
        }
        assert_eq!(
            usize::from(self.device.positions().in_flight),
            self.in_flight.len()
        );
    }

    /// Brings everything back: nothing was lost, and no descriptor leaked.
    fn drain(&mut self) {
        self.step(&Step::PublishAvailable);
        self.step(&Step::DevicePoll);
        for _ in 0..=self.size {
            self.step(&Step::DeviceTake);
        }
        while let Some(taken) = self.in_flight.pop() {
            self.used.placed.push(((taken.number, 0), taken.entries));
            self.device.complete(taken.head, 0).unwrap();
        }
        self.step(&Step::PublishUsed);
        self.step(&Step::DriverPoll);
        for _ in 0..=self.size {
            self.step(&Step::DriverTake);
        }
        assert_eq!(self.driver.free(), self.size);
        assert_eq!(self.driver.positions().in_flight, 0);
        assert_eq!(self.pieces.len(), usize::from(self.size));
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 8 } else { 400 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn both_sides_of_a_split_ring_do_what_the_model_does(
        shift in 0_u32..6,
        position in prop_oneof![any::<u16>(), 0xff80_u16..=0xffff],
        features in features(),
        halves: bool,
        steps in steps(),
    ) {
        run_split(1 << shift, position, features, halves, &steps);
    }

    #[test]
    fn both_sides_of_a_packed_ring_do_what_the_model_does(
        (size, offset) in (1_u16..33).prop_flat_map(|size| (Just(size), 0..size)),
        wrap: bool,
        features in features(),
        steps in steps(),
    ) {
        run_packed(size, offset | u16::from(wrap) << 15, features, &steps);
    }
}
