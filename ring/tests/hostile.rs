//! The other side's memory changes between any two loads, to anything. Whatever it says: no panic, a bounded number
//! of accesses for each call, and in the end results that keep their promises or a typed fault.

mod support;

use proptest::prelude::*;
use shmbus_ring::{Buffer, DeviceFormat, DeviceQueue, DeviceSlot, DriverFormat, DriverQueue};
use shmbus_ring::{DriverSlot, packed, split, tagged};
use shmbus_shm::testing::{Counting, Hostile, Probe, Probed};
use shmbus_shm::{OffsetSpace, heap};
use shmbus_virtio::Features;
use support::heap_ring::Memory;
use support::{IN_ORDER, packed_ring, tagged_ring};

/// Lies, and counts how often it was asked.
#[derive(Clone, Debug)]
struct Liar {
    hostile: Hostile,
    counting: Counting,
}

impl Liar {
    fn new(seed: u64, lies: u8) -> Self {
        Self {
            hostile: Hostile::new(seed, lies),
            counting: Counting::default(),
        }
    }
}

impl Probe for Liar {
    fn load(&self, offset: usize, bytes: usize, value: u64) -> u64 {
        self.counting.load(offset, bytes, value);
        self.hostile.load(offset, bytes, value)
    }

    fn store(&self, offset: usize, bytes: usize, value: u64) -> bool {
        self.counting.store(offset, bytes, value)
    }
}

const SIZE: u16 = 8;

/// What a device-side call may load: the index or the entry, two words for each descriptor of the longest chain, and
/// for each of them a chunk of 16 descriptors of an indirect table, byte by byte.
const MOST_LOADS_OF_A_CHAIN: u64 = 1 + 2 * SIZE as u64 + SIZE as u64 * 16 * 16;

type Driver<D, T> = DriverQueue<D, T, Vec<DriverSlot<T>>>;
type Device<V> = DeviceQueue<V, Vec<DeviceSlot>>;

/// An honest driver that has all it makes available spoilt on the way. `liar` stands before all that `device` reads.
fn device_survives<D: DriverFormat, V: DeviceFormat>(
    mut driver: Driver<D, ()>,
    mut device: Device<V>,
    liar: &Liar,
    rounds: usize,
) -> Result<u32, TestCaseError> {
    let space = OffsetSpace::new(Probed::new(heap(4096), liar.clone()));
    let mut segments = [Buffer::default(); SIZE as usize];
    let mut faults = 0;
    for round in 0..rounds {
        while driver
            .add(&[Buffer::new(0, 8)], &[Buffer::new(64, 8)], ())
            .is_ok()
        {}
        let _ = driver.publish();
        let mut before = liar.counting.loads();
        let mut check = |most: u64| {
            let now = liar.counting.loads();
            assert!(now - before <= most, "{} loads", now - before);
            before = now;
        };
        let _ = if round % 2 == 0 {
            device.poll()
        } else {
            device.poll_spinning()
        };
        check(1);
        let mut taken = 0;
        while let Ok(Some(chain)) = device.take(&space, &mut segments) {
            check(MOST_LOADS_OF_A_CHAIN);
            taken += 1;
            prop_assert!(chain.readable_bytes() + chain.writable_bytes() <= 1 << 32);
            let read = chain.read(&space, 0, &mut [0; 64]);
            let written = chain.write(&space, 0, &[7; 64]);
            check(2 * 64 + 64);
            match (read, written) {
                (Ok(_), Ok(written)) => device.complete(chain, written as u32).unwrap(),
                (Err(error), _) | (_, Err(error)) => {
                    device.fail(chain, error);
                }
            }
            // Shown at once, every other time, so that a driver that goes on at once finds a device that takes it.
            if taken % 2 == 0 {
                let _ = device.publish();
                check(1);
            }
        }
        check(MOST_LOADS_OF_A_CHAIN);
        prop_assert!(taken <= SIZE, "a batch is a ring's worth at most");
        let _ = device.publish();
        let _ = device.enable_notifications();
        device.disable_notifications();
        check(2);
        if device.fault().is_some() {
            faults += 1;
            device.reset();
            driver.reset(|()| ());
        } else if driver.poll().is_ok() {
            while driver.take().is_ok_and(|used| used.is_some()) {}
        }
        if driver.fault().is_some() {
            device.reset();
            driver.reset(|()| ());
        }
    }
    Ok(faults)
}

