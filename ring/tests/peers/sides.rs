//! A driver and a device, whoever's they are, and how they take turns.
//!
//! A side that found nothing to do goes to sleep as the specification allows it, and works again only once it was told.
//! So a wrong answer to "must the other side be told?" ends in a standstill.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::{self, Thread};

use super::traffic::{Dice, Shape, Traffic};

pub trait Driver {
    /// Makes a chain available; false if there is no room for it now.
    fn add(&mut self, number: u64, shape: &Shape) -> bool;

    /// Shows the device what was added; returns whether it must be told.
    fn publish(&mut self) -> bool;

    /// Takes back a chain, if one is used, and compares its bytes with the answer that is due; returns its number.
    fn take(&mut self) -> Option<u64>;

    /// Asks not to be told.
    fn disable_notifications(&mut self);

    /// Asks to be told; returns whether this side may sleep.
    fn enable_notifications(&mut self) -> bool;
}

pub trait Device {
    /// Answers chains that are there, at most about so many; returns how many it has returned to the driver. It may
    /// keep some for longer, but not if it returned none.
    fn serve(&mut self, most: usize) -> usize;

    /// Shows the driver what was returned; returns whether it must be told.
    fn publish(&mut self) -> bool;

    /// Asks not to be told.
    fn disable_notifications(&mut self);

    /// Asks to be told; returns whether this side may sleep.
    fn enable_notifications(&mut self) -> bool;
}

/// What the driver's side of a run has come to.
struct Progress {
    traffic: Traffic,
    dice: Dice,
    /// Rolled, but there was no room for it.
    waiting: Option<Shape>,
    sent: u64,
    /// Which chains came back.
    returned: Vec<bool>,
    back: u64,
}

impl Progress {
    fn new(traffic: Traffic, seed: u64, chains: u64) -> Self {
        Self {
            traffic,
            dice: Dice::new(seed),
            waiting: None,
            sent: 0,
            returned: vec![false; chains as usize],
            back: 0,
        }
    }

    fn is_over(&self) -> bool {
        self.back == self.returned.len() as u64
    }

    /// Adds a batch; returns whether the device must be told.
    fn send(&mut self, driver: &mut impl Driver, most: usize) -> bool {
        for _ in 0..most {
            if self.sent == self.returned.len() as u64 {
                break;
            }
            let shape = self
                .waiting
                .take()
                .unwrap_or_else(|| self.traffic.shape(&mut self.dice));
            if !driver.add(self.sent, &shape) {
                self.waiting = Some(shape);
                break;
            }
            self.sent += 1;
        }
        driver.publish()
    }

    fn receive(&mut self, driver: &mut impl Driver, most: usize) {
        for _ in 0..most {
            let Some(number) = driver.take() else {
                return;
            };
            let seen = &mut self.returned[number as usize];
            assert!(
                !*seen && number < self.sent,
                "chain {number} twice, or never sent"
            );
            *seen = true;
            self.back += 1;
        }
    }
}

/// Both sides in one thread, whose turns are rolled.
pub fn take_turns(
    mut driver: impl Driver,
    mut device: impl Device,
    traffic: Traffic,
    seed: u64,
    chains: u64,
) {
    const BATCH: usize = 12;
    let mut progress = Progress::new(traffic, seed, chains);
    let mut dice = Dice::new(!seed);
    let (mut driver_awake, mut device_awake) = (true, true);
    while !progress.is_over() {
        let back = progress.back;
        assert!(
            driver_awake || device_awake,
            "a standstill after {back} chains, with seed {seed}"
        );
        if driver_awake && (!device_awake || dice.once_in(2)) {
            let before = (progress.sent, progress.back);
            if dice.once_in(3) {
                driver.disable_notifications();
            }
            device_awake |= progress.send(&mut driver, 1 + dice.below(BATCH));
            progress.receive(&mut driver, 1 + dice.below(BATCH));
            let idle = before == (progress.sent, progress.back);
            driver_awake = !(idle && driver.enable_notifications());
        } else {
            if dice.once_in(3) {
                device.disable_notifications();
            }
            let served = device.serve(1 + dice.below(BATCH));
            driver_awake |= served > 0 && device.publish();
            device_awake = served > 0 || !device.enable_notifications();
        }
    }
    assert_eq!(progress.sent, chains);
}

/// Thread parking stands for the channel: a token that is kept if it comes before the sleep.
fn tell(peer: &Thread, needed: bool) -> u64 {
    if needed {
        peer.unpark();
    }
    u64::from(needed)
}

/// Says that its side is over, also when it panics: nobody sleeps on for ever.
struct Over<'a> {
    over: &'a AtomicBool,
    peer: Thread,
}

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.over.store(true, SeqCst);
        self.peer.unpark();
    }
}

/// Both sides at the same time, the driver in this thread.
pub fn run_at_once(
    mut driver: impl Driver,
    device: impl Device + Send,
    traffic: Traffic,
    seed: u64,
    chains: u64,
) {
    let over = &AtomicBool::new(false);
    let this = thread::current();
    thread::scope(|scope| {
        let server = scope.spawn(move || serve(device, over, this));
        let over = Over {
            over,
            peer: server.thread().clone(),
        };
        let mut progress = Progress::new(traffic, seed, chains);
        let mut kicks = 0;
        while !progress.is_over() {
            assert!(!over.over.load(SeqCst), "the device has stopped");
            driver.disable_notifications();
            let before = (progress.sent, progress.back);
            kicks += tell(&over.peer, progress.send(&mut driver, usize::MAX));
            progress.receive(&mut driver, usize::MAX);
            let idle = before == (progress.sent, progress.back);
            if idle && driver.enable_notifications() {
                thread::park();
            }
        }
        drop(over);
        let calls = server.join().unwrap();
        // A few chains may pass while both sides happen to be awake.
        assert!(chains < 10_000 || kicks > 0 && calls > 0, "nobody slept");
    });
}

fn serve(mut device: impl Device, over: &AtomicBool, peer: Thread) -> u64 {
    let over = Over { over, peer };
    let mut calls = 0;
    while !over.over.load(SeqCst) {
        device.disable_notifications();
        if device.serve(usize::MAX) > 0 {
            calls += tell(&over.peer, device.publish());
        } else if device.enable_notifications() {
            thread::park();
        }
    }
    calls
}
