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

type Side = (LoomWindow, LoomWindow);

fn layout() -> DoorbellLayout {
    DoorbellLayout::new(2).unwrap()
}

/// The sender's section, and the receiver's.
fn sections() -> Side {
    let senders = LoomWindow::builder()
        .words::<u64>(0, 1)
        .words::<u64>(64, 2)
        .build();
    (senders, LoomWindow::builder().words::<u64>(0, 1).build())
}

fn weakened((senders, receivers): &Side, weakening: Weakening) -> Side {
    (senders.weakened(weakening), receivers.weakened(weakening))
}

fn sender((senders, receivers): &Side) -> Sender<LoomWindow, LoomWindow> {
    Sender::new(senders, receivers, layout()).unwrap()
}

fn receiver((senders, receivers): &Side) -> Receiver<LoomWindow, LoomWindow, [u64; 2]> {
    Receiver::new(senders, receivers, layout(), [0; 2]).unwrap()
}

fn check(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

/// A sender raises both channels; the receiver sleeps until it has seen them. loom reports a sleep that nobody ends as
/// a deadlock.
fn model(of_sender: Weakening, of_receiver: Weakening) {
    check(move || {
        let sections = sections();
        let mut sender = sender(&weakened(&sections, of_sender));
        let mut receiver = receiver(&weakened(&sections, of_receiver));
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

/// Wakes a receiver.
#[derive(Clone)]
struct Bell {
    eventfd: Arc<Eventfd>,
    kicks: Arc<AtomicU64>,
    /// Who is woken by the eventfd finds what was stored before the kick. Otherwise kicks are a word that is polled, and
    /// order nothing.
    orders: bool,
}

impl Bell {
    fn new(orders: bool) -> Self {
        Self {
            eventfd: Arc::new(Eventfd::new()),
            kicks: Arc::new(AtomicU64::new(0)),
            orders,
        }
    }

    fn ring(&self) {
        self.kicks.fetch_add(1, Relaxed);
        if self.orders {
            self.eventfd.notify();
        }
    }

    /// Waits for more kicks than `heard`.
    fn wait(&self, heard: &mut u64) {
        if self.orders {
            return self.eventfd.wait();
        }
        while self.kicks.load(Relaxed) == *heard {
            thread::yield_now();
        }
        *heard = self.kicks.load(Relaxed);
    }
}

/// A sender died after it raised a channel, nobody knows whether it kicked; another goes on in its memory and raises the
/// other one. The receiver sleeps until it has seen both.
fn resumed(of_sender: Weakening, orders: bool) {
    check(move || {
        let sections = sections();
        let mut dead = sender(&sections);
        let mut receiver = receiver(&sections);
        let _ = dead.raise(0).unwrap();
        let bell = Bell::new(orders);
        // The new sender loads the root before it stores it. loom remembers only the last access of an atomic, and would
        // take that load for the receiver's: nothing would race. So both access another one first.
        let begun = Arc::new(AtomicU64::new(0));
        let begins = begun.clone();
        let resuming = thread::spawn({
            let (senders, receivers) = weakened(&sections, of_sender);
            let bell = bell.clone();
            move || {
                begins.load(Relaxed);
                let (mut sender, first) = Sender::resume(&senders, &receivers, layout()).unwrap();
                assert!(first.is_needed());
                bell.ring();
                if sender.raise(1).unwrap().is_needed() {
                    bell.ring();
                }
            }
        });
        begun.store(1, Relaxed);
        let mut raised = [false; 2];
        let (mut armings, mut heard) = (0, 0);
        while raised != [true; 2] {
            receiver.poll(|channel, _| raised[channel as usize] = true);
            if raised != [true; 2] {
                armings += 1;
                if receiver.arm() == Arm::Armed {
                    bell.wait(&mut heard);
                }
            }
        }
        resuming.join().unwrap();
        // One for the resumption, whoever sleeps, and one for each arming.
        let kicks = bell.kicks.load(Relaxed);
        assert!(kicks <= armings + 1, "two kicks for one arming");
    });
}

#[test]
fn a_resumed_sender_loses_no_wake_up() {
    resumed(Weakening::default(), true);
}

/// Whoever is woken before he can see what was resumed arms for the same stamp again, which was answered.
#[test]
fn a_resumed_sender_needs_no_order_from_its_doorbell() {
    resumed(Weakening::default(), false);
}

#[test]
#[should_panic]
fn a_resumed_sender_needs_its_fence() {
    let weakening = Weakening {
        without_fence_number: Some(0),
        ..Weakening::default()
    };
    resumed(weakening, false);
}
