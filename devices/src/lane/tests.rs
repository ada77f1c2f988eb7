//! Lanes over tables and rings, both ends in one process.

use core::ops::ControlFlow;

use proptest::prelude::*;
use shmbus_ring::any::{DeviceRing, DriverRing};
use shmbus_ring::{Buffer, DeviceQueue, DriverQueue};
use shmbus_shm::{Bytes, Mapped, OffsetSpace, RingFormat};
use shmbus_table::{Epoch, Generation, InvalidValue, Value};

use super::*;

const SLOTS: u32 = 3;

/// The twins over rings of a few types and sizes.
pub(crate) fn twins() -> Vec<Carrier> {
    let kinds = [
        RingKind::plain(RingFormat::Split),
        RingKind::in_order(RingFormat::Packed),
        RingKind::plain(RingFormat::Tagged),
    ];
    let mut twins = Vec::new();
    for reading in [Reading::Every, Reading::Last] {
        for kind in kinds {
            for size in [1, 2, 16] {
                // A tagged ring needs an entry for its wall.
                if size > 1 || kind.format != RingFormat::Tagged {
                    twins.push(Carrier::Ring(RingCarrier {
                        kind,
                        size,
                        reading,
                    }));
                }
            }
        }
    }
    twins
}

/// The table, and all twins.
pub(crate) fn carriers() -> Vec<Carrier> {
    [vec![Carrier::Table], twins()].concat()
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Level(u64);

impl Value for Level {
    const TYPE_ID: u32 = u32::from_le_bytes(*b"LEVL");
    const WORDS: usize = 1;

    fn encode(&self, words: &mut [u64]) {
        words[0] = self.0;
    }

    fn decode(words: &[u64]) -> Result<Self, InvalidValue> {
        match words[0] {
            found @ 1_000_000.. => Err(InvalidValue {
                word: 0,
                found,
                expected: "below a million",
            }),
            level => Ok(Self(level)),
        }
    }
}

/// Which side sends.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Sender {
    Host,
    Guest,
}

struct Line {
    outlet: Outlet<Level, Mapped>,
    inlet: Inlet<Level, Mapped>,
    /// What the receiver has acted on, in order.
    acted: Vec<(u32, u64, Generation)>,
}

impl Line {
    fn new(carrier: Carrier, sender: Sender) -> Self {
        let lane = Lane::on_heap::<Level>(carrier, SLOTS).unwrap();
        // The guest's part comes first.
        let (outlet, inlet) = match sender {
            Sender::Guest => {
                let outlet = Outlet::at_guest(lane.clone(), SLOTS).unwrap();
                (outlet, Inlet::at_host(lane, SLOTS).unwrap())
            }
            Sender::Host => {
                let inlet = Inlet::at_guest(lane.clone(), SLOTS).unwrap();
                (Outlet::at_host(lane, SLOTS).unwrap(), inlet)
            }
        };
        Self {
            outlet,
            inlet,
            acted: Vec::new(),
        }
    }

    fn take(&mut self, limit: usize) -> bool {
        let acted = &mut self.acted;
        let more = self.inlet.take(limit, |slot, level, generation| {
            acted.push((slot, level.0, generation));
            ControlFlow::Continue(())
        });
        let _ = self.inlet.flush();
        more.unwrap()
    }

    /// Puts a value in; where a full ring refuses, the receiver takes one first.
    fn place(&mut self, slot: u32, level: u64) {
        while let Err(error) = self.outlet.place(slot, Level(level)) {
            assert_eq!(error, OutletError::Full);
            self.take(1);
            let _ = self.outlet.flush().unwrap();
        }
        let _ = self.outlet.flush().unwrap();
    }

    /// Lets everything arrive; the last value acted on of each slot.
    fn settle(&mut self) -> Vec<Option<u64>> {
        loop {
            let before = self.acted.len();
            let _ = self.outlet.flush().unwrap();
            while self.take(2) {}
            if self.acted.len() == before && self.outlet.waiting() == 0 {
                break;
            }
        }
        let last = |slot| self.acted.iter().rev().find(|one| one.0 == slot);
        (0..SLOTS).map(|slot| last(slot).map(|one| one.1)).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 2 } else { 64 }, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the order of sending and receiving, a table, a ring of which every element is acted on and one of which
    /// the last is end in the same state; and the ring of which every element is acted on leaves none out.
    #[test]
    fn table_and_rings_end_in_the_same_state(
        steps in prop::collection::vec((0..SLOTS, 0u64..1000, prop::option::of(1usize..4)), 0..if cfg!(miri) { 8 } else { 60 }),
        from_host: bool,
    ) {
        let sender = if from_host { Sender::Host } else { Sender::Guest };
        let mut expected = vec![None; SLOTS as usize];
        for (slot, level, _) in &steps {
            expected[*slot as usize] = Some(*level);
        }
        for carrier in carriers() {
            let mut line = Line::new(carrier, sender);
            for (slot, level, take) in &steps {
                line.place(*slot, *level);
                if let Some(limit) = take {
                    line.take(*limit);
                }
            }
            prop_assert_eq!(&line.settle(), &expected, "{:?}", carrier);
            for slot in 0..SLOTS {
                let of_slot = || line.acted.iter().filter(move |one| one.0 == slot);
                prop_assert!(of_slot().is_sorted_by(|a, b| a.2 < b.2), "newer ones later");
            }
            let every = matches!(carrier, Carrier::Ring(RingCarrier { reading: Reading::Every, .. }));
            if every && sender == Sender::Guest {
                let sent: Vec<_> = steps.iter().map(|(slot, level, _)| (*slot, *level)).collect();
                let acted: Vec<_> = line.acted.iter().map(|(slot, level, _)| (*slot, *level)).collect();
                prop_assert_eq!(sent, acted);
            }
        }
    }
}

