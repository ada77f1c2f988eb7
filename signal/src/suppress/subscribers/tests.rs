use std::collections::BTreeSet;
use std::sync::atomic::Ordering::Relaxed;
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;
use shmbus_shm::testing::{Counting, Hostile, Probed};
use shmbus_shm::{Field, Mapped, heap};

use super::*;
use crate::suppress::{Alarm, Arm, Receiver};

const CHANNELS: u32 = 80;
const BOUND: usize = 4;

fn layout() -> DoorbellLayout {
    DoorbellLayout::new(CHANNELS).unwrap()
}

fn armed() -> Mapped {
    heap(DoorbellLayout::ARMED_BYTES)
}

type HeapReceiver = Receiver<Mapped, Mapped, Vec<u64>>;

fn receiver(tree: &Mapped, armed: &Mapped) -> HeapReceiver {
    Receiver::new(tree, armed, layout(), vec![0; CHANNELS as usize]).unwrap()
}

#[test]
fn each_is_woken_at_its_own_generation_and_once() {
    let words = [armed(), armed(), armed()];
    let alarms: Vec<_> = words.iter().map(|word| Alarm::new(word).unwrap()).collect();
    let mut subscribers = Subscribers::<Mapped, 3>::new();
    let ids: Vec<_> = words
        .iter()
        .map(|word| subscribers.subscribe(word, 0).unwrap().0)
        .collect();
    assert_eq!(alarms[0].arm_at(1, || 0), Arm::Armed);
    assert_eq!(alarms[1].arm_at(3, || 0), Arm::Armed);
    assert_eq!(alarms[2].arm_at(2, || 2), Arm::Moved, "it is there already");
    assert!(subscribers.due(1).eq([ids[0]]));
    assert!(subscribers.due(2).is_empty());
    assert_eq!(alarms[2].arm_at(5, || 2), Arm::Armed);
    // Generations may be skipped.
    let due = subscribers.due(7);
    assert!(due.contains(ids[1]) && due.contains(ids[2]) && !due.contains(ids[0]));
    assert!(due.eq([ids[1], ids[2]]));
    assert!(subscribers.due(8).is_empty());
    alarms[0].disarm();
    assert_eq!(alarms[0].arm_at(9, || 8), Arm::Armed);
    alarms[0].disarm();
    assert!(subscribers.due(9).is_empty());
    let counts = subscribers.counts();
    assert_eq!((counts.sent, counts.suppressed), (3, 12));
}

#[test]
fn beyond_the_bound_nobody_subscribes_until_somebody_leaves() {
    let mut subscribers = Subscribers::<Mapped, 2>::new();
    let word = armed();
    let (first, notify) = subscribers.subscribe(&word, 9).unwrap();
    assert_eq!(notify, Notify::No);
    let (second, _) = subscribers.subscribe(&armed(), 9).unwrap();
    assert_eq!((first.index(), second.index()), (0, 1));
    let full = subscribers.subscribe(&armed(), 9).unwrap_err();
    assert_eq!(full, SignalError::Subscribers { bound: 2 });
    subscribers.unsubscribe(first);
    assert_eq!(subscribers.len(), 1);
    // Who armed for what is there by now is kicked when it is looked at first, and not again.
    let alarm = Alarm::new(&word).unwrap();
    assert_eq!(alarm.arm_at(9, || 8), Arm::Armed);
    let (again, notify) = subscribers.subscribe(&word, 9).unwrap();
    assert_eq!((again.index(), notify), (0, Notify::Yes));
    assert!(subscribers.due(10).is_empty());
    // A section that is too small is refused, and takes no place.
    subscribers.unsubscribe(second);
    let short = word.narrow(0, 4).unwrap();
    assert!(matches!(
        subscribers.subscribe(&short, 9),
        Err(SignalError::Armed(_))
    ));
    assert_eq!(subscribers.len(), 1);
}

