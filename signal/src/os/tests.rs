use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::write;
use shmbus_shm::testing::{Counting, Probe, Probed};
use shmbus_shm::{Mapped, Window, heap};

use super::*;
use crate::suppress::{Arm, DoorbellLayout, Receiver, Sender};
use crate::{CLASSES, Priority};

mod order;
mod polled;

/// Long enough to call a wake-up lost.
const LOST: Option<Duration> = Some(Duration::from_secs(20));
const LOOK: Option<Duration> = Some(Duration::ZERO);

/// A doorbell's sending side.
struct Ringer<W> {
    sender: Sender<W, W>,
    notifier: Notifier,
}

impl<W: Window> Ringer<W> {
    fn raise(&mut self, channel: u32) {
        if self.sender.raise(channel).unwrap().is_needed() {
            self.notifier.notify().unwrap();
        }
    }
}

/// What makes a doorbell's two ends: [`eventfd`] or [`doorbell`].
type Ends = fn() -> io::Result<(Notifier, Waiter)>;

fn eventfd() -> io::Result<(Notifier, Waiter)> {
    let waiter = Waiter::new()?;
    Ok((waiter.notifier()?, waiter))
}

/// A doorbell in a set of its own windows, which `window` may put a probe before.
fn add<W: Window>(
    set: &mut SignalSet<W>,
    channels: u32,
    priority: Priority,
    window: impl Fn(Mapped) -> W,
) -> (Token, Ringer<W>) {
    add_over(eventfd, set, channels, priority, window)
}

fn add_over<W: Window>(
    ends: Ends,
    set: &mut SignalSet<W>,
    channels: u32,
    priority: Priority,
    window: impl Fn(Mapped) -> W,
) -> (Token, Ringer<W>) {
    let layout = DoorbellLayout::new(channels).unwrap();
    let tree = window(heap(layout.tree_bytes()));
    let armed = window(heap(DoorbellLayout::ARMED_BYTES));
    let sender = Sender::new(&tree, &armed, layout).unwrap();
    let receiver = Receiver::new(&tree, &armed, layout, vec![0; channels as usize]).unwrap();
    let (notifier, waiter) = ends().unwrap();
    let token = set.add_doorbell(receiver, waiter, priority).unwrap();
    (token, Ringer { sender, notifier })
}

fn set() -> SignalSet {
    SignalSet::new().unwrap()
}

fn class(class: usize) -> Priority {
    Priority::new(class as u8).unwrap()
}

fn channels(set: &mut SignalSet) -> Vec<(Token, u32)> {
    let mut found = Vec::new();
    while let Some(event) = set.next_event() {
        if let Event::Raised { token, channel, .. } = event {
            found.push((token, channel));
        }
    }
    found
}

/// Two threads wake each other, over and over: were one wake-up lost, both would sleep.
#[test]
fn no_wake_up_is_lost_between_threads() {
    for (ends, spin) in [
        (eventfd as Ends, Duration::ZERO),
        (eventfd, Duration::from_micros(50)),
        (doorbell, Duration::ZERO),
    ] {
        let (mut ours, mut theirs) = (set(), set());
        ours.set_spin(spin);
        theirs.set_spin(spin);
        // Each side has an idle doorbell beside the one in use.
        let (_, _idle) = add(&mut ours, 10, Priority::HIGHEST, |window| window);
        let lowest = |set| add_over(ends, set, 300, Priority::LOWEST, |window| window).1;
        let (mut to_us, mut to_them) = (lowest(&mut ours), lowest(&mut theirs));
        let rounds = 3_000;
        let them = thread::spawn(move || {
            for round in 0..rounds {
                assert!(theirs.wait(LOST).unwrap(), "a wake-up was lost");
                assert_eq!(channels(&mut theirs).len(), 1);
                to_us.raise(round % 300);
            }
        });
        for round in 0..rounds {
            to_them.raise(round % 300);
            assert!(ours.wait(LOST).unwrap(), "a wake-up was lost");
            assert_eq!(channels(&mut ours)[0].1, round % 300);
        }
        them.join().unwrap();
        if spin.is_zero() {
            assert!(ours.counts().blocked > 0);
        }
    }
}

