//! The device side of a split ring over a driver that writes anything, before and while the device looks: chains whose
//! buffers lie in memory, or a fault that stays until the queue is reset.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use shmbus_fuzz::{scripted, tamper};
use shmbus_ring::split::{Areas, DeviceRing, Layout};
use shmbus_ring::{Buffer, DeviceQueue};
use shmbus_shm::{OffsetSpace, heap};
use shmbus_virtio::Features;

const SIZE: u16 = 8;
/// Buffers and indirect tables lie here, behind an address space of their own.
const BUFFER_BYTES: usize = 1024;

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    indirect: bool,
    event_idx: bool,
    /// What the driver writes before each round: to its areas, and to the buffers.
    rounds: Vec<(Vec<(u16, u16)>, Vec<(u16, u16)>)>,
    /// What it changes while the device looks.
    script: &'a [u8],
}

fuzz_target!(|input: Input<'_>| {
    let mut features = Features::empty();
    features.set(Features::INDIRECT_DESC, input.indirect);
    features.set(Features::EVENT_IDX, input.event_idx);
    let layout = Layout::new(SIZE).expect("a power of two");
    let driver = heap(layout.driver_bytes());
    let device = heap(layout.device_bytes());
    let buffers = heap(BUFFER_BYTES);
    let (half, rest) = input.script.split_at(input.script.len() / 2);
    let areas = Areas::in_memories(layout, &scripted(&driver, half), &scripted(&device, &[]))
        .expect("the layout fits its own memory");
    let ring = DeviceRing::new(areas, features).expect("the features are implemented");
    let mut queue = DeviceQueue::with_heap(ring);
    let space = OffsetSpace::new(scripted(&buffers, rest));

    let mut segments = [Buffer::default(); SIZE as usize];
    for (areas, contents) in input.rounds.iter().take(16) {
        tamper(&driver, areas);
        tamper(&buffers, contents);
        let found = queue.poll().unwrap_or(0);
        assert!(found <= SIZE);
        let mut taken = 0;
        while let Ok(Some(chain)) = queue.take(&space, &mut segments) {
            taken += 1;
            let read = chain.read(&space, 0, &mut [0; 64]);
            let written = chain.write(&space, 0, &[7; 64]);
            match (read, written) {
                (Ok(_), Ok(written)) => {
                    let completed = queue.complete(chain, written as u32);
                    completed.expect("it was taken, and has that many bytes");
                }
                (Err(error), _) | (_, Err(error)) => {
                    queue.fail(chain, error);
                }
            }
        }
        assert!(taken <= found);
        let _ = queue.publish();
        let _ = queue.enable_notifications();
        if queue.fault().is_some() {
            assert!(queue.poll().is_err());
            queue.reset();
            assert!(queue.fault().is_none());
        }
    }
});
