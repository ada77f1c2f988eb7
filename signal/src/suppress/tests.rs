use proptest::prelude::*;
use shmbus_shm::testing::{Counting, Hostile, Probed};
use shmbus_shm::{Field, Mapped, Notify, Scan, heap};
use std::sync::atomic::Ordering::Relaxed;
use std::vec;
use std::vec::Vec;

use super::*;

type HeapSender = Sender<Mapped, Mapped>;
type HeapReceiver = Receiver<Mapped, Mapped, Vec<u64>>;

struct Doorbell {
    tree: Mapped,
    armed: Mapped,
    layout: DoorbellLayout,
    sender: HeapSender,
    receiver: HeapReceiver,
}

fn doorbell(channels: u32) -> Doorbell {
    let layout = DoorbellLayout::new(channels).unwrap();
    let tree = heap(layout.tree_bytes());
    let armed = heap(DoorbellLayout::ARMED_BYTES);
    let sender = Sender::new(&tree, &armed, layout).unwrap();
    let receiver = Receiver::new(&tree, &armed, layout, vec![0; channels as usize]).unwrap();
    Doorbell {
        tree,
        armed,
        layout,
        sender,
        receiver,
    }
}

#[test]
fn the_sender_reads_the_armed_word_only_and_once() {
    let layout = DoorbellLayout::new(2_000).unwrap();
    let (of_tree, of_armed) = (Counting::default(), Counting::default());
    let tree = Probed::new(heap(layout.tree_bytes()), of_tree.clone());
    let armed = Probed::new(heap(DoorbellLayout::ARMED_BYTES), of_armed.clone());
    let mut sender = Sender::new(&tree, &armed, layout).unwrap();
    let formatted = of_tree.stores();
    for channel in 0..100 {
        assert_eq!(sender.raise(channel), Ok(Notify::No));
    }
    assert_eq!(
        (of_tree.loads(), of_armed.loads(), of_armed.stores()),
        (0, 100, 0)
    );
    assert_eq!(of_tree.stores() - formatted, 400);
    let counts = sender.counts();
    assert_eq!((counts.sent, counts.suppressed), (0, 100));
}

/// A dishonest sender's root, as high as can be: once it was looked at, it keeps nobody awake.
#[test]
fn a_root_at_the_end_of_all_counts_lets_its_receiver_sleep() {
    let Doorbell {
        tree, mut receiver, ..
    } = doorbell(10);
    let root = Field::<u64, _>::new(&tree, 0).unwrap();
    for last in [u64::MAX, u64::MAX - 1] {
        root.store(last, Relaxed);
        assert_eq!(receiver.arm(), Arm::Moved);
        while receiver.poll(|_, _| {}) != Scan::Unchanged {}
        assert_eq!(receiver.arm(), Arm::Armed);
    }
}

#[test]
fn a_threshold_sleeps_through_what_is_below() {
    let Doorbell {
        mut sender,
        receiver,
        ..
    } = doorbell(4);
    assert_eq!(receiver.arm_at(3), Arm::Armed);
    let kicks: Vec<_> = (0..4)
        .map(|channel| sender.raise(channel).unwrap())
        .collect();
    assert_eq!(kicks, [Notify::No, Notify::No, Notify::Yes, Notify::No]);
    assert_eq!(receiver.arm_at(3), Arm::Moved);
}

#[test]
fn a_channel_that_does_not_exist_is_refused() {
    let Doorbell { mut sender, .. } = doorbell(3);
    assert_eq!(
        sender.raise(3),
        Err(SignalError::NoSuchChannel {
            channel: 3,
            channels: 3
        })
    );
}

#[test]
fn who_arms_in_the_middle_of_a_poll_is_told_to_go_on() {
    let Doorbell {
        mut sender,
        mut receiver,
        ..
    } = doorbell(3);
    let _ = sender.raise(0).unwrap();
    let _ = sender.raise(2).unwrap();
    let _ = receiver.poll_some(|_, _| core::ops::ControlFlow::Break(()));
    assert_eq!(receiver.arm(), Arm::Moved);
    assert_eq!(receiver.arm_at(100), Arm::Moved);
    receiver.poll(|channel, _| assert_eq!(channel, 2));
    assert_eq!(receiver.arm(), Arm::Armed);
}

