//! The guest's side and the host's side together, against a model: over tables, and over the rings of the twins.

use std::collections::BTreeMap;

use proptest::prelude::*;
use shmbus_ring::any::DriverRing;
use shmbus_ring::{Buffer, DriverQueue, RingKind};
use shmbus_shm::{Mapped, RingFormat, heap};
use shmbus_table::{Epoch, InvalidValue, TypedWriter, Value, layout_of};

use super::*;
use crate::SessionId;
use crate::lane::tests::{carriers, twins};
use crate::lane::{Carrier, InletError, Lane, OutletError, Reading, RingCarrier};

const SLOTS: u32 = 3;
const GUESTS: u64 = 3;

pub(super) fn owner(guest: u64) -> TimerOwner {
    TimerOwner {
        session: SessionId(guest),
        vcpu: 0,
    }
}

/// A guest's driver; the host's side is added to `timers`.
pub(super) fn guest_over(
    carrier: Carrier,
    timers: &mut Timers<Mapped>,
    id: u64,
    slots: u32,
) -> TimerDriver<Mapped> {
    let lanes = TimerLanes::on_heap(carrier, slots).unwrap();
    let driver = TimerDriver::new(lanes.clone(), slots).unwrap();
    timers.add(owner(id), lanes, slots).unwrap();
    driver
}

pub(super) fn guest(timers: &mut Timers<Mapped>, id: u64, slots: u32) -> TimerDriver<Mapped> {
    guest_over(Carrier::Table, timers, id, slots)
}

/// Any words, for a peer that writes what it likes.
struct Words([u64; Deadline::WORDS]);

impl Value for Words {
    const TYPE_ID: u32 = Deadline::TYPE_ID;
    const WORDS: usize = Deadline::WORDS;

    fn encode(&self, words: &mut [u64]) {
        words.copy_from_slice(&self.0);
    }

    fn decode(words: &[u64]) -> Result<Self, InvalidValue> {
        Ok(Self([words[0], words[1], words[2]]))
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// A deadline so many nanoseconds from now, which may be past.
    Set(u64, u32, i64),
    SetNever(u64, u32),
    Cancel(u64, u32),
    /// The guest's signal reaches the host.
    Look {
        guest: u64,
        limit: usize,
    },
    Expire {
        later: u64,
        limit: usize,
    },
    Poll(u64),
    /// The guest loses its connection and comes back, or resets its device.
    Reconnect {
        guest: u64,
        new_memory: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let guest = 0..GUESTS;
    let timer = (0..GUESTS, 0..SLOTS);
    prop_oneof![
        4 => (timer.clone(), -50i64..200).prop_map(|((g, s), ns)| Step::Set(g, s, ns)),
        1 => timer.clone().prop_map(|(g, s)| Step::SetNever(g, s)),
        1 => timer.prop_map(|(g, s)| Step::Cancel(g, s)),
        3 => (guest.clone(), 0usize..4).prop_map(|(guest, limit)| Step::Look { guest, limit }),
        3 => (0u64..100, 0usize..4).prop_map(|(later, limit)| Step::Expire { later, limit }),
        2 => guest.clone().prop_map(Step::Poll),
        1 => (guest, any::<bool>()).prop_map(|(guest, new_memory)| Step::Reconnect { guest, new_memory }),
    ]
}

/// What a timer should do.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Expected {
    Off,
    Armed(u64),
    /// The host has fired it; the guest has not looked yet. Over rings this is not followed: there the host may fire for
    /// a deadline that a newer one on its way has superseded, which the guest discards.
    Fired(u64),
}

struct Bus {
    carrier: Carrier,
    now_ns: u64,
    timers: Timers<Mapped>,
    drivers: Vec<TimerDriver<Mapped>>,
    memories: Vec<TimerLanes<Mapped>>,
    model: BTreeMap<(u64, u32), Expected>,
}

impl Bus {
    fn new(carrier: Carrier) -> Self {
        let mut timers = Timers::default();
        let memories: Vec<_> = (0..GUESTS)
            .map(|_| TimerLanes::on_heap(carrier, SLOTS).unwrap())
            .collect();
        let mut drivers = Vec::new();
        for (id, lanes) in (0..).zip(&memories) {
            drivers.push(TimerDriver::new(lanes.clone(), SLOTS).unwrap());
            timers.add(owner(id), lanes.clone(), SLOTS).unwrap();
        }
        Self {
            carrier,
            now_ns: 1_000,
            timers,
            drivers,
            memories,
            model: (0..GUESTS)
                .flat_map(|guest| (0..SLOTS).map(move |slot| ((guest, slot), Expected::Off)))
                .collect(),
        }
    }