/// Sixty-four is the most; each costs one load, and the places that are free none.
#[test]
fn a_generation_costs_a_load_for_each_subscriber() {
    let counting = Counting::default();
    let mut subscribers = Subscribers::<Probed<Mapped, Counting>, 64>::new();
    let words: Vec<_> = (0..64)
        .map(|_| Probed::new(armed(), counting.clone()))
        .collect();
    assert!(subscribers.due(1).is_empty());
    let mut ids = Vec::new();
    for word in &words {
        ids.push(subscribers.subscribe(word, 0).unwrap().0);
    }
    for (index, word) in words.iter().enumerate() {
        let alarm = Alarm::new(word).unwrap();
        assert_eq!(alarm.arm_at(1 + index as u64 % 2, || 0), Arm::Armed);
    }
    subscribers.unsubscribe(ids[3]);
    let before = (counting.loads(), counting.stores());
    let even: Vec<_> = ids.iter().copied().step_by(2).collect();
    assert!(subscribers.due(1).eq(even));
    assert_eq!(
        (counting.loads(), counting.stores()),
        (before.0 + 63, before.1)
    );
}

/// One of the subscribers writes what it likes. The others are kicked as if it were not there.
#[test]
fn a_hostile_word_decides_about_its_own_kicks_alone() {
    let raises = if cfg!(miri) { 50 } else { 5_000 };
    let tree = heap(layout().tree_bytes());
    let mut broadcast = Broadcast::<_, _, BOUND>::new(&tree, layout()).unwrap();
    let probed = |word: &Mapped, chance| Probed::new(word.clone(), Hostile::new(7, chance));
    let (hostile, honest) = (armed(), armed());
    let (liar, _) = broadcast.subscribe(&probed(&hostile, 255)).unwrap();
    let (sleeper, _) = broadcast.subscribe(&probed(&honest, 0)).unwrap();
    let mut receiver = receiver(&tree, &honest);
    let mut kicks = 0;
    for round in 0..raises {
        let sleeps = round % 3 == 0;
        if sleeps {
            receiver.poll(|_, _| ());
            assert_eq!(receiver.arm(), Arm::Armed);
        }
        let due = broadcast.raise(round % CHANNELS).unwrap();
        assert_eq!(due.contains(sleeper), sleeps);
        kicks += u32::from(due.contains(liar));
        assert!(due.count() <= 2);
    }
    assert!(0 < kicks && kicks < raises);
    assert_eq!(
        broadcast.raise(CHANNELS).unwrap_err(),
        SignalError::NoSuchChannel {
            channel: CHANNELS,
            channels: CHANNELS
        }
    );
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Raise(u32),
    Poll(usize),
    /// Arms this far ahead of what was seen.
    Arm(usize, u64),
    Disarm(usize),
    Leave(usize),
    /// Goes on listening with what it has seen, under a word that it may have armed meanwhile.
    Join(usize),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let who = 0..BOUND;
    prop_oneof![
        8 => (0..CHANNELS).prop_map(Step::Raise),
        4 => who.clone().prop_map(Step::Poll),
        6 => (who.clone(), 1..5_u64).prop_map(|(who, ahead)| Step::Arm(who, ahead)),
        1 => who.clone().prop_map(Step::Disarm),
        1 => who.clone().prop_map(Step::Leave),
        2 => who.prop_map(Step::Join),
        1 => Just(Step::Restart),
    ]
}

/// A receiver, and what the model knows of it.
struct Listener {
    receiver: HeapReceiver,
    word: Mapped,
    id: Option<Subscriber>,
    /// The stamp that it has armed for, as its word says.
    asleep_until: Option<u64>,
    /// It was kicked for that.
    is_answered: bool,
    pending: BTreeSet<u32>,
}