#[test]
fn descriptors_are_reported_for_as_long_as_they_are_ready() {
    let mut set = set();
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let theirs = Arc::new(theirs);
    let token = set
        .add_fd(theirs.clone(), Interest::READABLE, Priority::LOWEST)
        .unwrap();
    assert!(!set.wait(LOOK).unwrap());
    ours.write_all(b"x").unwrap();
    for _ in 0..2 {
        assert!(set.wait(LOST).unwrap());
        let Some(Event::Ready {
            token: of,
            readiness,
        }) = set.next_event()
        else {
            panic!("the socket is ready");
        };
        assert_eq!(of, token);
        assert!(readiness.readable && !readiness.writable && !readiness.hangup);
    }
    (&*theirs).read_exact(&mut [0]).unwrap();
    assert!(!set.wait(LOOK).unwrap());

    set.set_interest(token, Interest::BOTH).unwrap();
    assert!(set.wait(LOST).unwrap());
    assert!(set.next_event().is_some());
    drop(ours);
    assert!(set.wait(LOST).unwrap());
    let Some(Event::Ready { readiness, .. }) = set.next_event() else {
        panic!("the socket is closed");
    };
    assert!(readiness.writable && readiness.hangup);
}

#[test]
fn what_was_removed_is_silent_and_its_token_stale() {
    let mut set = set();
    let (first, mut of_first) = add(&mut set, 5, Priority::HIGHEST, |window| window);
    let (second, mut of_second) = add(&mut set, 5, Priority::HIGHEST, |window| window);
    for channel in 0..3 {
        of_first.raise(channel);
        of_second.raise(channel);
    }
    assert!(set.wait(LOOK).unwrap());
    assert_eq!(set.next_event().unwrap().token(), first);
    set.remove(second).unwrap();
    // The place is taken again, by what has nothing to report.
    let (socket, _peer) = UnixStream::pair().unwrap();
    let socket = set
        .add_fd(socket, Interest::READABLE, Priority::HIGHEST)
        .unwrap();
    assert_eq!(set.next_event().map(|event| event.token()), Some(first));
    assert_eq!(set.next_event().map(|event| event.token()), Some(first));
    assert_eq!(set.next_event(), None);
    set.remove(socket).unwrap();
    let (third, mut of_third) = add(&mut set, 5, Priority::HIGHEST, |window| window);
    assert!(matches!(set.remove(second), Err(SetError::Stale(token)) if token == second));
    assert!(set.set_interest(second, Interest::BOTH).is_err());
    of_second.notifier.notify().unwrap();
    of_third.raise(4);
    assert!(set.wait(LOST).unwrap());
    assert_eq!(channels(&mut set), [(third, 4)]);
    assert_eq!(set.len(), 2);
}

#[test]
fn a_removed_doorbells_sender_is_told_not_to_ring() {
    let mut set = set();
    let (token, mut ringer) = add(&mut set, 5, Priority::HIGHEST, |window| window);
    assert_eq!(set.arm(), Arm::Armed);
    set.remove(token).unwrap();
    assert!(!ringer.sender.raise(0).unwrap().is_needed());
}

/// A peer that rings all the time is not listened to; who shares the set with it is served.
#[test]
fn a_storm_is_muted_and_starves_nobody() {
    let mut set = set();
    set.set_spin(Duration::ZERO);
    let (_, mut stormy) = add(&mut set, 5, Priority::HIGHEST, |window| window);
    let (honest, mut ringer) = add(&mut set, 5, Priority::LOWEST, |window| window);
    let is_over = Arc::new(AtomicBool::new(false));
    let (storm, served) = (
        stormy.notifier.as_fd().try_clone_to_owned().unwrap(),
        is_over.clone(),
    );
    let storm = thread::spawn(move || {
        while !served.load(Relaxed) {
            let _ = write(&storm, &1_u64.to_ne_bytes());
        }
    });
    let ringing = thread::spawn(move || {
        for _ in 0..100 {
            ringer.raise(3);
            thread::sleep(Duration::from_micros(500));
        }
    });
    let mut served = 0;
    let began = Instant::now();
    while set.counts().muted == 0 || !ringing.is_finished() {
        assert!(Some(began.elapsed()) < LOST, "{:?}", set.counts());
        if set.wait(Some(Duration::from_millis(10))).unwrap() {
            served += channels(&mut set).len();
        }
    }
    assert!(served > 0);
    // A wait ends at its time, storm or no storm.
    while set.wait(Some(Duration::from_millis(1))).unwrap() {
        assert!(channels(&mut set).iter().all(|(token, _)| *token == honest));
    }
    // What the stormy peer raises is found all the same.
    stormy.raise(2);
    assert!(set.wait(LOST).unwrap());
    assert_eq!(channels(&mut set)[0].1, 2);
    is_over.store(true, Relaxed);
    storm.join().unwrap();
    ringing.join().unwrap();
    let counts = set.counts();
    assert!(counts.spurious >= counts.muted * u64::from(STORM_STRIKES));

    // Heard again once the storm is over.
    thread::sleep(2 * STORM_PERIOD);
    while set.wait(LOOK).unwrap() {
        let _ = channels(&mut set);
    }
    assert_eq!(set.arm(), Arm::Armed);
    assert!(
        stormy.sender.raise(1).unwrap().is_needed(),
        "it is armed again"
    );
    stormy.notifier.notify().unwrap();
    assert!(set.wait(LOST).unwrap());
}