    fn is_table(&self) -> bool {
        self.carrier == Carrier::Table
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Set(guest, slot, offset) => {
                self.set(guest, slot, self.now_ns.saturating_add_signed(offset))
            }
            Step::SetNever(guest, slot) => self.set(guest, slot, u64::MAX),
            Step::Cancel(guest, slot) => {
                while self.drivers[guest as usize].cancel(slot) == Err(OutletError::Full) {
                    self.look(guest, 1);
                    self.poll(guest);
                }
                self.model.insert((guest, slot), Expected::Off);
            }
            Step::Look { guest, limit } => {
                self.look(guest, limit);
            }
            Step::Expire { later, limit } => {
                self.now_ns += later;
                self.expire(limit);
            }
            Step::Poll(guest) => self.poll(guest),
            Step::Reconnect { guest, new_memory } => self.reconnect(guest, new_memory),
        }
    }

    fn look(&mut self, guest: u64, limit: usize) -> bool {
        let more = self.timers.look(owner(guest), self.now_ns, limit);
        self.timers.flush(|_, _| {});
        more
    }

    fn reconnect(&mut self, id: u64, new_memory: bool) {
        // A new connection has new memory; a device that is only reset keeps its own.
        let (carrier, lanes) = (self.carrier, &mut self.memories[id as usize]);
        if new_memory {
            *lanes = TimerLanes::on_heap(carrier, SLOTS).unwrap();
        }
        if carrier != Carrier::Table {
            // A ring is begun anew by a reset of the device; a table's next epoch is enough.
            self.timers.remove(owner(id));
        }
        let driver = &mut self.drivers[id as usize];
        let _ = driver.move_to(lanes.clone()).unwrap();
        if carrier == Carrier::Table {
            let _ = driver
                .poll(|fired| panic!("{fired:?} of an earlier life"))
                .unwrap();
        }
        self.timers.add(owner(id), lanes.clone(), SLOTS).unwrap();
        for ((guest, _), expected) in &mut self.model {
            // What had fired and was not seen is set again, and fires again.
            if let (true, Expected::Fired(deadline)) = (*guest == id, *expected) {
                *expected = Expected::Armed(deadline);
            }
        }
    }

    fn set(&mut self, guest: u64, slot: u32, deadline_ns: u64) {
        let notify = loop {
            match self.drivers[guest as usize].set(slot, deadline_ns) {
                Err(OutletError::Full) => {
                    self.look(guest, 1);
                    self.poll(guest);
                }
                outcome => break outcome.unwrap(),
            }
        };
        let expected = self.model.get_mut(&(guest, slot)).unwrap();
        match *expected {
            Expected::Armed(same) | Expected::Fired(same) if same == deadline_ns => {
                assert!(!notify.is_needed(), "nothing changed");
            }
            _ => *expected = Expected::Armed(deadline_ns),
        }
    }

    fn expire(&mut self, limit: usize) {
        let (is_table, now_ns, model) = (self.is_table(), self.now_ns, &mut self.model);
        let mut count = 0;
        let more = self.timers.expire(now_ns, limit, |fired| {
            count += 1;
            if !is_table {
                return;
            }
            let expected = model.get_mut(&(fired.owner.session.0, fired.slot)).unwrap();
            let Expected::Armed(deadline_ns) = *expected else {
                panic!("{fired:?} fired, but should be {expected:?}");
            };
            assert!(deadline_ns <= now_ns, "{fired:?} is early");
            *expected = Expected::Fired(deadline_ns);
        });
        self.timers.flush(|_, _| {});
        assert!(count <= limit);
        assert_eq!(
            more,
            self.timers
                .next_deadline_ns()
                .is_some_and(|next| next <= now_ns)
        );
    }

    fn poll(&mut self, guest: u64) {
        let (is_table, now_ns, model) = (self.is_table(), self.now_ns, &mut self.model);
        let _ = self.drivers[guest as usize]
            .poll(|fired| {
                let deadline_ns = fired.deadline_ns;
                let expected = if is_table {
                    Expected::Fired(deadline_ns)
                } else {
                    Expected::Armed(deadline_ns)
                };
                let found = model.insert((guest, fired.slot), Expected::Off);
                assert_eq!(found, Some(expected));
                assert!((deadline_ns..=now_ns).contains(&fired.fired_ns));
            })
            .unwrap();
        let unseen = self
            .model
            .range((guest, 0)..(guest + 1, 0))
            .find(|(_, expected)| matches!(expected, Expected::Fired(_)));
        assert_eq!(unseen, None, "an expiration was lost");
    }

