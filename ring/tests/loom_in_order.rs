//! A batch of chains that are used in order: what its one used element, or descriptor, stands for comes with its
//! publication, the buffers of the chains that it skips included.
#![cfg(not(miri))]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use shmbus_ring::{Buffer, ChainHead, DeviceFormat, DriverFormat};
use shmbus_shm::Entries;
use shmbus_shm::testing::LoomWindow;
use support::modelled::{
    Device, Driver, Packed, Side, Split, buffers, find_failure, no_space, packed_in_order_queues,
    relaxed_loads, relaxed_stores, split_in_order_queues,
};

/// Chains of one word go through a ring that holds three or four, so that one is used again.
const CHAINS: u64 = 5;

/// What the driver leaves in a chain's word, and what the device answers.
fn request(number: u64) -> u64 {
    100 + number
}

fn answer(number: u64) -> u64 {
    200 + number
}

/// This chain is not used completely, so it ends a batch.
const CUT: u64 = 1;

struct DeviceSide<V> {
    queue: Device<V>,
    words: Entries<u64, LoomWindow>,
    served: u64,
}

impl<V: DeviceFormat> DeviceSide<V> {
    /// Answers what is there, and completes it back to front: all of it is shown together.
    fn serve(&mut self) {
        let mut segments = [Buffer::default(); 1];
        let mut batch: Vec<(ChainHead, u32)> = Vec::new();
        self.queue.poll().unwrap();
        while let Some(chain) = self.queue.take(&no_space(), &mut segments).unwrap() {
            let word = chain
                .writable()
                .first()
                .expect("a stale descriptor")
                .address;
            let number = self.served;
            assert_eq!(word, number & 3, "a stale descriptor");
            let value = self.words.load(word as usize, Relaxed);
            assert_eq!(value, request(number), "a stale request");
            self.words.store(word as usize, answer(number), Relaxed);
            batch.push((chain.into_head(), if number == CUT { 4 } else { 8 }));
            self.served += 1;
        }
        for (head, written) in batch.into_iter().rev() {
            self.queue.complete(head, written).unwrap();
        }
        let _ = self.queue.publish();
    }
}

struct DriverSide<D> {
    queue: Driver<D>,
    words: Entries<u64, LoomWindow>,
    sent: u64,
    returned: u64,
}

impl<D: DriverFormat> DriverSide<D> {
    /// Lends chains up to number `limit`, as far as there is room.
    fn lend(&mut self, limit: u64) {
        while self.sent < limit && self.queue.free() > 0 {
            let number = self.sent;
            self.words
                .store(number as usize & 3, request(number), Relaxed);
            let buffer = Buffer::new(number & 3, 8);
            self.queue.add(&[], &[buffer], number).unwrap();
            self.sent += 1;
        }
        let _ = self.queue.publish();
    }

    /// Takes back what is there; returns how many chains it was.
    fn take_back(&mut self) -> u64 {
        let before = self.returned;
        self.queue.poll().unwrap();
        while let Some(used) = self.queue.take().unwrap() {
            let number = used.cookie;
            assert_eq!(number, self.returned, "out of order");
            let value = self.words.load(number as usize & 3, Relaxed);
            assert_eq!(value, answer(number), "a stale answer");
            assert_eq!(used.written, if number == CUT { 4 } else { 8 });
            self.returned += 1;
        }
        self.returned - before
    }
}

