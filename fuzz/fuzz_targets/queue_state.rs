//! Saved queues, and in-flight records, that may come from anybody: refused, or queues that work on.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use shmbus_fuzz::tamper;
use shmbus_ring::record::{Record, RecordLayout, Recorded};
use shmbus_ring::{
    Buffer, DeviceFormat, DeviceQueue, DeviceSlot, DeviceState, DriverQueue, DriverSlot,
    DriverState, packed, split,
};
use shmbus_shm::{Mapped, OffsetSpace, heap};
use shmbus_virtio::Features;

const SIZE: u16 = 8;

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    packed: bool,
    state: &'a [u8],
    /// What is written to the ring's memory, and to the record's.
    ring: Vec<(u16, u16)>,
    record: Vec<(u16, u16)>,
}

/// Goes on from a state, if it is one.
fn go_on<V: DeviceFormat>(ring: V, state: Option<DeviceState<'_>>) {
    let Some(state) = state else { return };
    let slots = vec![DeviceSlot::new(); usize::from(SIZE)];
    let Ok(mut queue) = DeviceQueue::restore(ring, slots, &state) else {
        return;
    };
    let space = OffsetSpace::new(heap(256));
    let mut segments = [Buffer::default(); SIZE as usize];
    for chain in state.chains() {
        if let Ok(Some(chain)) = queue.retake(chain, &space, &mut segments) {
            queue.complete(chain, 0).expect("it is in flight");
        }
    }
    let _ = (queue.publish(), queue.poll());
}

fn split_areas(memory: &Mapped) -> split::Areas<Mapped> {
    let layout = split::Layout::new(SIZE).expect("a power of two");
    let legacy = layout.legacy(64).expect("a power of two");
    split::Areas::legacy(legacy, memory).expect("the memory is long enough")
}

fn packed_areas(memory: &Mapped) -> packed::Areas<Mapped> {
    let layout = packed::Layout::new(SIZE).expect("not too large");
    packed::Areas::in_memory(layout, memory).expect("the memory is long enough")
}

fuzz_target!(|input: Input<'_>| {
    let memory = heap(1024);
    let split_ring = || {
        split::DeviceRing::new(split_areas(&memory), Features::INDIRECT_DESC).expect("implemented")
    };
    let packed_ring = || {
        packed::DeviceRing::new(packed_areas(&memory), Features::INDIRECT_DESC)
            .expect("implemented")
    };
    let record = heap(
        RecordLayout::of(&packed_ring())
            .bytes()
            .max(RecordLayout::of(&split_ring()).bytes()),
    );
    let mut bytes = vec![0; DeviceState::max_bytes(SIZE)];
    if input.packed {
        drop(DeviceQueue::with_heap(
            Recorded::with_heap(packed_ring(), &record).expect("long enough"),
        ));
    } else {
        drop(DeviceQueue::with_heap(
            Recorded::with_heap(split_ring(), &record).expect("long enough"),
        ));
    }
    tamper(&memory, &input.ring);
    tamper(&record, &input.record);
    let parsed = DeviceState::parse(input.state).ok();
    let record = Record::open(&record).ok();
    if input.packed {
        go_on(packed_ring(), parsed);
        let found = record
            .and_then(|record| packed::recover(&packed_areas(&memory), &record, &mut bytes).ok());
        go_on(packed_ring(), found);
    } else {
        go_on(split_ring(), parsed);
        let found = record
            .and_then(|record| split::recover(&split_areas(&memory), &record, &mut bytes).ok());
        go_on(split_ring(), found);
    }
    if let Ok(state) = DriverState::parse(input.state) {
        let ring =
            split::DriverRing::new(split_areas(&memory), Features::empty()).expect("implemented");
        let slots: Vec<DriverSlot<u16>> = (0..SIZE).map(|_| DriverSlot::new()).collect();
        if let Ok(mut queue) = DriverQueue::restore(ring, slots, &state, Some) {
            let _ = queue.poll();
            while let Ok(Some(_)) = queue.take() {}
        }
    }
});
