//! The driver side of a split ring over a device that writes anything: each chain comes back at most once, with no more
//! bytes than were lent, or a fault stays until the queue is reset, which gives back all the rest.
#![no_main]

use std::collections::BTreeSet;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use shmbus_fuzz::{scripted, tamper};
use shmbus_ring::split::{Areas, DriverRing, Layout};
use shmbus_ring::{Buffer, DriverQueue};
use shmbus_shm::heap;
use shmbus_virtio::Features;

const SIZE: u16 = 8;
const BUFFER_BYTES: u32 = 64;

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    event_idx: bool,
    /// How many chains the driver adds, and what the device writes then.
    rounds: Vec<(u8, Vec<(u16, u16)>)>,
    /// What it changes while the driver looks.
    script: &'a [u8],
}

fuzz_target!(|input: Input<'_>| {
    let mut features = Features::empty();
    features.set(Features::EVENT_IDX, input.event_idx);
    let layout = Layout::new(SIZE).expect("a power of two");
    let driver = heap(layout.driver_bytes());
    let device = heap(layout.device_bytes());
    let windows = (scripted(&driver, &[]), scripted(&device, input.script));
    let areas =
        Areas::in_memories(layout, &windows.0, &windows.1).expect("the layout fits its own memory");
    let ring = DriverRing::new(areas, features).expect("the features are implemented");
    let mut queue = DriverQueue::with_heap(ring);

    let mut lent = BTreeSet::new();
    let mut next = 0_u32;
    for (chains, words) in input.rounds.iter().take(16) {
        for _ in 0..chains % 4 {
            let buffers = [Buffer::new(0, BUFFER_BYTES)];
            if queue.add(&buffers, &buffers, next).is_ok() {
                lent.insert(next);
                next += 1;
            }
        }
        let _ = queue.publish();
        tamper(&device, words);
        let found = queue.poll().unwrap_or(0);
        assert!(found <= SIZE);
        while let Ok(Some(used)) = queue.take() {
            assert!(lent.remove(&used.cookie), "it came back twice");
            assert!(used.written <= BUFFER_BYTES);
        }
        let _ = queue.enable_notifications();
        if queue.fault().is_some() {
            assert!(queue.poll().is_err());
            queue.reset(|cookie| assert!(lent.remove(&cookie), "it came back twice"));
            assert!(queue.fault().is_none());
            assert!(lent.is_empty(), "a reset gives everything back");
        }
    }
    assert!(lent.len() <= usize::from(SIZE));
});