#[test]
fn nobody_sleeps_on_a_root_that_fell() {
    let Doorbell {
        tree,
        mut sender,
        mut receiver,
        ..
    } = doorbell(3);
    let _ = sender.raise(0).unwrap();
    let _ = sender.raise(1).unwrap();
    receiver.poll(|_, _| ());
    Field::<u64, _>::new(&tree, 0).unwrap().store(1, Relaxed);
    assert_eq!(receiver.arm(), Arm::Moved);
}

#[test]
fn a_sender_that_restarts_in_its_memory_wakes_the_receiver_once() {
    let Doorbell {
        tree,
        armed,
        layout,
        mut sender,
        mut receiver,
    } = doorbell(100);
    let _ = sender.raise(50).unwrap();
    receiver.poll(|_, _| ());
    assert_eq!(receiver.arm(), Arm::Armed);
    drop(sender);
    let (mut sender, notify) = Sender::resume(&tree, &armed, layout).unwrap();
    assert_eq!(notify, Notify::Yes);
    assert_eq!(sender.raise(7), Ok(Notify::No)); // that kick is on its way
    let mut raised = Vec::new();
    receiver.poll(|channel, _| raised.push(channel));
    assert_eq!(raised, [7]);
    assert_eq!(receiver.arm(), Arm::Armed);
    assert_eq!(sender.raise(7), Ok(Notify::Yes));
}

#[test]
fn each_side_follows_the_other_to_new_memory() {
    let Doorbell {
        armed,
        mut sender,
        mut receiver,
        ..
    } = doorbell(2);
    for _ in 0..9 {
        let _ = sender.raise(0).unwrap();
    }
    receiver.poll(|_, _| ());
    assert_eq!(receiver.arm(), Arm::Armed);
    assert_eq!(sender.raise(0), Ok(Notify::Yes));
    receiver.poll(|_, _| ());
    assert_eq!(receiver.arm(), Arm::Armed);
    let other = doorbell(2);
    let mut restarted = other.sender;
    let _ = restarted.raise(0).unwrap();
    receiver.rebind(&other.tree).unwrap();
    // What was armed for the old sender's stamps means nothing to the new one.
    let armed = Field::<u64, _>::new(&armed, 0).unwrap();
    assert_eq!(armed.load(Relaxed), 0);
    let mut raised = 0;
    receiver.poll(|_, _| raised += 1);
    assert_eq!(raised, 1);

    // The receiver restarts: the sender must answer it, although it answered the old one's armed word, the same.
    sender.rebind(&other.armed).unwrap();
    Field::<u64, _>::new(&other.armed, 0)
        .unwrap()
        .store(10, Relaxed);
    assert_eq!(sender.raise(1), Ok(Notify::Yes));
}

#[test]
fn hostile_sections_cost_a_kick_a_raise_and_a_scan_a_poll() {
    let rounds = if cfg!(miri) { 20 } else { 5_000 };
    let layout = DoorbellLayout::new(300).unwrap();
    let words = layout.tree_bytes() as u64 / 8;
    let counting = Counting::default();
    let tree = heap(layout.tree_bytes());
    let armed = heap(DoorbellLayout::ARMED_BYTES);
    let mut sender = Sender::new(
        &tree,
        &Probed::new(armed.clone(), Hostile::new(1, 255)),
        layout,
    )
    .unwrap();
    let lying = Probed::new(Probed::new(tree, Hostile::new(2, 100)), counting.clone());
    let own = Probed::new(Probed::new(armed, Hostile::new(3, 0)), counting.clone());
    let mut receiver = Receiver::new(&lying, &own, layout, vec![0; 300]).unwrap();
    let (mut moved, mut slept) = (0, 0);
    for round in 0..rounds {
        let _ = sender.raise(round % 300).unwrap();
        let before = counting.loads();
        let scan = receiver.poll(|channel, _| assert!(channel < 300));
        assert!(counting.loads() - before <= words);
        assert_ne!(scan, Scan::Paused);
        match receiver.arm() {
            Arm::Armed => slept += 1,
            Arm::Moved => moved += 1,
        }
    }
    assert!(moved > 0 && slept > 0);
    let counts = sender.counts();
    assert!(counts.sent > 0 && counts.suppressed > 0);
    assert_eq!(counts.sent + counts.suppressed, u64::from(rounds));
}