impl Listener {
    fn is_due(&mut self, raised: u64) -> bool {
        let is_due = !self.is_answered && self.asleep_until.is_some_and(|stamp| raised >= stamp);
        self.is_answered |= is_due;
        is_due
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: if cfg!(miri) { 4 } else { 512 }, ..ProptestConfig::default() })]

    /// Each listener is kicked when what it armed for is raised, not before, and once; whoever else listens, comes and
    /// goes; also by a sender that restarts.
    #[test]
    fn everybody_is_woken_for_what_it_armed_for(steps in prop::collection::vec(step(), 1..if cfg!(miri) { 25 } else { 200 })) {
        let tree = heap(layout().tree_bytes());
        let mut broadcast = Broadcast::<_, _, BOUND>::new(&tree, layout()).unwrap();
        let mut listeners: Vec<_> = (0..BOUND).map(|_| {
            let word = armed();
            Listener {
                receiver: receiver(&tree, &word),
                id: Some(broadcast.subscribe(&word).unwrap().0),
                word,
                asleep_until: None,
                is_answered: false,
                pending: BTreeSet::new(),
            }
        }).collect();
        let mut raised = 0;
        for step in steps {
            match step {
                Step::Raise(channel) => {
                    raised += 1;
                    let due = broadcast.raise(channel).unwrap();
                    for listener in &mut listeners {
                        listener.pending.insert(channel);
                        if let Some(id) = listener.id {
                            prop_assert_eq!(due.contains(id), listener.is_due(raised));
                        }
                    }
                }
                Step::Poll(who) => {
                    let mut found = BTreeSet::new();
                    listeners[who].receiver.poll(|channel, _| { found.insert(channel); });
                    prop_assert_eq!(&found, &listeners[who].pending);
                    listeners[who].pending.clear();
                }
                Step::Arm(who, ahead) => {
                    let listener = &mut listeners[who];
                    let stamp = listener.receiver.stamp() + ahead;
                    let armed = listener.receiver.arm_after(ahead);
                    prop_assert_eq!(armed, if raised >= stamp { Arm::Moved } else { Arm::Armed });
                    let next = (armed == Arm::Armed).then_some(stamp);
                    // Armed again for the same stamp, which was not reached, it was not answered either.
                    if next != listener.asleep_until {
                        listener.is_answered = false;
                    }
                    listener.asleep_until = next;
                }
                Step::Disarm(who) => {
                    listeners[who].receiver.disarm();
                    listeners[who].asleep_until = None;
                }
                Step::Leave(who) => {
                    if let Some(id) = listeners[who].id.take() {
                        broadcast.unsubscribe(id);
                    }
                }
                Step::Join(who) => {
                    let listener = &mut listeners[who];
                    if listener.id.is_none() {
                        let (id, notify) = broadcast.subscribe(&listener.word).unwrap();
                        listener.id = Some(id);
                        listener.is_answered = false;
                        prop_assert_eq!(notify.is_needed(), listener.is_due(raised));
                    }
                }
                Step::Restart => {
                    broadcast = Broadcast::resume(&tree, layout()).unwrap();
                    raised += 2; // a resumed tree counts on above what its predecessor may have begun
                    for listener in &mut listeners {
                        if listener.id.is_some() {
                            let (id, notify) = broadcast.subscribe(&listener.word).unwrap();
                            listener.id = Some(id);
                            listener.is_answered = false;
                            prop_assert_eq!(notify.is_needed(), listener.is_due(raised));
                        }
                    }
                }
            }
        }
    }
}

/// The word is what the layout says: a `u64` at the start of its line.
#[test]
fn an_alarm_is_the_armed_word() {
    let word = armed();
    let armed = Field::<u64, _>::new(&word, 0).unwrap();
    armed.store(5, Relaxed);
    let alarm = Alarm::new(&word).unwrap();
    assert_eq!(armed.load(Relaxed), 0);
    assert_eq!(alarm.arm_at(12, || 11), Arm::Armed);
    assert_eq!(armed.load(Relaxed), 12);
    assert_eq!(alarm.arm_at(12, || 12), Arm::Moved);
    assert_eq!(armed.load(Relaxed), 0);
}
