//! The tagged ring over its end, with chains of several lengths that come back in another order: nothing that an
//! earlier lap left behind is taken for something new, in either direction.
//!
//! The rings have two and four entries, and positions wrap at 65536 on the way.
#![cfg(not(miri))]

mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use loom::sync::atomic::AtomicUsize;
use shmbus_ring::{Buffer, ChainHead, tagged};
use shmbus_shm::Entries;
use shmbus_shm::testing::LoomWindow;
use support::modelled::{
    Device, Driver, Tagged, buffers, find_failure, no_space, relaxed_loads, relaxed_stores,
    tagged_queues,
};

type DriverSide = Driver<tagged::DriverRing<LoomWindow>>;
type DeviceSide = Device<tagged::DeviceRing<LoomWindow>>;

/// What goes through: chains of so many descriptors each.
#[derive(Clone, Copy, Debug)]
struct Work {
    lens: &'static [usize],
    /// How many of them the device has taken when the two sides begin to run side by side.
    held: usize,
    /// Each chain's first buffer is a word of its own, whose successor is the answer. Otherwise all descriptors are
    /// alike, so that only the ring itself can go wrong.
    payload: bool,
}

const WORDS: usize = 4;

/// Without a bound the ring of four has half a million executions, and passes too.
const PREEMPTIONS: Option<usize> = Some(5);

impl Work {
    fn address(self, number: usize) -> u64 {
        if self.payload {
            (number % WORDS) as u64
        } else {
            0
        }
    }
}

/// Lets the steps of the two sides come in every order.
///
/// loom sees that two accesses depend on each other by keeping the last access to each word. Both sides store to the
/// words that they have just loaded, here: that hides the other side's load before, and loom would not try what
/// happens when it comes later. This word is stored to by both sides, and never loaded, so that it orders nothing.
#[derive(Clone, Debug)]
struct Steps(Arc<AtomicUsize>);

impl Steps {
    fn next(&self) {
        self.0.store(0, Relaxed);
    }
}

struct DriverEnd {
    queue: DriverSide,
    words: Entries<u64, LoomWindow>,
    work: Work,
    steps: Steps,
    sent: usize,
    returned: Vec<u64>,
}

impl DriverEnd {
    /// Takes back what is there, and lends what there is room for, chain by chain.
    fn pump(&mut self) {
        let work = self.work;
        self.steps.next();
        self.queue.poll().unwrap();
        while let Some(used) = self.queue.take().unwrap() {
            if work.payload {
                let answer = self.words.load(used.cookie as usize % WORDS, Relaxed);
                assert_eq!(answer, 10 * (used.cookie + 1) + 1, "a stale answer");
            }
            assert!(!self.returned.contains(&used.cookie), "returned twice");
            self.returned.push(used.cookie);
        }
        while let Some(len) = work.lens.get(self.sent)
            && *len <= usize::from(self.queue.free())
        {
            let number = self.sent as u64;
            if work.payload {
                self.words
                    .store(self.sent % WORDS, 10 * (number + 1), Relaxed);
            }
            let buffers = vec![Buffer::new(work.address(self.sent), 8); *len];
            self.queue.add(&[], &buffers, number).unwrap();
            self.steps.next();
            let _ = self.queue.publish();
            self.sent += 1;
        }
    }
}

struct DeviceEnd {
    queue: DeviceSide,
    words: Entries<u64, LoomWindow>,
    work: Work,
    steps: Steps,
    taken: usize,
    held: Vec<ChainHead>,
}

impl DeviceEnd {
    fn take(&mut self) {
        let work = self.work;
        let mut segments = [Buffer::default(); 4];
        self.steps.next();
        self.queue.poll().unwrap();
        while let Some(chain) = self.queue.take(&no_space(), &mut segments).unwrap() {
            let number = self.taken;
            assert!(number < work.lens.len(), "a stale chain");
            let address = work.address(number);
            assert_eq!(chain.writable().len(), work.lens[number], "a stale chain");
            assert_eq!(chain.writable()[0].address, address, "a stale descriptor");
            if work.payload {
                let value = self.words.load(address as usize, Relaxed);
                assert_eq!(value, 10 * (number as u64 + 1), "a stale request");
                self.words.store(address as usize, value + 1, Relaxed);
            }
            self.held.push(chain.into_head());
            self.taken += 1;
        }
    }