    /// Every signal arrives and every finite deadline passes.
    fn settle(&mut self) {
        // Rings need rounds: what waits for room goes out when the other side has made some.
        let rounds = if self.is_table() { 1 } else { 8 };
        for _ in 0..rounds {
            for guest in 0..GUESTS {
                while self.look(guest, 2) {}
            }
            self.now_ns += 1_000;
            self.expire(usize::MAX);
            (0..GUESTS).for_each(|guest| self.poll(guest));
        }
        for (timer, expected) in &self.model {
            assert!(
                matches!(expected, Expected::Off | Expected::Armed(u64::MAX)),
                "{timer:?} never fired: {expected:?}"
            );
        }
        let never = self
            .model
            .values()
            .filter(|e| **e == Expected::Armed(u64::MAX));
        assert_eq!(self.timers.armed(), never.count());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 4 } else { 256 }, failure_persistence: None, ..ProptestConfig::default() })]

    /// None lost, none early, none that was superseded, each once, whatever the order of signals and reads: over tables,
    /// and over one of the twins.
    #[test]
    fn timers_do_what_the_model_does(
        steps in prop::collection::vec(step(), 0..if cfg!(miri) { 20 } else { 200 }),
        twin in 0..twins().len(),
    ) {
        for carrier in [Carrier::Table, twins()[twin]] {
            let mut bus = Bus::new(carrier);
            steps.iter().for_each(|step| bus.step(*step));
            bus.settle();
            let host = bus.timers.counters();
            prop_assert_eq!(bus.timers.lateness().count(), host.fired);
        }
    }
}

#[test]
fn only_the_last_deadline_counts() {
    let mut timers = Timers::default();
    let mut driver = guest(&mut timers, 7, 1);
    assert!(driver.set(0, 100).unwrap().is_needed());
    assert!(!driver.set(0, 100).unwrap().is_needed());
    timers.look(owner(7), 0, 100);
    assert_eq!(timers.next_deadline_ns(), Some(100));

    // The host hears of this one only when the first is due, and fires neither too early.
    let _ = driver.set(0, 300).unwrap();
    assert!(!timers.expire(200, 8, |fired| panic!("{fired:?}")));
    assert_eq!(timers.next_deadline_ns(), Some(300));
    assert_eq!(timers.counters().superseded, 1);

    // An expiration that crosses a newer deadline is discarded.
    let mut count = 0;
    timers.expire(300, 8, |_| count += 1);
    assert_eq!(count, 1);
    let _ = driver.set(0, 500).unwrap();
    let _ = driver.poll(|fired| panic!("{fired:?}")).unwrap();
    assert_eq!(driver.counters().discarded, 1);
    assert_eq!(driver.deadline_ns(0), Some(500));
    timers.look(owner(7), 310, 100);
    assert_eq!(timers.counters().superseded, 1, "the one before had fired");
}

#[test]
fn a_departed_guest_leaves_no_timer() {
    let mut timers = Timers::default();
    let mut drivers: Vec<_> = (0..2).map(|id| guest(&mut timers, id, 100)).collect();
    for driver in &mut drivers {
        for slot in 0..100 {
            let _ = driver.set(slot, 10 + u64::from(slot)).unwrap();
        }
    }
    for id in 0..2 {
        timers.look(owner(id), 0, 100);
    }
    assert_eq!(timers.armed(), 200);
    timers.remove(owner(0));
    assert_eq!(timers.armed(), 100);
    timers.expire(1_000, 1_000, |fired| assert_eq!(fired.owner, owner(1)));
    assert_eq!(timers.next_deadline_ns(), None);
}