/// An honest device that has its answers spoilt on the way. `liar` stands before all that `driver` reads.
fn driver_survives<D: DriverFormat, V: DeviceFormat>(
    mut driver: Driver<D, u64>,
    mut device: Device<V>,
    liar: &Liar,
    rounds: usize,
) -> Result<u32, TestCaseError> {
    let space = OffsetSpace::new(heap(64));
    let mut segments = [Buffer::default(); SIZE as usize];
    let mut lent = Vec::new();
    let mut number = 0_u64;
    let mut faults = 0;
    for round in 0..rounds {
        let before = liar.counting.loads();
        while driver
            .add(&[Buffer::new(0, 1)], &[Buffer::new(0, 8)], number)
            .is_ok()
        {
            lent.push(number);
            number += 1;
        }
        prop_assert_eq!(liar.counting.loads(), before, "adding reads nothing");
        let _ = driver.publish();
        if device.poll().is_ok() {
            while let Ok(Some(chain)) = device.take(&space, &mut segments) {
                device.complete(chain, 8).unwrap();
            }
            let _ = device.publish();
        }
        let before = liar.counting.loads();
        let _ = if round % 2 == 0 {
            driver.poll()
        } else {
            driver.poll_spinning()
        };
        let mut returned = 0;
        while let Ok(Some(used)) = driver.take() {
            let at = lent.iter().position(|lent| *lent == used.cookie);
            prop_assert!(at.is_some(), "a cookie that is not lent, or twice");
            lent.swap_remove(at.unwrap());
            prop_assert!(used.written <= 8);
            returned += 1;
        }
        prop_assert!(returned <= SIZE);
        let loads = liar.counting.loads() - before;
        prop_assert!(loads <= 1 + u64::from(SIZE), "{} loads", loads);
        let _ = driver.enable_notifications_after(3);
        driver.disable_notifications();
        if driver.fault().is_some() {
            faults += 1;
            // All that is lent comes back, once.
            driver.reset(|cookie| {
                let at = lent.iter().position(|lent| *lent == cookie).unwrap();
                lent.swap_remove(at);
            });
            prop_assert!(lent.is_empty());
            device.reset();
        }
        if device.fault().is_some() {
            device.reset();
            driver.reset(|_| ());
            lent.clear();
        }
    }
    Ok(faults)
}