#[test]
fn a_full_ring_keeps_the_newest_or_refuses() {
    for carrier in twins() {
        let Carrier::Ring(ring) = carrier else {
            continue;
        };
        let mut line = Line::new(carrier, Sender::Guest);
        let mut refused = 0;
        for level in 0..100 {
            let outcome = line.outlet.place(0, Level(level));
            refused += u32::from(outcome == Err(OutletError::Full));
            let _ = line.outlet.flush().unwrap();
        }
        let room = u32::from(ring.size) - u32::from(ring.kind.format == RingFormat::Tagged);
        let last = match ring.reading {
            Reading::Every => {
                assert_eq!((refused, line.outlet.waiting()), (100 - room, 0));
                u64::from(room) - 1
            }
            Reading::Last => {
                assert_eq!((refused, line.outlet.waiting()), (0, 1));
                99
            }
        };
        assert_eq!(line.settle()[0], Some(last), "{carrier:?}");
    }
}

/// Who waits for room is told when the other side has made some, and only once.
#[test]
fn a_sender_that_waits_is_told_of_room() {
    for carrier in twins() {
        let mut line = Line::new(carrier, Sender::Guest);
        while line.outlet.waiting() == 0 && line.outlet.place(0, Level(1)).is_ok() {
            let _ = line.outlet.flush().unwrap();
        }
        let mut told = 0;
        let mut element = |_, _, _| ControlFlow::Continue(());
        while line.inlet.take(1, &mut element).unwrap() {
            told += u32::from(line.inlet.flush().is_needed());
        }
        told += u32::from(line.inlet.flush().is_needed());
        assert_eq!(told, 1, "{carrier:?}");
    }
}

/// A receiver that found nothing is told of the next value; who is still behind is not told again.
#[test]
fn a_receiver_is_told_once_while_it_does_not_look() {
    for carrier in twins() {
        for sender in [Sender::Guest, Sender::Host] {
            let mut line = Line::new(carrier, sender);
            while line.take(8) {}
            let mut told = Vec::new();
            for level in 0..3 {
                let _ = line.outlet.place(0, Level(level));
                told.push(line.outlet.flush().unwrap().is_needed());
            }
            assert_eq!(told, [true, false, false], "{carrier:?} {sender:?}");
            while line.take(8) {}
            let _ = line.outlet.place(0, Level(9));
            assert!(line.outlet.flush().unwrap().is_needed(), "{carrier:?}");
        }
    }
}

/// A guest that lends no buffers costs a host no memory and no time, and gets the newest value when it does.
#[test]
fn a_host_never_waits_for_a_guest() {
    for carrier in twins() {
        let mut line = Line::new(carrier, Sender::Host);
        for level in 0..1000 {
            line.outlet.place(1, Level(level)).unwrap();
        }
        assert_eq!(line.outlet.waiting(), 1);
        assert_eq!(line.settle(), [None, Some(999), None], "{carrier:?}");
    }
}

/// What a hostile guest can put into a ring of levels.
fn hostile_element(bytes: &[u8], len: u32) -> InletError {
    let (lane, ring) = split_ring_of_four();
    let mut queue = DriverQueue::with_heap(DriverRing::new(ring.areas, ring.features).unwrap());
    Bytes::new(&ring.buffers, 0, bytes.len())
        .unwrap()
        .copy_from(0, bytes);
    queue.add(&[Buffer::new(0, len)], &[], ()).unwrap();
    let _ = queue.publish();
    let mut inlet = Inlet::<Level, Mapped>::at_host(lane, SLOTS).unwrap();
    inlet
        .take(8, |slot, level, _| panic!("{level:?} of slot {slot}"))
        .unwrap_err()
}

