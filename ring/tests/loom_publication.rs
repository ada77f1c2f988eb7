//! What is published comes with its index: descriptors, entries and buffers' bytes, in both directions.
#![cfg(not(miri))]

mod support;

use std::sync::atomic::Ordering::Relaxed;

use shmbus_ring::{Buffer, DeviceFormat, DriverFormat};
use shmbus_shm::Entries;
use shmbus_shm::testing::LoomWindow;
use support::modelled::{
    Device, Driver, Packed, Side, Split, buffers, find_failure, no_space, packed_queues,
    relaxed_loads, relaxed_stores, split_queues,
};

/// Each chain is one word to read and one to write; the device answers with the word's successor. Three chains go
/// through a ring that holds two, so descriptors and buffers are used again. All executions are looked at.
fn echo<D, V>(queues: impl Fn() -> (Driver<D>, Device<V>) + Send + Sync + 'static) -> Option<String>
where
    D: DriverFormat + 'static,
    V: DeviceFormat + 'static,
{
    const CHAINS: u64 = 3;
    find_failure(None, move || {
        let (mut driver, device) = queues();
        let words = buffers(4);
        let shared = words.clone();
        let handle = loom::thread::spawn(move || serve(device, shared, 2));

        let mut sent = 0;
        let mut returned = 0;
        let mut pump = |driver: &mut Driver<D>, limit: u64| {
            while sent < limit && driver.free() >= 2 {
                words.store(2 * sent as usize, 10 * (sent + 1), Relaxed);
                let request = Buffer::new((2 * sent) & 3, 8);
                let answer = Buffer::new(((2 * sent) & 3) + 1, 8);
                driver.add(&[request], &[answer], sent).unwrap();
                sent += 1;
                let _ = driver.publish();
            }
            driver.poll().unwrap();
            while let Some(used) = driver.take().unwrap() {
                let answer = words.load(2 * used.cookie as usize + 1, Relaxed);
                assert_eq!(answer, 10 * (used.cookie + 1) + 1, "a stale answer");
                assert_eq!(used.written, 8);
                returned += 1;
            }
            returned
        };
        pump(&mut driver, 2);
        pump(&mut driver, CHAINS);
        let (mut device, shared) = handle.join().unwrap();
        // The rest, one after the other: nothing may have been lost.
        for _ in 0..2 * CHAINS {
            (device, _) = serve(device, shared.clone(), 1);
            pump(&mut driver, CHAINS);
        }
        assert_eq!(pump(&mut driver, CHAINS), CHAINS, "a chain was lost");
    })
}

fn serve<V: DeviceFormat>(
    mut device: Device<V>,
    words: Entries<u64, LoomWindow>,
    looks: usize,
) -> (Device<V>, Entries<u64, LoomWindow>) {
    let mut segments = [Buffer::default(); 2];
    for _ in 0..looks {
        device.poll().unwrap();
        while let Some(chain) = device.take(&no_space(), &mut segments).unwrap() {
            let [Some(request), Some(answer)] =
                [chain.readable(), chain.writable()].map(|buffers| buffers.first())
            else {
                panic!("a stale descriptor");
            };
            let (request, answer) = (request.address, answer.address);
            assert_eq!(answer, request + 1, "a stale descriptor");
            let value = words.load(request as usize, Relaxed);
            assert!(value != 0, "a stale request");
            words.store(answer as usize, value + 1, Relaxed);
            device.complete(chain, 8).unwrap();
        }
        let _ = device.publish();
    }
    (device, words)
}

fn split() -> Split {
    Split {
        size: 4,
        position: 0xffff,
        ..Split::default()
    }
}

/// The first chain goes over the ring's end, into the next lap.
fn packed() -> Packed {
    Packed {
        size: 4,
        position: 3 | 1 << 15,
        ..Packed::default()
    }
}

#[test]
fn split_chains_arrive_whole() {
    assert_eq!(echo(|| split_queues(split())), None);
}

#[test]
fn split_used_elements_in_halves_arrive_whole() {
    let halves = Split {
        halves: true,
        ..split()
    };
    assert_eq!(echo(move || split_queues(halves)), None);
}

#[test]
fn packed_chains_arrive_whole() {
    assert_eq!(echo(|| packed_queues(packed())), None);
    let three = Packed {
        size: 3,
        position: 0,
        ..Packed::default()
    };
    assert_eq!(echo(move || packed_queues(three)), None);
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
fn each_weakened_ordering_of_a_split_ring_is_caught() {
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
            &["stale", "Chain", "Head"][..],
        ),
        (
            "the device's Acquire of avail.idx",
            device(relaxed_loads(), strong),
            &["stale", "Chain", "Head"],
        ),
        (
            "the device's Release of used.idx",
            device(strong, relaxed_stores()),
            &["stale", "NotLent"],
        ),
        (
            "the driver's Acquire of used.idx",
            driver(strong, relaxed_loads()),
            &["stale", "NotLent"],
        ),
    ] {
        is_caught(what, echo(move || split_queues(weakened)), symptoms);
    }
}

#[test]
fn each_weakened_ordering_of_a_packed_ring_is_caught() {
    let driver = |driver| Packed { driver, ..packed() };
    let device = |device| Packed { device, ..packed() };
    for (what, weakened, symptoms) in [
        (
            "the driver's Release of a first descriptor",
            driver(relaxed_stores()),
            &["stale", "NotAvailable"][..],
        ),
        (
            "the device's Acquire of a first descriptor",
            device(relaxed_loads()),
            &["stale", "NotAvailable"],
        ),
        (
            "the device's Release of a used descriptor",
            device(relaxed_stores()),
            &["stale"],
        ),
        (
            "the driver's Acquire of a used descriptor",
            driver(relaxed_loads()),
            &["stale"],
        ),
    ] {
        is_caught(what, echo(move || packed_queues(weakened)), symptoms);
    }
}
