//! What is published comes with its index: descriptors, entries and buffers' bytes, in both directions.
#![cfg(not(miri))]

mod support;

use std::sync::atomic::Ordering::Relaxed;

use shmbus_ring::Buffer;
use support::modelled::{
    Device, Driver, Setting, Side, buffers, find_failure, no_space, queues, relaxed_loads,
    relaxed_stores,
};

/// Each chain is one word to read and one to write; the device answers with the word's successor. Three chains go
/// through a ring that holds two, so descriptors and buffers are used again. All executions are looked at.
fn echo(setting: Setting) -> Option<String> {
    const CHAINS: u64 = 3;
    find_failure(None, move || {
        let (mut driver, device) = queues(setting);
        let words = buffers(4);
        let shared = words.clone();
        let handle = loom::thread::spawn(move || serve(device, shared, 2));

        let mut sent = 0;
        let mut returned = 0;
        let mut pump = |driver: &mut Driver, limit: u64| {
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

fn serve(
    mut device: Device,
    words: shmbus_shm::Entries<u64, shmbus_shm::testing::LoomWindow>,
    looks: usize,
) -> (
    Device,
    shmbus_shm::Entries<u64, shmbus_shm::testing::LoomWindow>,
) {
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

fn setting() -> Setting {
    Setting {
        size: 4,
        position: 0xffff,
        ..Setting::default()
    }
}

#[test]
fn chains_arrive_whole() {
    assert_eq!(echo(setting()), None);
}

#[test]
fn used_elements_in_halves_arrive_whole() {
    let halves = Setting {
        halves: true,
        ..setting()
    };
    assert_eq!(echo(halves), None);
}

#[test]
fn each_weakened_ordering_is_caught() {
    let driver = |available, used| Setting {
        driver: Side { available, used },
        ..setting()
    };
    let device = |available, used| Setting {
        device: Side { available, used },
        ..setting()
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
        let failure = echo(weakened).unwrap_or_else(|| panic!("{what} is not missed"));
        assert!(
            symptoms.iter().any(|symptom| failure.contains(symptom)),
            "{what}: {failure}"
        );
    }
}
