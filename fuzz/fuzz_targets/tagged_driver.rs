//! The driver side of a tagged ring over a device that writes anything: each chain comes back at most once, with no more
//! bytes than were lent, or a fault stays until the queue is reset, which gives back all the rest.
#![no_main]

use std::collections::BTreeSet;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use shmbus_fuzz::{scripted, tamper};
use shmbus_ring::tagged::{Areas, DriverRing, Layout};
use shmbus_ring::{Buffer, DriverQueue};
use shmbus_shm::heap;
use shmbus_virtio::Features;

const SIZE: u16 = 8;
const BUFFER_BYTES: u32 = 64;

/// What the driver does in a round, and the device then.
#[derive(Arbitrary, Debug)]
struct Round {
    /// How many chains are added, and of how many buffers.
    chains: u8,
    len: u8,
    /// To the ring.
    ring: Vec<(u16, u16)>,
    /// Entries that are used, as the ring's format wants them.
    used: Vec<(u8, u8, u8)>,
}

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    event_idx: bool,
    half: bool,
    rounds: Vec<Round>,
    /// What the device changes while the driver looks.
    script: &'a [u8],
}

fuzz_target!(|input: Input<'_>| {
    let mut features = Features::empty();
    features.set(Features::EVENT_IDX, input.event_idx);
    let layout = Layout::new(SIZE).expect("a power of two");
    let memory = heap(layout.bytes());
    let areas = Areas::in_memory(layout, &scripted(&memory, input.script))
        .expect("the layout fits its own memory");
    let mut ring = DriverRing::new(areas, features).expect("the features are implemented");
    if input.half {
        ring = ring.with_half_distance();
    }
    let mut queue = DriverQueue::with_heap(ring);

    let mut lent = BTreeSet::new();
    let mut next = 0_u32;
    for round in input.rounds.iter().take(16) {
        for _ in 0..round.chains % 4 {
            let buffers = vec![Buffer::new(0, BUFFER_BYTES); 1 + usize::from(round.len % 3)];
            if queue.add(&buffers[1..], &buffers[..1], next).is_ok() {
                lent.insert(next);
                next += 1;
            }
        }
        let _ = queue.publish();
        tamper(&memory, &round.ring);
        for (place, tag, len) in &round.used {
            let place = u16::from(*place) % SIZE;
            let words = [u16::from(*len), 0, u16::from(*tag), 2 << 14];
            let words: Vec<_> = (8 * place + 4..).zip(words).collect();
            tamper(&memory, &words);
        }
        let found = queue.poll().unwrap_or(0);
        assert!(found <= 1);
        while let Ok(Some(used)) = queue.take() {
            assert!(lent.remove(&used.cookie), "it came back twice");
            assert!(used.written <= BUFFER_BYTES);
        }
        assert!(lent.len() <= usize::from(queue.capacity()));
        let _ = queue.enable_notifications();
        if queue.fault().is_some() {
            assert!(queue.poll().is_err());
            queue.reset(|cookie| assert!(lent.remove(&cookie), "it came back twice"));
            assert!(queue.fault().is_none());
            assert!(lent.is_empty(), "a reset gives everything back");
            assert_eq!(queue.free(), queue.capacity());
        }
    }
});
