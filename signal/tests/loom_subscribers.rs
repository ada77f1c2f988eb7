//! Two receivers of one sender, in loom: each is woken for what it armed for, whatever the other does. Each side's
//! section is a window of its own, as it is between processes.
#![cfg(not(miri))]

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use loom::model::Builder;
use loom::sync::Notify as Eventfd;
use loom::thread;
use shmbus_shm::testing::{LoomWindow, Weakening};
use shmbus_signal::suppress::{Arm, Broadcast, DoorbellLayout, Receiver};

fn without_fence() -> Weakening {
    Weakening {
        without_fence: Some(SeqCst),
        ..Weakening::default()
    }
}

fn word() -> LoomWindow {
    LoomWindow::builder().words::<u64>(0, 1).build()
}

/// Sleeps until it has seen the channel raised. loom reports a sleep that nobody ends as a deadlock.
fn hear(mut receiver: Receiver<LoomWindow, LoomWindow, [u64; 1]>, eventfd: &Eventfd) {
    loop {
        let mut raised = false;
        receiver.poll(|_, _| raised = true);
        if raised {
            return;
        }
        if receiver.arm() == Arm::Armed {
            eventfd.wait();
        }
    }
}

/// A sender raises the channel once; two receivers sleep until they have seen it.
fn model(of_sender: Weakening, of_second: Weakening) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(move || {
        let layout = DoorbellLayout::new(1).unwrap();
        let tree = LoomWindow::builder()
            .words::<u64>(0, 1)
            .words::<u64>(64, 1)
            .build();
        let armed = [word(), word()];
        let mut sender = Broadcast::<_, _, 2>::new(&tree.weakened(of_sender), layout).unwrap();
        let eventfds = [(); 2].map(|()| Arc::new(Eventfd::new()));
        let weaknesses = [Weakening::default(), of_second];
        let mut receivers = Vec::new();
        for (armed, weakness) in armed.iter().zip(weaknesses) {
            let (_, notify) = sender.subscribe(&armed.weakened(of_sender)).unwrap();
            assert!(!notify.is_needed());
            let (tree, armed) = (tree.weakened(weakness), armed.weakened(weakness));
            receivers.push(Receiver::new(&tree, &armed, layout, [0]).unwrap());
        }

        let raising = thread::spawn({
            let eventfds = eventfds.clone();
            move || {
                for subscriber in sender.raise(0).unwrap() {
                    eventfds[subscriber.index()].notify();
                }
            }
        });
        let second = receivers.pop().unwrap();
        let hearing = thread::spawn({
            let eventfd = eventfds[1].clone();
            move || hear(second, &eventfd)
        });
        hear(receivers.pop().unwrap(), &eventfds[0]);
        hearing.join().unwrap();
        raising.join().unwrap();
    });
}

/// The sender has raised before it gets to know of the receiver, who may have armed by then, or not yet.
fn late(of_sender: Weakening, of_receiver: Weakening) {
    Builder::new().check(move || {
        let layout = DoorbellLayout::new(1).unwrap();
        let tree = LoomWindow::builder()
            .words::<u64>(0, 1)
            .words::<u64>(64, 1)
            .build();
        let armed = word();
        let mut sender = Broadcast::<_, _, 2>::new(&tree.weakened(of_sender), layout).unwrap();
        let receiver = {
            let (tree, armed) = (tree.weakened(of_receiver), armed.weakened(of_receiver));
            Receiver::new(&tree, &armed, layout, [0]).unwrap()
        };
        let eventfd = Arc::new(Eventfd::new());
        let subscribing = thread::spawn({
            let eventfd = eventfd.clone();
            move || {
                assert!(sender.raise(0).unwrap().is_empty());
                let (_, notify) = sender.subscribe(&armed.weakened(of_sender)).unwrap();
                if notify.is_needed() {
                    eventfd.notify();
                }
            }
        });
        hear(receiver, &eventfd);
        subscribing.join().unwrap();
    });
}

#[test]
fn who_is_subscribed_late_is_woken_for_what_was_raised() {
    late(Weakening::default(), Weakening::default());
}

#[test]
#[should_panic(expected = "deadlock")]
fn the_fence_of_who_subscribes_is_needed() {
    late(without_fence(), Weakening::default());
}

#[test]
#[should_panic(expected = "deadlock")]
fn the_fence_of_who_is_subscribed_late_is_needed() {
    late(Weakening::default(), without_fence());
}

#[test]
fn both_are_woken() {
    model(Weakening::default(), Weakening::default());
}

#[test]
#[should_panic(expected = "deadlock")]
fn the_senders_fence_is_needed() {
    model(without_fence(), Weakening::default());
}

#[test]
#[should_panic(expected = "deadlock")]
fn the_second_receivers_fence_is_needed() {
    model(Weakening::default(), without_fence());
}