/// A sender who has a set find news whenever it wants to sleep, and none when it looks, does not hide what else is due.
#[test]
fn a_doorbell_that_cannot_be_armed_hides_nobody() {
    #[derive(Clone, Default)]
    struct Flickering(Arc<AtomicU64>);

    impl Probe for Flickering {
        fn load(&self, offset: usize, bytes: usize, value: u64) -> u64 {
            // The root, at every third look: after the one that found nothing.
            let is_root = offset == 0 && bytes == 8;
            u64::from(is_root && self.0.fetch_add(1, Relaxed) % 3 == 1) + value
        }
    }

    let mut set = SignalSet::new().unwrap();
    set.set_spin(Duration::ZERO);
    let flickering = Flickering::default();
    let (_, _ringer) = add(&mut set, 10, Priority::HIGHEST, |window| {
        Probed::new(window, flickering.clone())
    });
    let (reader, mut writer) = io::pipe().unwrap();
    let pipe = set
        .add_fd(reader, Interest::READABLE, Priority::LOWEST)
        .unwrap();
    writer.write_all(b"x").unwrap();
    let waits = (0..100).find(|_| {
        assert!(set.wait(LOST).unwrap());
        let mut found = false;
        while let Some(event) = set.next_event() {
            found |= event.token() == pipe;
        }
        found
    });
    assert!(waits.is_some_and(|waits| waits > 0), "{waits:?}");
}

#[test]
fn a_set_hears_a_counter_that_is_full() {
    let mut set = set();
    let (_, mut ringer) = add(&mut set, 1, Priority::HIGHEST, |window| window);
    assert_eq!(set.arm(), Arm::Armed);
    write(&ringer.notifier, &(u64::MAX - 1).to_ne_bytes()).unwrap();
    assert!(!set.wait(LOOK).unwrap());
    ringer.raise(0);
    assert!(set.wait(LOST).unwrap());
}

/// A set inside another poll: armed, it becomes readable for all that a wait would have noticed.
#[test]
fn a_nested_set_promises_to_become_readable() {
    let is_readable = |set: &SignalSet| {
        let mut fds = [PollFd::new(set, PollFlags::IN)];
        poll(&mut fds, Some(&rustix::event::Timespec::default())).unwrap() == 1
    };
    for ends in [eventfd as Ends, doorbell] {
        nested(ends, is_readable);
    }
}

fn nested(ends: Ends, is_readable: impl Fn(&SignalSet) -> bool) {
    let mut set = set();
    let (first, mut ringer) = add_over(ends, &mut set, 8, Priority::HIGHEST, |window| window);
    ringer.raise(1);
    assert_eq!(set.arm(), Arm::Moved);
    assert_eq!(channels(&mut set), [(first, 1)]);
    assert!(!set.wait(LOOK).unwrap());
    assert_eq!(set.arm(), Arm::Armed);
    assert!(!is_readable(&set));
    ringer.raise(2);
    assert!(is_readable(&set));
    assert!(set.wait(LOOK).unwrap());
    assert_eq!(channels(&mut set), [(first, 2)]);

    // What is added after the promise, and was raised before anybody armed it, ends the sleep too.
    assert_eq!(set.arm(), Arm::Armed);
    assert!(!is_readable(&set));
    let (second, mut ringer) = add(&mut set, 8, Priority::HIGHEST, |window| window);
    ringer.raise(7);
    let mut fds = [PollFd::new(&set, PollFlags::IN)];
    let limit = rustix::event::Timespec {
        tv_sec: 20,
        tv_nsec: 0,
    };
    assert_eq!(poll(&mut fds, Some(&limit)).unwrap(), 1);
    assert!(set.wait(LOOK).unwrap());
    assert_eq!(channels(&mut set), [(second, 7)]);
}

