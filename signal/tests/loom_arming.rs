//! Arm, re-check, notify: no wake-up is lost, in loom. Each section is a window of its own, as it is between processes.
#![cfg(not(miri))]

use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use loom::model::Builder;
use loom::sync::Notify as Eventfd;
use loom::sync::atomic::AtomicU64;
use loom::thread;
use shmbus_shm::testing::{LoomWindow, Weakening};
use shmbus_signal::suppress::{Arm, DoorbellLayout, Receiver, Sender};

fn without_fence() -> Weakening {
    Weakening {
        without_fence: Some(SeqCst),
        ..Weakening::default()
    }
}

/// A sender raises both channels; the receiver sleeps until it has seen them. loom reports a sleep that nobody ends as
/// a deadlock.
fn model(of_sender: Weakening, of_receiver: Weakening) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(move || {
        let layout = DoorbellLayout::new(2).unwrap();
        let senders = LoomWindow::builder()
            .words::<u64>(0, 1)
            .words::<u64>(64, 2)
            .build();
        let receivers = LoomWindow::builder().words::<u64>(0, 1).build();
        let mut sender = Sender::new(
            &senders.weakened(of_sender),
            &receivers.weakened(of_sender),
            layout,
        )
        .unwrap();
        let mut receiver = Receiver::new(
            &senders.weakened(of_receiver),
            &receivers.weakened(of_receiver),
            layout,
            [0; 2],
        )
        .unwrap();
        let eventfd = Arc::new(Eventfd::new());
        let kicks = Arc::new(AtomicU64::new(0));

        let raising = thread::spawn({
            let (eventfd, kicks) = (eventfd.clone(), kicks.clone());
            move || {
                for channel in [0, 1] {
                    if sender.raise(channel).unwrap().is_needed() {
                        kicks.fetch_add(1, Relaxed);
                        eventfd.notify();
                    }
                }
            }
        });

        let mut raised = [false; 2];
        let mut armings = 0;
        while raised != [true; 2] {
            receiver.poll(|channel, _| raised[channel as usize] = true);
            if raised != [true; 2] {
                armings += 1;
                if receiver.arm() == Arm::Armed {
                    eventfd.wait();
                }
            }
        }
        raising.join().unwrap();
        assert!(kicks.load(Relaxed) <= armings, "two kicks for one arming");
    });
}

#[test]
fn no_wake_up_is_lost_and_no_arming_answered_twice() {
    model(Weakening::default(), Weakening::default());
}

#[test]
#[should_panic(expected = "deadlock")]
fn the_senders_fence_is_needed() {
    model(without_fence(), Weakening::default());
}

#[test]
#[should_panic(expected = "deadlock")]
fn the_receivers_fence_is_needed() {
    model(Weakening::default(), without_fence());
}
