//! The guest's side and the host's side together, against a model.

use std::collections::BTreeMap;

use proptest::prelude::*;
use shmbus_shm::{Mapped, heap};
use shmbus_table::{Epoch, InvalidValue, TypedWriter, Value, layout_of};

use super::*;
use crate::SessionId;

const SLOTS: u32 = 3;
const GUESTS: u64 = 3;

fn memory<V: Value>(timers: u32) -> Mapped {
    heap(layout_of::<V>(timers).unwrap().bytes())
}

/// A guest's driver; the host's side is added to `timers`.
fn guest(timers: &mut Timers<Mapped>, id: u64, slots: u32) -> TimerDriver<Mapped> {
    let (deadlines, expirations) = (memory::<Deadline>(slots), memory::<Expiration>(slots));
    let driver = TimerDriver::new(deadlines.clone(), expirations.clone(), slots).unwrap();
    timers
        .add_guest(SessionId(id), deadlines, expirations, slots)
        .unwrap();
    driver
}

/// Any two words, for a peer that writes what it likes.
struct Words([u64; 2]);

impl Value for Words {
    const TYPE_ID: u32 = Deadline::TYPE_ID;
    const WORDS: usize = 2;

    fn encode(&self, words: &mut [u64]) {
        words.copy_from_slice(&self.0);
    }

    fn decode(words: &[u64]) -> Result<Self, InvalidValue> {
        Ok(Self([words[0], words[1]]))
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
    /// The host has fired it; the guest has not looked yet.
    Fired(u64),
}

struct Bus {
    now_ns: u64,
    timers: Timers<Mapped>,
    drivers: Vec<TimerDriver<Mapped>>,
    memories: Vec<(Mapped, Mapped)>,
    model: BTreeMap<(u64, u32), Expected>,
}

impl Bus {
    fn new() -> Self {
        let mut timers = Timers::default();
        let memories: Vec<_> = (0..GUESTS)
            .map(|_| (memory::<Deadline>(SLOTS), memory::<Expiration>(SLOTS)))
            .collect();
        let mut drivers = Vec::new();
        for (id, (deadlines, expirations)) in (0..).zip(&memories) {
            let driver = TimerDriver::new(deadlines.clone(), expirations.clone(), SLOTS).unwrap();
            drivers.push(driver);
            timers
                .add_guest(SessionId(id), deadlines.clone(), expirations.clone(), SLOTS)
                .unwrap();
        }
        Self {
            now_ns: 1_000,
            timers,
            drivers,
            memories,
            model: (0..GUESTS)
                .flat_map(|guest| (0..SLOTS).map(move |slot| ((guest, slot), Expected::Off)))
                .collect(),
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Set(guest, slot, offset) => {
                self.set(guest, slot, self.now_ns.saturating_add_signed(offset))
            }
            Step::SetNever(guest, slot) => self.set(guest, slot, u64::MAX),
            Step::Cancel(guest, slot) => {
                let _ = self.drivers[guest as usize].cancel(slot).unwrap();
                self.model.insert((guest, slot), Expected::Off);
            }
            Step::Look { guest, limit } => {
                self.timers.look(SessionId(guest), self.now_ns, limit);
            }
            Step::Expire { later, limit } => {
                self.now_ns += later;
                self.expire(limit);
            }
            Step::Poll(guest) => self.poll(guest),
            Step::Reconnect {
                guest: id,
                new_memory,
            } => {
                // A new connection has new memory; a device that is only reset keeps its own.
                let (deadlines, expirations) = &mut self.memories[id as usize];
                if new_memory {
                    (*deadlines, *expirations) =
                        (memory::<Deadline>(SLOTS), memory::<Expiration>(SLOTS));
                }
                let driver = &mut self.drivers[id as usize];
                let _ = driver
                    .move_to(deadlines.clone(), expirations.clone())
                    .unwrap();
                driver
                    .poll(|fired| panic!("{fired:?} of an earlier life"))
                    .unwrap();
                self.timers
                    .add_guest(SessionId(id), deadlines.clone(), expirations.clone(), SLOTS)
                    .unwrap();
                for ((guest, _), expected) in &mut self.model {
                    // What had fired and was not seen is set again, and fires again.
                    if let (true, Expected::Fired(deadline)) = (*guest == id, *expected) {
                        *expected = Expected::Armed(deadline);
                    }
                }
            }
        }
    }

    fn set(&mut self, guest: u64, slot: u32, deadline_ns: u64) {
        let notify = self.drivers[guest as usize].set(slot, deadline_ns).unwrap();
        let expected = self.model.get_mut(&(guest, slot)).unwrap();
        match *expected {
            Expected::Armed(same) | Expected::Fired(same) if same == deadline_ns => {
                assert!(!notify.is_needed(), "nothing changed");
            }
            _ => *expected = Expected::Armed(deadline_ns),
        }
    }