#[test]
fn an_element_that_is_none_is_refused() {
    let good = Generation::new(Epoch::FIRST, 1).unwrap().word();
    let words = |words: [u64; 3]| words.map(u64::to_le_bytes).concat();
    let element = |all| match hostile_element(&words(all), 24) {
        InletError::Ring(RingError::Element(error)) => error,
        error => panic!("{error}"),
    };
    let slot = |slot| ElementError::Slot { slot, slots: 3 };
    assert_eq!(element([3, good, 5]), slot(3));
    assert_eq!(element([1 << 32, good, 5]), slot(1 << 32));
    for found in [0, 7, u64::MAX] {
        let slot = 2;
        let last = 0;
        let refused = ElementError::Generation { slot, found, last };
        assert_eq!(element([2, found, 5]), refused);
    }
    assert!(matches!(
        element([1, good, u64::MAX]),
        ElementError::Value { slot: 1, .. }
    ));
    for len in [8, 23, 25, 1 << 20] {
        let error = hostile_element(&words([0, good, 5]), len);
        let found = len.into();
        let refused = ElementError::Bytes {
            expected: 24,
            found,
        };
        assert_eq!(error, RingError::Element(refused).into());
    }
}

fn split_ring_of_four() -> (Lane<Mapped>, RingLane<Mapped>) {
    let carrier = Carrier::Ring(RingCarrier {
        kind: RingKind::plain(RingFormat::Split),
        size: 4,
        reading: Reading::Last,
    });
    let lane = Lane::on_heap::<Level>(carrier, SLOTS).unwrap();
    let Lane::Ring(ring) = lane.clone() else {
        unreachable!("it was asked for");
    };
    (lane, ring)
}

/// Whatever a host says it has written, and whatever a guest lends.
#[test]
fn buffers_of_another_length_are_refused() {
    for found in [0, 8, 23] {
        let refused = |error| {
            let expected = 24;
            let found = found.into();
            error == RingError::Element(ElementError::Bytes { expected, found })
        };
        let (lane, ring) = split_ring_of_four();
        let mut inlet = Inlet::<Level, Mapped>::at_guest(lane, SLOTS).unwrap();
        let mut host = DeviceQueue::with_heap(DeviceRing::new(ring.areas, ring.features).unwrap());
        host.poll().unwrap();
        let space = OffsetSpace::new(ring.buffers);
        let mut segments = [Buffer::default(); 1];
        let chain = host.take(&space, &mut segments).unwrap();
        host.complete(chain.unwrap(), found).unwrap();
        let _ = host.publish();
        let error = inlet.take(8, |_, _, _| panic!("there is none"));
        assert!(matches!(error, Err(InletError::Ring(error)) if refused(error)));

        let (lane, ring) = split_ring_of_four();
        let mut guest = DriverQueue::with_heap(DriverRing::new(ring.areas, ring.features).unwrap());
        // A chain of no bytes is no chain.
        let lent = Buffer::new(0, found.max(1));
        guest.add(&[], &[lent], ()).unwrap();
        let _ = guest.publish();
        let mut outlet = Outlet::<Level, Mapped>::at_host(lane, SLOTS).unwrap();
        assert!(matches!(
            outlet.place(0, Level(1)),
            Err(OutletError::Ring(RingError::Element(ElementError::Bytes {
                expected: 24,
                ..
            })))
        ));
    }
}

/// An older generation after a newer one is refused, as a table's reader would never see it.
#[test]
fn generations_only_grow() {
    let mut last = [0; SLOTS as usize];
    let mut bytes = [0; element::MOST_BYTES];
    let generation = |count| Generation::new(Epoch::FIRST, count).unwrap();
    for (count, is_taken) in [(2, true), (2, false), (1, false), (3, true)] {
        element::encode(1, generation(count), &Level(7), &mut bytes);
        let taken = element::decode::<Level>(&bytes, &mut last);
        assert_eq!(taken.is_ok(), is_taken, "{count}: {taken:?}");
    }
}

/// A sender that sends on while the receiver takes does not keep it taking, whatever the limit.
#[test]
fn a_call_takes_no_more_than_a_ring_holds() {
    let kind = RingKind::plain(RingFormat::Split);
    for reading in [Reading::Every, Reading::Last] {
        let size = 64;
        let mut line = Line::new(
            Carrier::Ring(RingCarrier {
                kind,
                size,
                reading,
            }),
            Sender::Guest,
        );
        line.place(0, 1);
        let (outlet, mut taken) = (&mut line.outlet, 0);
        let more = line.inlet.take(usize::MAX, |_, _, _| {
            taken += 1;
            assert!(taken <= 1_000, "it goes on and on");
            for level in 0..2 {
                let _ = outlet.keep(0, Level(level)).unwrap();
                let _ = outlet.flush().unwrap();
            }
            ControlFlow::Continue(())
        });
        assert!(more.is_ok() && taken <= usize::from(size) + 1, "{taken}");
    }
}
