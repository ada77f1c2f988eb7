//! "Wake me at generation G", in loom: over a word that rises, as a slot's does, the sleeper is woken when it has reached
//! G, not before, and once.
#![cfg(not(miri))]

use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};

use loom::model::Builder;
use loom::sync::Notify as Eventfd;
use loom::sync::atomic::AtomicU64;
use loom::thread;
use shmbus_shm::Entries;
use shmbus_shm::testing::{LoomWindow, Weakening};
use shmbus_signal::suppress::{Alarm, Arm, Subscribers};

fn without_fence() -> Weakening {
    Weakening {
        without_fence: Some(SeqCst),
        ..Weakening::default()
    }
}

/// The generation goes from 0 to 3, and the sleeper wants 2; then it wants 3.
fn model(of_publisher: Weakening, of_sleeper: Weakening) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(move || {
        let published = LoomWindow::builder().words::<u64>(0, 1).build();
        let armed = LoomWindow::builder().words::<u64>(0, 1).build();
        let alarm = Alarm::new(&armed.weakened(of_sleeper)).unwrap();
        let mut subscribers = Subscribers::<_, 1>::new();
        let (_, notify) = subscribers
            .subscribe(&armed.weakened(of_publisher), 0)
            .unwrap();
        assert!(!notify.is_needed());
        let eventfd = Arc::new(Eventfd::new());
        let kicks = Arc::new(AtomicU64::new(0));

        let publishing = thread::spawn({
            let (eventfd, kicks) = (eventfd.clone(), kicks.clone());
            let generation =
                Entries::<u64, _>::new(&published.weakened(of_publisher), 0, 1).unwrap();
            move || {
                for count in 1..=3 {
                    generation.store(0, count, Release);
                    if !subscribers.due(count).is_empty() {
                        assert!(count >= 2, "woken early");
                        kicks.fetch_add(1, Relaxed);
                        eventfd.notify();
                    }
                }
            }
        });

        let generation = Entries::<u64, _>::new(&published.weakened(of_sleeper), 0, 1).unwrap();
        let mut armings = 0;
        for wanted in [2, 3] {
            while generation.load(0, Acquire) < wanted {
                armings += 1;
                if alarm.arm_at(wanted, || generation.load(0, Relaxed)) == Arm::Armed {
                    eventfd.wait();
                }
            }
        }
        publishing.join().unwrap();
        assert!(kicks.load(Relaxed) <= armings, "two kicks for one arming");
    });
}

#[test]
fn who_armed_for_a_generation_is_woken_at_it() {
    model(Weakening::default(), Weakening::default());
}

#[test]
#[should_panic(expected = "deadlock")]
fn the_publishers_fence_is_needed() {
    model(without_fence(), Weakening::default());
}

#[test]
#[should_panic(expected = "deadlock")]
fn the_sleepers_fence_is_needed() {
    model(Weakening::default(), without_fence());
}
