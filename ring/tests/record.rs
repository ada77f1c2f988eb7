//! A device that dies between any two of its stores, and is recovered from the ring and its record by somebody else: no
//! chain is lost, and none comes back twice.

#![cfg(not(miri))] // thousands of lives, each of the same accesses

mod support;

use std::collections::BTreeSet;

use shmbus_ring::record::{Record, RecordLayout, RecordSlot, Recorded};
use shmbus_ring::{
    Buffer, ChainHead, DeviceFormat, DeviceQueue, DeviceSlot, DeviceState, DriverFormat,
    DriverQueue, DriverSlot, StateError, packed, split, tagged,
};
use shmbus_shm::testing::{Dying, Probed};
use shmbus_shm::{Mapped, OffsetSpace, heap};
use shmbus_virtio::Features;
use support::IN_ORDER;
use support::heap_ring::{self, space};
use support::packed_ring;
use support::random::Random;
use support::tagged_ring;

const SIZE: u16 = 8;

type Driver<D> = DriverQueue<D, u32, Vec<DriverSlot<u32>>>;
type Kept<V> = Recorded<V, Probed<Mapped, Dying>, Vec<RecordSlot>>;
type Device<V> = DeviceQueue<Kept<V>, Vec<DeviceSlot>>;

/// A driver that does not die, and what it has lent.
struct Lender<D> {
    driver: Driver<D>,
    lent: BTreeSet<u32>,
    next: u32,
}

impl<D: DriverFormat> Lender<D> {
    fn new(ring: D) -> Self {
        Self {
            driver: DriverQueue::with_heap(ring),
            lent: BTreeSet::new(),
            next: 0,
        }
    }

    fn lend(&mut self, random: &mut Random) {
        for _ in 0..random.below(3) {
            let buffer = Buffer::new(u64::from(self.next % 64), 1);
            let readable = [buffer; 3];
            let readable = &readable[..1 + random.below(2)];
            if self.driver.add(readable, &[buffer], self.next).is_ok() {
                self.lent.insert(self.next);
                self.next += 1;
            }
        }
        let _ = self.driver.publish();
    }

    fn reap(&mut self) {
        while self.driver.poll().unwrap() > 0 {
            while let Some(used) = self.driver.take().unwrap() {
                assert!(self.lent.remove(&used.cookie), "{} came twice", used.cookie);
            }
        }
    }
}

/// A step of the device's: it takes a chain, completes one of those it has, or publishes.
fn step<V: DeviceFormat>(
    device: &mut Device<V>,
    held: &mut Vec<ChainHead>,
    space: &OffsetSpace<Mapped>,
    random: &mut Random,
) {
    let mut segments = [Buffer::default(); 8];
    match random.below(4) {
        0 | 1 => {
            if device.poll().unwrap() > 0
                && let Some(chain) = device.take(space, &mut segments).unwrap()
            {
                held.push(chain.into_head());
            }
        }
        2 if !held.is_empty() => {
            let chain = held.swap_remove(random.below(held.len()));
            device.complete(chain, random.below(2) as u32).unwrap();
        }
        _ => {
            let _ = device.publish();
        }
    }
}

/// Runs the same random life with a device that dies after 0, 1, 2 ... stores, until it outlives the script. `areas` are
/// the ring's as a device sees them that dies, and `recover` is what a third party makes of the memory.
fn live_and_die<D, V, W>(
    driver_ring: impl Fn(&W) -> D,
    device_ring: impl Fn(&W, Dying) -> V,
    recover: impl for<'b> Fn(&W, &Record<Mapped>, &'b mut [u8]) -> Result<DeviceState<'b>, StateError>,
    memory: impl Fn() -> W,
) where
    D: DriverFormat,
    V: DeviceFormat,
{
    let space = space(64);
    let lives = if cfg!(miri) { 1 } else { 40 };
    for seed in 1..=lives {
        for stores in 0.. {
            let memory = memory();
            let mut random = Random::new(seed);
            let mut lender = Lender::new(driver_ring(&memory));
            // The record's first stores are made before anything is lent: a device that dies then leaves none.
            let alive = Dying::after(u64::MAX - 1);
            let record = heap(RecordLayout::of(&device_ring(&memory, alive.clone())).bytes());
            let ring = |dying: &Dying| {
                let record = Probed::new(record.clone(), dying.clone());
                Recorded::with_heap(device_ring(&memory, dying.clone()), &record).unwrap()
            };
            drop(DeviceQueue::with_heap(ring(&alive)));
            let dying = Dying::after(stores);
            let mut state = vec![0; DeviceState::max_bytes(SIZE)];
            let empty = recover(&memory, &Record::open(&record).unwrap(), &mut state).unwrap();
            let slots = vec![DeviceSlot::new(); usize::from(SIZE)];
            let Ok(mut device) = DeviceQueue::restore(ring(&dying), slots, &empty) else {
                panic!("an empty state");
            };
            let mut held = Vec::new();
            for _ in 0..60 {
                lender.lend(&mut random);
                for _ in 0..random.below(5) {
                    step(&mut device, &mut held, &space, &mut random);
                    if dying.is_dead() {
                        break;
                    }
                }
                if dying.is_dead() {
                    break;
                }
                lender.reap();
            }
            drop(device);
            let outlived = !dying.is_dead();
            // The driver goes on for a while, and may overwrite what came back.
            if random.below(2) == 0 {
                lender.reap();
                lender.lend(&mut random);
            }

            if let Ok(record) = Record::open(&record) {
                let state = recover(&memory, &record, &mut state).unwrap();
                finish(&memory, &state, &mut lender, &device_ring, &space);
            } else {
                assert!(stores < 40, "only a record that is half made is none");
            }
            if outlived {
                break;
            }
        }
    }
}