/// All executions are looked at.
fn batches<D, V>(
    queues: impl Fn() -> (Driver<D>, Device<V>) + Send + Sync + 'static,
) -> Option<String>
where
    D: DriverFormat + 'static,
    V: DeviceFormat + 'static,
{
    let longest = Arc::new(AtomicU64::new(0));
    let seen = longest.clone();
    let failure = find_failure(None, move || {
        let (driver, device) = queues();
        let words = buffers(4);
        let mut device = DeviceSide {
            queue: device,
            words: words.clone(),
            served: 0,
        };
        let mut driver = DriverSide {
            queue: driver,
            words,
            sent: 0,
            returned: 0,
        };
        driver.lend(1);
        let handle = loom::thread::spawn(move || {
            device.serve();
            device.serve();
            device
        });
        driver.lend(3);
        seen.fetch_max(driver.take_back(), Relaxed);
        driver.lend(CHAINS);
        driver.take_back();
        let mut device = handle.join().unwrap();
        // The rest, one after the other: nothing may have been lost.
        for _ in 0..CHAINS {
            device.serve();
            driver.take_back();
            driver.lend(CHAINS);
        }
        assert_eq!(driver.returned, CHAINS, "a chain was lost");
    });
    let longest = longest.load(Relaxed);
    assert!(failure.is_some() || longest > 1, "no chain was skipped");
    failure
}

/// Indices wrap in the middle of the run.
fn split() -> Split {
    Split {
        size: 4,
        position: 0xffff,
        ..Split::default()
    }
}

/// The second chain is in the next lap.
fn packed() -> Packed {
    Packed {
        size: 3,
        position: 2 | 1 << 15,
        ..Packed::default()
    }
}

#[test]
fn a_split_rings_batches_arrive_whole() {
    assert_eq!(batches(|| split_in_order_queues(split())), None);
    let halves = Split {
        halves: true,
        ..split()
    };
    assert_eq!(batches(move || split_in_order_queues(halves)), None);
}

#[test]
fn a_packed_rings_batches_arrive_whole() {
    assert_eq!(batches(|| packed_in_order_queues(packed())), None);
    let two = Packed {
        size: 2,
        position: 0,
        ..Packed::default()
    };
    assert_eq!(batches(move || packed_in_order_queues(two)), None);
}

/// The model must fail, with one of the symptoms that what is left out has.
fn is_caught(what: &str, failure: Option<String>, symptoms: &[&str]) {
    let failure = failure.unwrap_or_else(|| panic!("{what} is not missed"));
    assert!(
        symptoms.iter().any(|symptom| failure.contains(symptom)),
        "{what}: {failure}"
    );
}

#[test]
fn each_weakened_ordering_of_a_split_rings_batches_is_caught() {
    let driver = |available, used| Split {
        driver: Side { available, used },
        ..split()
    };
    let device = |available, used| Split {
        device: Side { available, used },
        ..split()
    };
    let strong = Default::default();
    for (what, weakened, symptoms) in [
        (
            "the driver's Release of avail.idx",
            driver(relaxed_stores(), strong),
            &["stale", "Head"][..],
        ),
        (
            "the device's Acquire of avail.idx",
            device(relaxed_loads(), strong),
            &["stale", "Head"],
        ),
        (
            "the device's Release of used.idx",
            device(strong, relaxed_stores()),
            &["stale", "NotLent", "BatchEnd"],
        ),
        (
            "the driver's Acquire of used.idx",
            driver(strong, relaxed_loads()),
            &["stale", "NotLent", "BatchEnd"],
        ),
    ] {
        let failure = batches(move || split_in_order_queues(weakened));
        is_caught(what, failure, symptoms);
    }
}

#[test]
fn each_weakened_ordering_of_a_packed_rings_batches_is_caught() {
    let driver = |driver| Packed { driver, ..packed() };
    let device = |device| Packed { device, ..packed() };
    for (what, weakened) in [
        (
            "the driver's Release of a first descriptor",
            driver(relaxed_stores()),
        ),
        (
            "the device's Acquire of a first descriptor",
            device(relaxed_loads()),
        ),
        (
            "the device's Release of a used descriptor",
            device(relaxed_stores()),
        ),
        (
            "the driver's Acquire of a used descriptor",
            driver(relaxed_loads()),
        ),
    ] {
        let failure = batches(move || packed_in_order_queues(weakened));
        is_caught(what, failure, &["stale"]);
    }
}