/// What "Bounds on work" in `docs/abi.md` says of doorbells.
#[test]
fn each_call_keeps_its_bound_on_loads() {
    let layout = DoorbellLayout::new(300).unwrap();
    let tree = layout.tree();
    let scan: usize = (0..=tree.levels()).map(|level| tree.nodes(level)).sum();
    let counting = Counting::default();
    let lying = |bytes, lies| {
        let hostile = Probed::new(heap(bytes), Hostile::new(7, lies));
        Probed::new(hostile, counting.clone())
    };
    for lies in [0, 40, 255] {
        let tree = lying(layout.tree_bytes(), lies);
        let armed = lying(DoorbellLayout::ARMED_BYTES, lies);
        let mut sender = Sender::new(&tree, &armed, layout).unwrap();
        let mut receiver = Receiver::new(&tree, &armed, layout, vec![0; 300]).unwrap();
        let loads = |call: &mut dyn FnMut()| {
            let before = counting.loads();
            call();
            counting.loads() - before
        };
        for round in 0..if cfg!(miri) { 5 } else { 1_000 } {
            let raising = loads(&mut || {
                let _ = sender.raise(round % 300).unwrap();
            });
            let arming = loads(&mut || {
                let _ = receiver.arm();
            });
            let polling = loads(&mut || {
                let _ = receiver.poll(|_, _| ());
            });
            assert!(raising == 1 && arming == 1 && polling <= scan as u64);
        }
        let resuming = loads(&mut || {
            let _ = Sender::resume(&tree, &armed, layout);
        });
        assert!(resuming <= 2);
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Raise(u32),
    Poll,
    /// Arms this far ahead of what was seen.
    Arm(u64),
    Disarm,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..80_u32).prop_map(Step::Raise),
        3 => Just(Step::Poll),
        4 => (1..4_u64).prop_map(Step::Arm),
        1 => Just(Step::Disarm),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: if cfg!(miri) { 4 } else { 512 }, ..ProptestConfig::default() })]

    /// Asleep without a kick, the receiver misses fewer raises than it asked to sleep through; each arming is answered
    /// at most once, and the kick is not early.
    #[test]
    fn nobody_sleeps_through_what_it_armed_for(steps in prop::collection::vec(step(), 1..if cfg!(miri) { 25 } else { 200 })) {
        let Doorbell { tree, armed, layout, mut sender, mut receiver } = doorbell(80);
        // What the receiver has asked for and not been answered.
        let mut asleep_until = None;
        let mut pending = std::collections::BTreeSet::new();
        let mut raised = 0;
        for step in steps {
            match step {
                Step::Raise(channel) => {
                    raised += 1;
                    pending.insert(channel);
                    let notify = sender.raise(channel).unwrap();
                    let due = asleep_until.is_some_and(|stamp| raised >= stamp);
                    prop_assert_eq!(notify.is_needed(), due);
                    if due {
                        asleep_until = None;
                    }
                }
                Step::Poll => {
                    let mut found = std::collections::BTreeSet::new();
                    receiver.poll(|channel, _| { found.insert(channel); });
                    prop_assert_eq!(&found, &pending);
                    pending.clear();
                }
                Step::Arm(ahead) => {
                    let stamp = receiver.stamp() + ahead;
                    let armed = receiver.arm_at(stamp);
                    prop_assert_eq!(armed, if raised >= stamp { Arm::Moved } else { Arm::Armed });
                    asleep_until = (armed == Arm::Armed).then_some(stamp);
                }
                Step::Disarm => {
                    receiver.disarm();
                    asleep_until = None;
                }
                Step::Restart => {
                    let (resumed, notify) = Sender::resume(&tree, &armed, layout).unwrap();
                    sender = resumed;
                    prop_assert!(notify.is_needed());
                    raised += 2; // a resumed tree counts on above what its predecessor may have begun
                    asleep_until = asleep_until.filter(|stamp| *stamp > raised);
                }
            }
        }
    }
}