fn features(event_idx: bool) -> Features {
    if event_idx {
        Features::INDIRECT_DESC | Features::EVENT_IDX
    } else {
        Features::INDIRECT_DESC
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 5 } else { 1000 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_split_device_survives_any_driver(
        seed: u64,
        lies: u8,
        event_idx: bool,
        rounds in 1_usize..40,
    ) {
        let memory = Memory::new(SIZE);
        let (liar, honest) = (Liar::new(seed, lies), Liar::new(seed, 0));
        let areas = memory.probed(liar.clone(), honest);
        let driver = memory.driver(Features::empty());
        let ring = split::DeviceRing::new(areas, features(event_idx)).unwrap();
        let faults = device_survives(driver, DeviceQueue::with_heap(ring), &liar, rounds)?;
        prop_assert!(lies > 0 || faults == 0);
    }

    #[test]
    fn a_split_driver_survives_any_device(
        seed: u64,
        lies: u8,
        event_idx: bool,
        rounds in 1_usize..40,
    ) {
        let memory = Memory::new(SIZE);
        let (liar, honest) = (Liar::new(seed, lies), Liar::new(seed, 0));
        let areas = memory.probed(honest, liar.clone());
        let ring = split::DriverRing::new(areas, features(event_idx)).unwrap();
        let device = memory.device(Features::empty());
        let faults = driver_survives(DriverQueue::with_heap(ring), device, &liar, rounds)?;
        prop_assert!(lies > 0 || faults == 0);
    }

    #[test]
    fn a_packed_device_survives_any_driver(
        seed: u64,
        lies: u8,
        event_idx: bool,
        rounds in 1_usize..40,
    ) {
        let memory = packed_ring::Memory::new(SIZE);
        let liar = Liar::new(seed, lies);
        let areas = memory.probed(liar.clone(), liar.clone(), liar.clone());
        let driver = memory.driver(Features::empty());
        let ring = packed::DeviceRing::new(areas, features(event_idx)).unwrap();
        let faults = device_survives(driver, DeviceQueue::with_heap(ring), &liar, rounds)?;
        prop_assert!(lies > 0 || faults == 0);
    }

    #[test]
    fn a_packed_driver_survives_any_device(
        seed: u64,
        lies: u8,
        event_idx: bool,
        rounds in 1_usize..40,
    ) {
        let memory = packed_ring::Memory::new(SIZE);
        let liar = Liar::new(seed, lies);
        let areas = memory.probed(liar.clone(), liar.clone(), liar.clone());
        let ring = packed::DriverRing::new(areas, features(event_idx)).unwrap();
        let device = memory.device(Features::empty());
        let faults = driver_survives(DriverQueue::with_heap(ring), device, &liar, rounds)?;
        prop_assert!(lies > 0 || faults == 0);
    }

    #[test]
    fn a_split_device_in_order_survives_any_driver(
        seed: u64,
        lies: u8,
        event_idx: bool,
        rounds in 1_usize..40,
    ) {
        let memory = Memory::new(SIZE);
        let liar = Liar::new(seed, lies);
        let areas = memory.probed(liar.clone(), Liar::new(seed, 0));
        let driver = memory.in_order_driver(Features::empty());
        let ring = split::InOrderDeviceRing::new(areas, features(event_idx) | IN_ORDER).unwrap();
        let faults = device_survives(driver, DeviceQueue::with_heap(ring), &liar, rounds)?;
        prop_assert!(lies > 0 || faults == 0);
    }

    #[test]
    fn a_split_driver_in_order_survives_any_device(
        seed: u64,
        lies: u8,
        event_idx: bool,
        rounds in 1_usize..40,
    ) {
        let memory = Memory::new(SIZE);
        let liar = Liar::new(seed, lies);
        let areas = memory.probed(Liar::new(seed, 0), liar.clone());
        let ring = split::InOrderDriverRing::new(areas, features(event_idx) | IN_ORDER).unwrap();
        let device = memory.in_order_device(Features::empty());
        let faults = driver_survives(DriverQueue::with_heap(ring), device, &liar, rounds)?;
        prop_assert!(lies > 0 || faults == 0);
    }

    #[test]
    fn a_packed_device_in_order_survives_any_driver(
        seed: u64,
        lies: u8,
        event_idx: bool,
        rounds in 1_usize..40,
    ) {
        let memory = packed_ring::Memory::new(SIZE);
        let liar = Liar::new(seed, lies);
        let areas = memory.probed(liar.clone(), liar.clone(), liar.clone());
        let driver = memory.in_order_driver(Features::empty());
        let ring = packed::InOrderDeviceRing::new(areas, features(event_idx) | IN_ORDER).unwrap();
        let faults = device_survives(driver, DeviceQueue::with_heap(ring), &liar, rounds)?;
        prop_assert!(lies > 0 || faults == 0);
    }

    #[test]
    fn a_packed_driver_in_order_survives_any_device(
        seed: u64,
        lies: u8,
        event_idx: bool,
        rounds in 1_usize..40,
    ) {
        let memory = packed_ring::Memory::new(SIZE);
        let liar = Liar::new(seed, lies);
        let areas = memory.probed(liar.clone(), liar.clone(), liar.clone());
        let ring = packed::InOrderDriverRing::new(areas, features(event_idx) | IN_ORDER).unwrap();
        let device = memory.in_order_device(Features::empty());
        let faults = driver_survives(DriverQueue::with_heap(ring), device, &liar, rounds)?;
        prop_assert!(lies > 0 || faults == 0);
    }

    #[test]
    fn a_tagged_device_survives_any_driver(
        seed: u64,
        lies: u8,
        event_idx: bool,
        rounds in 1_usize..40,
    ) {
        let memory = tagged_ring::Memory::new(SIZE);
        let liar = Liar::new(seed, lies);
        let areas = memory.probed(liar.clone(), liar.clone(), liar.clone());
        let driver = memory.driver(Features::empty());
        let ring = tagged::DeviceRing::new(areas, features(event_idx)).unwrap();
        let faults = device_survives(driver, DeviceQueue::with_heap(ring), &liar, rounds)?;
        prop_assert!(lies > 0 || faults == 0);
    }

    #[test]
    fn a_tagged_driver_survives_any_device(
        seed: u64,
        lies: u8,
        event_idx: bool,
        rounds in 1_usize..40,
    ) {
        let memory = tagged_ring::Memory::new(SIZE);
        let liar = Liar::new(seed, lies);
        let areas = memory.probed(liar.clone(), liar.clone(), liar.clone());
        let ring = tagged::DriverRing::new(areas, features(event_idx)).unwrap();
        let device = memory.device(Features::empty());
        let faults = driver_survives(DriverQueue::with_heap(ring), device, &liar, rounds)?;
        prop_assert!(lies > 0 || faults == 0);
    }
}