    /// The last one that was taken comes back first.
    fn return_all(&mut self) {
        while let Some(head) = self.held.pop() {
            self.queue.complete(head, 8).unwrap();
            self.steps.next();
            let _ = self.queue.publish();
        }
    }
}

fn run(setting: Tagged, work: Work) -> Option<String> {
    find_failure(PREEMPTIONS, move || {
        let (driver, device) = tagged_queues(setting);
        let words = buffers(WORDS);
        let steps = Steps(Arc::new(AtomicUsize::new(0)));
        let mut driver = DriverEnd {
            queue: driver,
            words: words.clone(),
            work,
            steps: steps.clone(),
            sent: 0,
            returned: Vec::new(),
        };
        let mut device = DeviceEnd {
            queue: device,
            words,
            work,
            steps,
            taken: 0,
            held: Vec::new(),
        };
        if work.held > 0 {
            driver.pump();
            device.take();
        }
        assert_eq!(device.taken, work.held);
        let handle = loom::thread::spawn(move || {
            device.return_all();
            device.take();
            device.return_all();
            device
        });
        driver.pump();
        driver.pump();
        let mut device = handle.join().unwrap();
        // The rest, one after the other: nothing may have been lost.
        for _ in work.lens {
            device.take();
            device.return_all();
            driver.pump();
        }
        assert_eq!(driver.returned.len(), work.lens.len(), "a chain was lost");
        assert_eq!(driver.queue.free(), driver.queue.capacity());
    })
}

/// The first chain takes up one entry, the second two. The second's completion goes where the first lay, so one of its
/// own entries still says AVAILABLE when the next lap comes to it; the first's goes into the last entry of the second.
const SHUFFLED: Work = Work {
    lens: &[1, 2, 1, 1, 1],
    held: 2,
    payload: false,
};

fn four() -> Tagged {
    Tagged {
        size: 4,
        position: 0xfffd,
        ..Tagged::default()
    }
}

/// Two entries, of which one is the wall.
const ONE_BY_ONE: Work = Work {
    lens: &[1, 1, 1],
    held: 0,
    payload: true,
};

fn two() -> Tagged {
    Tagged {
        size: 2,
        position: 0xffff,
        ..Tagged::default()
    }
}

fn with_payload() -> Work {
    Work {
        payload: true,
        ..SHUFFLED
    }
}

#[test]
fn a_ring_of_two_hands_over_one_by_one() {
    assert_eq!(run(two(), ONE_BY_ONE), None);
}

#[test]
fn chains_in_another_order_pass_the_rings_end() {
    for work in [SHUFFLED, with_payload()] {
        assert_eq!(run(four(), work), None, "{work:?}");
    }
}

/// The model must fail, with one of the symptoms that what is left out has.
fn is_caught(what: &str, failure: Option<String>, symptoms: &[&str]) {
    let failure = failure.unwrap_or_else(|| panic!("{what} is not missed"));
    assert!(
        symptoms.iter().any(|symptom| failure.contains(symptom)),
        "{what}: {failure}"
    );
}

/// Without payload only the ring itself can go wrong: an entry behind the wall is taken.
#[test]
fn a_wall_that_comes_late_is_caught() {
    for (what, driver, device) in [
        ("the driver's Release", relaxed_stores(), Default::default()),
        ("the device's Acquire", Default::default(), relaxed_loads()),
    ] {
        let weakened = Tagged {
            driver,
            device,
            ..four()
        };
        is_caught(what, run(weakened, SHUFFLED), &["NotAvailable"]);
    }
}

#[test]
fn each_weakened_ordering_is_caught() {
    for (ring, work) in [(two(), ONE_BY_ONE), (four(), with_payload())] {
        let driver = |driver| Tagged { driver, ..ring };
        let device = |device| Tagged { device, ..ring };
        for (what, weakened) in [
            ("the driver's Release", driver(relaxed_stores())),
            ("the device's Acquire", device(relaxed_loads())),
            ("the device's Release", device(relaxed_stores())),
            ("the driver's Acquire", driver(relaxed_loads())),
        ] {
            is_caught(what, run(weakened, work), &["stale"]);
        }
    }
}
