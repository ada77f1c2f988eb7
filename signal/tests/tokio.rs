//! Tasks that wait: none of what is raised or rung is lost, whenever a wait is cancelled, and nobody is starved.
#![cfg(not(miri))]

use std::future::Future;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use shmbus_shm::{Mapped, heap};
use shmbus_signal::Priority;
use shmbus_signal::os::tokio::{AsyncSignalSet, AsyncWaiter};
use shmbus_signal::os::{self, Event, Interest, Notifier, SignalSet, Waiter};
use shmbus_signal::suppress::{DoorbellLayout, Receiver, Sender};
use tokio::task::yield_now;
use tokio::time::timeout;

const LOST: Duration = Duration::from_secs(20);
const CHANNELS: u32 = 100;

/// What makes a doorbell's two ends.
type Ends = fn() -> io::Result<(Notifier, Waiter)>;

fn eventfd() -> io::Result<(Notifier, Waiter)> {
    let waiter = Waiter::new()?;
    Ok((waiter.notifier()?, waiter))
}

struct Ringer {
    sender: Sender<Mapped, Mapped>,
    notifier: Notifier,
}

impl Ringer {
    fn raise(&mut self, channel: u32) {
        if self.sender.raise(channel).unwrap().is_needed() {
            self.notifier.notify().unwrap();
        }
    }
}

fn add(set: &mut SignalSet, ends: Ends) -> Ringer {
    let layout = DoorbellLayout::new(CHANNELS).unwrap();
    let tree = heap(layout.tree_bytes());
    let armed = heap(DoorbellLayout::ARMED_BYTES);
    let sender = Sender::new(&tree, &armed, layout).unwrap();
    let receiver = Receiver::new(&tree, &armed, layout, vec![0; CHANNELS as usize]).unwrap();
    let (notifier, waiter) = ends().unwrap();
    set.add_doorbell(receiver, waiter, Priority::HIGHEST)
        .unwrap();
    Ringer { sender, notifier }
}

fn set(ends: Ends) -> (AsyncSignalSet, Ringer) {
    let mut set = SignalSet::new().unwrap();
    let ringer = add(&mut set, ends);
    (AsyncSignalSet::new(set).unwrap(), ringer)
}

/// The channel that was raised, once the set has one.
async fn next(set: &mut AsyncSignalSet) -> u32 {
    loop {
        if let Some(Event::Raised { channel, .. }) = set.get_mut().next_event() {
            return channel;
        }
        set.wait().await.unwrap();
    }
}

async fn in_time<T>(future: impl Future<Output = T>) -> T {
    timeout(LOST, future).await.expect("a wake-up was lost")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_wake_each_other() {
    for ends in [eventfd as Ends, os::doorbell] {
        let (mut ours, mut to_us) = set(ends);
        let (mut theirs, mut to_them) = set(ends);
        let them = tokio::spawn(async move {
            for round in 0..3_000 {
                assert_eq!(in_time(next(&mut theirs)).await, round % CHANNELS);
                to_us.raise(round % CHANNELS);
            }
        });
        for round in 0..3_000 {
            to_them.raise(round % CHANNELS);
            assert_eq!(in_time(next(&mut ours)).await, round % CHANNELS);
        }
        them.await.unwrap();
        // A thread can go on with it.
        to_us_again(ours.into_inner());
    }
}

fn to_us_again(mut set: SignalSet) {
    let mut ringer = add(&mut set, eventfd);
    ringer.raise(9);
    assert!(set.wait(Some(LOST)).unwrap());
}

/// What comes of the future within so many turns of the task; `None` if it was given up.
async fn in_turns<T>(turns: u64, future: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        done = future => Some(done),
        () = async { for _ in 0..turns { yield_now().await } } => None,
    }
}

#[tokio::test]
async fn a_descriptor_in_the_set_is_reported() {
    let (mut set, _ringer) = set(os::doorbell);
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let added = set
        .get_mut()
        .add_fd(theirs, Interest::READABLE, Priority::LOWEST);
    let token = added.unwrap();
    assert_eq!(in_turns(5, set.wait()).await.map(Result::unwrap), None);
    ours.write_all(b"x").unwrap();
    in_time(set.wait()).await.unwrap();
    let event = set.get_mut().next_event();
    assert!(matches!(event, Some(Event::Ready { token: of, .. }) if of == token));
}

/// Waits are given up at each of their steps, also while the other side raises.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wait_that_is_cancelled_loses_nothing() {
    let (mut set, mut ringer) = set(os::doorbell);
    let (notifier, waiter) = os::doorbell().unwrap();
    let waiter = AsyncWaiter::new(waiter).unwrap();
    let answered = Arc::new(AtomicU64::new(0));
    let ringing = tokio::spawn({
        let answered = answered.clone();
        async move {
            for round in 1..=2_000 {
                ringer.raise(0);
                while answered.load(Relaxed) < 2 * round - 1 {
                    yield_now().await;
                }
                notifier.notify().unwrap();
                while answered.load(Relaxed) < 2 * round {
                    yield_now().await;
                }
            }
            notifier
        }
    });
    let mut given_up = 0;
    for round in 0..2_000 {
        in_time(async {
            while in_turns(round % 7, next(&mut set)).await.is_none() {
                given_up += 1;
            }
        })
        .await;
        answered.fetch_add(1, Relaxed);
        in_time(async {
            while in_turns(round % 7, waiter.wait()).await.is_none() {
                given_up += 1;
            }
        })
        .await;
        answered.fetch_add(1, Relaxed);
    }
    let _notifier = ringing.await.unwrap(); // closing it would ring once more
    assert!(given_up > 0);
    assert!(!waiter.into_inner().drain().unwrap());
}

/// The runtime hears of a set once, and a look reports 64 descriptors: the one that matters is behind more than that.
#[tokio::test]
async fn what_one_look_does_not_report_is_found_by_the_next() {
    let mut set = SignalSet::new().unwrap();
    let mut ringers: Vec<_> = (0..150).map(|_| add(&mut set, eventfd)).collect();
    let mut set = AsyncSignalSet::new(set).unwrap();
    let waiting = tokio::spawn(async move { in_time(next(&mut set)).await });
    for _ in 0..10 {
        yield_now().await;
    }
    for ringer in &ringers {
        ringer.notifier.notify().unwrap(); // without cause
    }
    ringers[149].raise(42);
    assert_eq!(waiting.await.unwrap(), 42);
}

#[tokio::test]
async fn who_raises_or_rings_without_pause_leaves_time_for_other_tasks() {
    let (mut set, mut ringer) = set(os::doorbell);
    let (notifier, waiter) = eventfd().unwrap();
    let waiter = AsyncWaiter::new(waiter).unwrap();
    let others = Arc::new(AtomicU64::new(0));
    let other = tokio::spawn({
        let others = others.clone();
        async move {
            loop {
                others.fetch_add(1, Relaxed);
                yield_now().await;
            }
        }
    });
    for _ in 0..2_000 {
        ringer.raise(1);
        assert_eq!(in_time(next(&mut set)).await, 1);
    }
    let after_raises = others.load(Relaxed);
    assert!(after_raises > 5);
    for _ in 0..2_000 {
        notifier.notify().unwrap();
        in_time(waiter.wait()).await.unwrap();
    }
    assert!(others.load(Relaxed) > after_raises + 5);
    other.abort();
}