/// Who closes its end rings once more, and then no more.
#[test]
fn a_doorbell_whose_other_end_is_gone_is_quiet() {
    let mut set = set();
    let window = |window| window;
    let (_, ringer) = add_over(doorbell, &mut set, 1, Priority::HIGHEST, window);
    assert!(!set.wait(LOOK).unwrap());
    drop(ringer);
    let before = set.counts().spurious;
    for _ in 0..5 {
        assert!(!set.wait(Some(Duration::from_millis(1))).unwrap());
    }
    assert_eq!(set.counts().spurious, before + 1);
}

#[test]
fn a_wait_ends_when_time_is_up() {
    let mut set = set();
    let (_, _ringer) = add(&mut set, 1, Priority::HIGHEST, |window| window);
    assert!(!set.wait(Some(Duration::from_millis(2))).unwrap());
    assert!(!set.wait(LOOK).unwrap());
    assert_eq!(set.next_event(), None);
}

/// A wake-up costs what was raised: the idle doorbells' memory is not looked at, and nothing is allocated.
#[test]
fn a_wake_up_looks_at_no_idle_doorbell() {
    let idle = Counting::default();
    let mut set: SignalSet<Probed<Mapped, Counting>> = SignalSet::new().unwrap();
    set.set_spin(Duration::ZERO);
    let _others: Vec<_> = (0..100)
        .map(|_| {
            let probe = |window| Probed::new(window, idle.clone());
            add(&mut set, 1, Priority::HIGHEST, probe)
        })
        .collect();
    let busy = |window| Probed::new(window, Counting::default());
    let (_, mut ringer) = add(&mut set, 1, Priority::LOWEST, busy);
    assert_eq!(set.arm(), Arm::Armed);
    let accesses = idle.loads() + idle.stores();
    let storage = set.capacities();
    for _ in 0..100 {
        ringer.raise(0);
        assert!(set.wait(LOST).unwrap());
        assert!(set.next_event().is_some());
        assert!(set.next_event().is_none());
        assert!(!set.wait(Some(Duration::from_nanos(1))).unwrap());
    }
    assert_eq!(idle.loads() + idle.stores(), accesses);
    assert_eq!(set.capacities(), storage);
    let counts = ringer.sender.counts();
    assert_eq!((counts.sent, counts.suppressed), (100, 0));
}

/// Sources come and go while others raise: what stays misses nothing.
#[test]
fn sources_come_and_go_while_others_raise() {
    let mut set = set();
    set.set_spin(Duration::ZERO);
    let (steady, mut ringer) = add(&mut set, 64, Priority::LOWEST, |window| window);
    let rounds = 2_000;
    let raising = thread::spawn(move || {
        for round in 0..rounds {
            ringer.raise(round % 63);
            if round % 16 == 0 {
                thread::yield_now();
            }
        }
        ringer.raise(63);
    });
    let mut guests: Vec<(Token, Ringer<Mapped>)> = Vec::new();
    let mut seen = BTreeSet::new();
    let mut arrived = 0;
    while !seen.contains(&63) {
        assert!(set.wait(LOST).unwrap(), "a wake-up was lost");
        while let Some(event) = set.next_event() {
            let Event::Raised { token, channel, .. } = event else {
                continue;
            };
            if token == steady {
                seen.insert(channel);
            } else {
                assert!(guests.iter().any(|(guest, _)| *guest == token));
            }
            let (guest, mut ringer) = add(&mut set, 3, class(arrived % CLASSES), |window| window);
            ringer.raise(1);
            guests.push((guest, ringer));
            arrived += 1;
            if guests.len() > 5 {
                let (guest, _) = guests.remove(arrived % 5);
                set.remove(guest).unwrap();
            }
        }
    }
    raising.join().unwrap();
    // What came and went has left nothing behind.
    for _ in 0..1_000 {
        let (guest, _) = add(&mut set, 3, Priority::HIGHEST, |window| window);
        set.remove(guest).unwrap();
    }
    assert!(set.capacities().iter().all(|capacity| *capacity < 100));
}