    fn expire(&mut self, limit: usize) {
        let (now_ns, model) = (self.now_ns, &mut self.model);
        let mut count = 0;
        let more = self.timers.expire(now_ns, limit, |fired| {
            count += 1;
            let expected = model.get_mut(&(fired.guest.0, fired.slot)).unwrap();
            let Expected::Armed(deadline_ns) = *expected else {
                panic!("{fired:?} fired, but should be {expected:?}");
            };
            assert!(deadline_ns <= now_ns, "{fired:?} is early");
            *expected = Expected::Fired(deadline_ns);
        });
        assert!(count <= limit);
        assert_eq!(
            more,
            self.timers
                .next_deadline_ns()
                .is_some_and(|next| next <= now_ns)
        );
    }

    fn poll(&mut self, guest: u64) {
        let model = &mut self.model;
        self.drivers[guest as usize]
            .poll(|fired| {
                let expected = model.insert((guest, fired.slot), Expected::Off);
                assert_eq!(expected, Some(Expected::Fired(fired.deadline_ns)));
                assert!(fired.fired_ns >= fired.deadline_ns);
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
        for guest in 0..GUESTS {
            while self.timers.look(SessionId(guest), self.now_ns, 2) {}
        }
        self.now_ns += 1_000;
        self.expire(usize::MAX);
        (0..GUESTS).for_each(|guest| self.poll(guest));
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

    /// None lost, none early, none that was superseded, each once, whatever the order of signals and reads.
    #[test]
    fn timers_do_what_the_model_does(
        steps in prop::collection::vec(step(), 0..if cfg!(miri) { 20 } else { 200 }),
    ) {
        let mut bus = Bus::new();
        steps.into_iter().for_each(|step| bus.step(step));
        bus.settle();
        let host = bus.timers.counters();
        prop_assert_eq!(bus.timers.lateness().count(), host.fired);
    }
}

#[test]
fn only_the_last_deadline_counts() {
    let mut timers = Timers::default();
    let mut driver = guest(&mut timers, 7, 1);
    assert!(driver.set(0, 100).unwrap().is_needed());
    assert!(!driver.set(0, 100).unwrap().is_needed());
    timers.look(SessionId(7), 0, 100);
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
    driver.poll(|fired| panic!("{fired:?}")).unwrap();
    assert_eq!(driver.counters().discarded, 1);
    assert_eq!(driver.deadline_ns(0), Some(500));
    timers.look(SessionId(7), 310, 100);
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
        timers.look(SessionId(id), 0, 100);
    }
    assert_eq!(timers.armed(), 200);
    timers.remove_guest(SessionId(0));
    assert_eq!(timers.armed(), 100);
    timers.expire(1_000, 1_000, |fired| assert_eq!(fired.guest, SessionId(1)));
    assert_eq!(timers.next_deadline_ns(), None);
}

/// Deadlines long past, endlessly renewed, do not keep another guest's timer waiting.
#[test]
fn a_guest_cannot_get_ahead_of_others_by_lying() {
    let mut timers = Timers::default();
    let mut liar = guest(&mut timers, 0, 64);
    let mut honest = guest(&mut timers, 1, 1);
    let _ = honest.set(0, 1_000).unwrap();
    timers.look(SessionId(1), 900, 100);
    let mut fired_at = None;
    for round in 0..100u64 {
        let now = 990 + 10 * round;
        for slot in 0..64 {
            let _ = liar.set(slot, round % 7).unwrap();
        }
        timers.look(SessionId(0), now, 100);
        timers.expire(now, 8, |fired| {
            if fired.guest == SessionId(1) {
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

    let deadlines = memory::<Deadline>(2);
    let mut hostile =
        TypedWriter::<Words, _, _>::create(deadlines.clone(), 2, Epoch::FIRST, vec![0; 2]).unwrap();
    timers
        .add_guest(SessionId(1), deadlines, memory::<Expiration>(2), 2)
        .unwrap();
    let _ = hostile.publish(0, &Words([1, 5])).unwrap();
    let _ = hostile.publish(1, &Words([77, 5])).unwrap();
    for id in 0..2 {
        timers.look(SessionId(id), 0, 100);
    }

    assert!(matches!(
        timers.take_fault(),
        Some((SessionId(1), GuestFault::Deadline { slot: 1, .. }))
    ));
    assert_eq!(timers.take_fault(), None);
    assert_eq!(timers.armed(), 1);
    timers.look(SessionId(1), 0, 100);
    assert_eq!(timers.take_fault(), None, "latched, not repeated");
    let mut fired = Vec::new();
    timers.expire(10, 8, |one| fired.push(one.guest));
    assert_eq!(fired, [SessionId(0)]);
}