/// A new device goes on, with a record of its own, and returns everything.
fn finish<D: DriverFormat, V: DeviceFormat, W>(
    memory: &W,
    state: &DeviceState<'_>,
    lender: &mut Lender<D>,
    device_ring: impl Fn(&W, Dying) -> V,
    space: &OffsetSpace<Mapped>,
) {
    let alive = Dying::after(u64::MAX - 1);
    let ring = device_ring(memory, alive.clone());
    let record = Probed::new(heap(RecordLayout::of(&ring).bytes()), alive);
    let ring = Recorded::with_heap(ring, &record).unwrap();
    let slots = vec![DeviceSlot::new(); usize::from(SIZE)];
    let mut device = DeviceQueue::restore(ring, slots, state).unwrap();
    let mut segments = [Buffer::default(); 8];
    let mut held = Vec::new();
    for chain in state.chains() {
        let chain = device.retake(chain, space, &mut segments).unwrap();
        held.push(chain.expect("it is in flight").into_head());
    }
    // Saved once more, now with its own record: the same chains, if not in the same order.
    let mut bytes = vec![0; DeviceState::max_bytes(SIZE)];
    let again = device.save(&mut bytes).unwrap();
    let by_id = |state: &DeviceState<'_>| {
        let mut chains: Vec<_> = state.chains().map(|chain| format!("{chain:?}")).collect();
        chains.sort();
        chains
    };
    assert_eq!(by_id(&again), by_id(state));
    loop {
        while device.poll().unwrap() > 0 {
            while let Some(chain) = device.take(space, &mut segments).unwrap() {
                held.push(chain.into_head());
            }
        }
        if held.is_empty() {
            break;
        }
        for chain in held.drain(..) {
            device.complete(chain, 1).unwrap();
        }
        let _ = device.publish();
    }
    lender.reap();
    assert!(lender.lent.is_empty(), "lost: {:?}", lender.lent);
    assert_eq!(lender.driver.free(), lender.driver.capacity());
}

fn split_memory() -> heap_ring::Memory {
    heap_ring::Memory::new(SIZE)
}

fn packed_memory() -> packed_ring::Memory {
    packed_ring::Memory::new(SIZE)
}

fn tagged_memory() -> tagged_ring::Memory {
    tagged_ring::Memory::new(SIZE)
}

#[test]
fn a_split_ring_survives_its_devices_death_at_any_store() {
    live_and_die(
        |memory: &heap_ring::Memory| {
            split::DriverRing::new(memory.areas(), Features::empty()).unwrap()
        },
        |memory, dying| {
            let areas = memory.probed(dying.clone(), dying);
            split::DeviceRing::new(areas, Features::empty()).unwrap()
        },
        |memory, record, to| split::recover(&memory.areas(), record, to),
        split_memory,
    );
}

/// The record is kept, and not needed.
#[test]
fn a_split_ring_in_order_survives_its_devices_death_at_any_store() {
    live_and_die(
        |memory: &heap_ring::Memory| {
            split::InOrderDriverRing::new(memory.areas(), IN_ORDER).unwrap()
        },
        |memory, dying| {
            let areas = memory.probed(dying.clone(), dying);
            split::InOrderDeviceRing::new(areas, IN_ORDER).unwrap()
        },
        |memory, _, to| split::recover_in_order(&memory.areas(), to),
        split_memory,
    );
}

#[test]
fn a_packed_ring_survives_its_devices_death_at_any_store() {
    live_and_die(
        |memory: &packed_ring::Memory| {
            packed::DriverRing::new(memory.areas(), Features::empty()).unwrap()
        },
        |memory, dying| {
            let areas = memory.probed(dying.clone(), dying.clone(), dying);
            packed::DeviceRing::new(areas, Features::empty()).unwrap()
        },
        |memory, record, to| packed::recover(&memory.areas(), record, to),
        packed_memory,
    );
}

#[test]
fn a_packed_ring_in_order_survives_its_devices_death_at_any_store() {
    live_and_die(
        |memory: &packed_ring::Memory| {
            packed::InOrderDriverRing::new(memory.areas(), IN_ORDER).unwrap()
        },
        |memory, dying| {
            let areas = memory.probed(dying.clone(), dying.clone(), dying);
            packed::InOrderDeviceRing::new(areas, IN_ORDER).unwrap()
        },
        |memory, record, to| packed::recover(&memory.areas(), record, to),
        packed_memory,
    );
}

#[test]
fn a_tagged_ring_survives_its_devices_death_at_any_store() {
    live_and_die(
        |memory: &tagged_ring::Memory| {
            tagged::DriverRing::new(memory.areas(), Features::empty()).unwrap()
        },
        |memory, dying| {
            let areas = memory.probed(dying.clone(), dying.clone(), dying);
            tagged::DeviceRing::new(areas, Features::empty()).unwrap()
        },
        |memory, record, to| tagged::recover(&memory.areas(), record, to),
        tagged_memory,
    );
}