/// Deadlines long past, endlessly renewed, do not keep another guest's timer waiting.
#[test]
fn a_guest_cannot_get_ahead_of_others_by_lying() {
    let mut timers = Timers::default();
    let mut liar = guest(&mut timers, 0, 64);
    let mut honest = guest(&mut timers, 1, 1);
    let _ = honest.set(0, 1_000).unwrap();
    timers.look(owner(1), 900, 100);
    let mut fired_at = None;
    for round in 0..100u64 {
        let now = 990 + 10 * round;
        for slot in 0..64 {
            let _ = liar.set(slot, round % 7).unwrap();
        }
        timers.look(owner(0), now, 100);
        timers.expire(now, 8, |fired| {
            if fired.owner == owner(1) {
                fired_at.get_or_insert(now);
            }
        });
    }
    // Before it is due there are the liar's 64 timers of the first look, 8 a call.
    assert!(
        fired_at.is_some_and(|at| at <= 1_000 + 10 * 64 / 8),
        "{fired_at:?}"
    );
    assert!(timers.armed() <= 65);
}

#[test]
fn a_guest_that_breaks_the_rules_is_cut_off_alone() {
    let mut timers = Timers::default();
    let mut honest = guest(&mut timers, 0, 1);
    let _ = honest.set(0, 10).unwrap();

    let window = heap(layout_of::<Deadline>(3).unwrap().bytes());
    let epoch = Epoch::FIRST;
    let mut hostile =
        TypedWriter::<Words, _, _>::create(window.clone(), 3, epoch, vec![0; 3]).unwrap();
    let lanes = TimerLanes {
        deadlines: Lane::Table(window),
        ..TimerLanes::on_heap(Carrier::Table, 3).unwrap()
    };
    timers.add(owner(1), lanes, 3).unwrap();
    let _ = hostile.publish(0, &Words([1, 5, 0])).unwrap();
    let _ = hostile.publish(1, &Words([2, 5, 0])).unwrap();
    for id in 0..2 {
        timers.look(owner(id), 0, 100);
    }

    let (broken, fault) = timers.take_fault().unwrap();
    assert_eq!(broken, owner(1));
    assert!(
        matches!(
            fault,
            GuestFault::Deadlines(InletError::Slot { slot: 1, .. })
        ),
        "{fault}"
    );
    assert_eq!(timers.take_fault(), None);
    assert_eq!(timers.armed(), 1);
    timers.look(owner(1), 0, 100);
    assert_eq!(timers.take_fault(), None, "latched, not repeated");
    let mut fired = Vec::new();
    timers.expire(10, 8, |one| fired.push(one.owner));
    assert_eq!(fired, [owner(0)]);
}

/// A guest that has looked is told of the next expiration, whatever the size of the ring.
#[test]
fn a_guest_that_has_looked_is_told_of_the_next_expiration() {
    for carrier in carriers() {
        let mut timers = Timers::default();
        let mut driver = guest_over(carrier, &mut timers, 0, 1);
        for round in 1..40 {
            let _ = driver.set(0, round).unwrap();
            while timers.look(owner(0), 0, 8) {}
            timers.flush(|_, _| {});
            let mut told = false;
            timers.expire(round, 8, |_| {});
            timers.flush(|_, notify| told |= notify.is_needed());
            assert!(told, "{carrier:?}, {round}");
            let mut fired = 0;
            let _ = driver.poll(|_| fired += 1).unwrap();
            assert_eq!(fired, 1, "{carrier:?}, {round}");
        }
    }
}

/// Over rings too, a guest that sends what is no deadline is cut off alone.
#[test]
fn a_twin_s_guest_that_breaks_the_rules_is_cut_off_alone() {
    let carrier = |reading| {
        Carrier::Ring(RingCarrier {
            kind: RingKind::plain(RingFormat::Split),
            size: 4,
            reading,
        })
    };
    for reading in [Reading::Every, Reading::Last] {
        let mut timers = Timers::<Mapped>::default();
        let mut honest = guest_over(carrier(reading), &mut timers, 0, 1);
        let _ = honest.set(0, 10).unwrap();
        let lanes = TimerLanes::on_heap(carrier(reading), 1).unwrap();
        timers.add(owner(1), lanes.clone(), 1).unwrap();
        let Lane::Ring(ring) = lanes.deadlines else {
            unreachable!("it was asked for");
        };
        let mut queue = DriverQueue::with_heap(DriverRing::new(ring.areas, ring.features).unwrap());
        queue.add(&[Buffer::new(0, 8)], &[], ()).unwrap();
        let _ = queue.publish();
        for id in 0..2 {
            timers.look(owner(id), 0, 8);
        }
        let (broken, fault) = timers.take_fault().unwrap();
        assert_eq!(broken, owner(1), "{fault}");
        timers.look(owner(1), 0, 8);
        assert_eq!(timers.take_fault(), None, "latched, not repeated");
        assert_eq!(timers.armed(), 1, "the other guest's");
    }
}
