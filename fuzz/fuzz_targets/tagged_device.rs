//! The device side of a tagged ring over a driver that writes anything, before and while the device looks: chains whose
//! buffers lie in memory, no more than the ring has room for, or a fault that stays until the queue is reset.
#![no_main]

use std::collections::VecDeque;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use shmbus_fuzz::{scripted, tamper};
use shmbus_ring::tagged::{Areas, DeviceRing, Layout};
use shmbus_ring::{Buffer, ChainHead, DeviceQueue};
use shmbus_shm::{OffsetSpace, heap};
use shmbus_virtio::Features;

const SIZE: u16 = 8;
/// Buffers and indirect tables lie here, behind an address space of their own.
const BUFFER_BYTES: usize = 1024;

/// What the driver does before a round, and the device in it.
#[derive(Arbitrary, Debug)]
struct Round {
    /// To the ring.
    ring: Vec<(u16, u16)>,
    /// Entries that become available, as the ring's format wants them.
    available: Vec<(u8, u16, u8)>,
    /// To the buffers.
    buffers: Vec<(u16, u16)>,
    /// How many chains the device keeps, and whether it returns the newest of them first.
    kept: u8,
    newest_first: bool,
}

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    indirect: bool,
    event_idx: bool,
    rounds: Vec<Round>,
    /// What the driver changes while the device looks.
    script: &'a [u8],
}

fuzz_target!(|input: Input<'_>| {
    let mut features = Features::empty();
    features.set(Features::INDIRECT_DESC, input.indirect);
    features.set(Features::EVENT_IDX, input.event_idx);
    let layout = Layout::new(SIZE).expect("a power of two");
    let memory = heap(layout.bytes());
    let buffers = heap(BUFFER_BYTES);
    let (half, rest) = input.script.split_at(input.script.len() / 2);
    let areas =
        Areas::in_memory(layout, &scripted(&memory, half)).expect("the layout fits its own memory");
    let ring = DeviceRing::new(areas, features).expect("the features are implemented");
    let mut queue = DeviceQueue::with_heap(ring);
    let space = OffsetSpace::new(scripted(&buffers, rest));

    let mut segments = [Buffer::default(); SIZE as usize];
    let mut held: VecDeque<(ChainHead, u32)> = VecDeque::new();
    for round in input.rounds.iter().take(16) {
        tamper(&memory, &round.ring);
        for (place, address, flags) in &round.available {
            let place = u16::from(*place) % SIZE;
            let label = [16, place, u16::from(*flags & 7) | 1 << 14];
            let words = [*address % BUFFER_BYTES as u16, 0, 0, 0];
            let words = words.into_iter().chain([label[0], 0, label[1], label[2]]);
            let words: Vec<_> = (8 * place..).zip(words).collect();
            tamper(&memory, &words);
        }
        tamper(&buffers, &round.buffers);
        let found = queue.poll().unwrap_or(0);
        assert!(found <= 1);
        let mut taken = 0;
        while let Ok(Some(chain)) = queue.take(&space, &mut segments) {
            taken += 1;
            let read = chain.read(&space, 0, &mut [0; 64]);
            let written = chain.write(&space, 0, &[7; 64]);
            match (read, written) {
                (Ok(_), Ok(written)) => held.push_back((chain.into_head(), written as u32)),
                (Err(error), _) | (_, Err(error)) => {
                    queue.fail(chain, error);
                }
            }
        }
        assert!(taken == 0 || found == 1);
        assert!(held.len() < usize::from(SIZE), "one entry is the wall");
        while held.len() > usize::from(round.kept % 8) {
            let next = if round.newest_first {
                held.pop_back()
            } else {
                held.pop_front()
            };
            if let Some((head, written)) = next {
                let completed = queue.complete(head, written);
                completed.expect("it was taken, and has that many bytes");
            }
        }
        let _ = queue.publish();
        let _ = queue.enable_notifications();
        if queue.fault().is_some() {
            assert!(queue.poll().is_err());
            queue.reset();
            assert!(queue.fault().is_none());
            held.clear();
        }
    }
});
