//! States that say what cannot be are refused by the field's name, before a queue goes on from them.

mod support;

use proptest::prelude::*;
use shmbus_ring::{
    Buffer, DeviceQueue, DeviceSlot, DeviceState, DriverQueue, DriverSlot, DriverState, StateError,
    packed, split, tagged,
};
use shmbus_virtio::Features;
use support::heap_ring::{self, space};
use support::{packed_ring, tagged_ring};

const SIZE: u16 = 8;
const BUFFER: Buffer = Buffer::new(0, 8);

/// A split ring with three chains of two descriptors in flight; the device has two of them.
fn split_states() -> (heap_ring::Memory, Vec<u8>, Vec<u8>) {
    let memory = heap_ring::Memory::new(SIZE);
    let mut driver = memory.driver::<u16>(Features::empty());
    let mut device = memory.device(Features::empty());
    for cookie in 0..3 {
        driver.add(&[BUFFER], &[BUFFER], cookie).unwrap();
    }
    let _ = driver.publish();
    device.poll().unwrap();
    let mut segments = [Buffer::default(); 4];
    for _ in 0..2 {
        let _ = device
            .take(&space(64), &mut segments)
            .unwrap()
            .unwrap()
            .into_head();
    }
    let mut bytes = vec![0; DeviceState::max_bytes(SIZE)];
    let device_bytes = device.save(&mut bytes).unwrap().as_bytes().to_vec();
    let mut bytes = vec![0; DriverState::max_bytes(SIZE)];
    let driver_bytes = driver.save(&mut bytes).unwrap().as_bytes().to_vec();
    (memory, device_bytes, driver_bytes)
}

/// The same, packed.
fn packed_states() -> (packed_ring::Memory, Vec<u8>, Vec<u8>) {
    let memory = packed_ring::Memory::new(SIZE);
    let mut driver = memory.driver::<u16>(Features::empty());
    let mut device = memory.device(Features::empty());
    for cookie in 0..3 {
        driver.add(&[BUFFER], &[BUFFER], cookie).unwrap();
    }
    let _ = driver.publish();
    device.poll().unwrap();
    let mut segments = [Buffer::default(); 4];
    for _ in 0..2 {
        let _ = device
            .take(&space(64), &mut segments)
            .unwrap()
            .unwrap()
            .into_head();
    }
    let mut bytes = vec![0; DeviceState::max_bytes(SIZE)];
    let device_bytes = device.save(&mut bytes).unwrap().as_bytes().to_vec();
    let mut bytes = vec![0; DriverState::max_bytes(SIZE)];
    let driver_bytes = driver.save(&mut bytes).unwrap().as_bytes().to_vec();
    (memory, device_bytes, driver_bytes)
}

/// What becomes of a device's state: parsed, and then restored.
fn device_error(memory: &heap_ring::Memory, bytes: &[u8]) -> Option<StateError> {
    let ring = split::DeviceRing::new(memory.areas(), Features::empty()).unwrap();
    let slots = vec![DeviceSlot::new(); usize::from(SIZE)];
    DeviceState::parse(bytes)
        .and_then(|state| DeviceQueue::restore(ring, slots, &state).map(|_| ()))
        .err()
}

fn driver_error(memory: &heap_ring::Memory, bytes: &[u8]) -> Option<StateError> {
    let ring = split::DriverRing::new(memory.areas(), Features::empty()).unwrap();
    let slots: Vec<DriverSlot<u16>> = (0..SIZE).map(|_| DriverSlot::new()).collect();
    DriverState::parse(bytes)
        .and_then(|state| DriverQueue::restore(ring, slots, &state, Some).map(|_| ()))
        .err()
}

/// The state with one 16-bit number changed.
fn with(bytes: &[u8], offset: usize, value: u16) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[offset..offset + 2].copy_from_slice(&value.to_le_bytes());
    bytes
}

fn field_of(error: Option<StateError>) -> &'static str {
    match error {
        Some(StateError::Field { field, .. } | StateError::Chain { field, .. }) => field,
        Some(StateError::Length { .. }) => "length",
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_wrong_field_of_a_devices_state_is_named() {
    let (memory, device, driver) = split_states();
    assert_eq!(device_error(&memory, &device), None);
    for (offset, value, field) in [
        (0, 0, "magic"),
        (4, 2, "version"),
        (6, 3, "format"),
        (6, 1, "length"), // a packed ring's has descriptors
        (6, 0x80, "in_flight"),
        (6, 0x100, "reserved"),
        (8, 0, "size"),
        (8, 32769, "size"),
        (8, 16, "size"),
        (10, 3, "in_flight"),
        (12, 1, "in_flight"),
        (14, 9, "in_flight"),
        (14, 1, "length"),
        (16, SIZE, "id"),
        (24, 0, "id"),
        (20, 0, "entries"),
        (20, 2, "entries"),
        (22, 1, "reserved"),
    ] {
        let error = device_error(&memory, &with(&device, offset, value));
        assert_eq!(field_of(error), field, "{offset}");
    }
    // Both indices moved: consistent, but of another moment than the memory.
    let moved = with(&with(&device, 10, 7), 12, 5);
    assert_eq!(field_of(device_error(&memory, &moved)), "used");
    assert_eq!(field_of(device_error(&memory, &driver)), "magic");
    let short = &device[..device.len() - 1];
    assert_eq!(field_of(device_error(&memory, short)), "length");
    let error = device_error(&memory, &with(&device, 16, 9)).unwrap();
    assert_eq!(
        error.to_string(),
        "chain 0: id is 0x9; expected less than the queue's size"
    );
}

#[test]
fn each_wrong_field_of_a_drivers_state_is_named() {
    let (memory, device, driver) = split_states();
    assert_eq!(driver_error(&memory, &driver), None);
    for (offset, value, field) in [
        (4, 0, "version"),
        (10, 2, "in_flight"),
        (12, 0xffff, "in_flight"),
        (16, SIZE, "head"),
        (18, 1, "reserved"),
        (24, 2, "id"),
        (26, 0, "descriptors"),
        (26, 7, "descriptors"),
        (48, 1, "index"),
        (50, 2, "index"),
        (52, SIZE, "index"),
    ] {
        let error = driver_error(&memory, &with(&driver, offset, value));
        assert_eq!(field_of(error), field, "{offset}: {value}");
    }
    let moved = with(&with(&driver, 10, 7), 12, 4);
    assert_eq!(field_of(driver_error(&memory, &moved)), "available");
    assert_eq!(field_of(driver_error(&memory, &device)), "magic");

    let state = DriverState::parse(&driver).unwrap();
    let ring = split::DriverRing::new(memory.areas(), Features::empty()).unwrap();
    let slots: Vec<DriverSlot<u16>> = (0..SIZE).map(|_| DriverSlot::new()).collect();
    let missing = DriverQueue::restore(ring, slots, &state, |id| (id != 2).then_some(id));
    assert_eq!(missing.unwrap_err(), StateError::NoCookie { id: 2 });
}

#[test]
fn a_packed_ring_refuses_positions_that_do_not_fit() {
    let (memory, device, driver) = packed_states();
    let device_error = |bytes: &[u8]| {
        let ring = packed::DeviceRing::new(memory.areas(), Features::empty()).unwrap();
        let slots = vec![DeviceSlot::new(); usize::from(SIZE)];
        DeviceState::parse(bytes)
            .and_then(|state| DeviceQueue::restore(ring, slots, &state).map(|_| ()))
            .err()
    };
    let driver_error = |bytes: &[u8]| {
        let ring = packed::DriverRing::new(memory.areas(), Features::empty()).unwrap();
        let slots: Vec<DriverSlot<u16>> = (0..SIZE).map(|_| DriverSlot::new()).collect();
        DriverState::parse(bytes)
            .and_then(|state| DriverQueue::restore(ring, slots, &state, Some).map(|_| ()))
            .err()
    };
    assert_eq!((device_error(&device), driver_error(&driver)), (None, None));
    for (offset, value, field) in [
        (10, 0x8003, "available"),
        (10, 0x8008, "available"),
        (12, 0x8001, "available"),
        (12, 0xffff, "used"),
        (20, 1, "length"),
    ] {
        let error = device_error(&with(&device, offset, value));
        assert_eq!(field_of(error), field, "{offset}: {value:#x}");
    }
    for (offset, value, field) in [(10, 0x8005, "available"), (12, 8, "used")] {
        let error = driver_error(&with(&driver, offset, value));
        assert_eq!(field_of(error), field, "{offset}: {value:#x}");
    }
}

/// A tagged ring with three chains of two descriptors in flight, all of which the device has.
#[test]
fn a_tagged_ring_refuses_positions_that_do_not_fit() {
    let memory = tagged_ring::Memory::new(SIZE);
    let mut driver = memory.driver::<u16>(Features::empty());
    let mut device = memory.device(Features::empty());
    for cookie in 0..3 {
        driver.add(&[BUFFER], &[BUFFER], cookie).unwrap();
    }
    let _ = driver.publish();
    device.poll().unwrap();
    let mut segments = [Buffer::default(); 4];
    for _ in 0..3 {
        let chain = device.take(&space(64), &mut segments).unwrap().unwrap();
        let _ = chain.into_head();
    }
    let mut device_bytes = vec![0; DeviceState::max_bytes(SIZE)];
    let device_bytes = device.save(&mut device_bytes).unwrap().as_bytes();
    let mut driver_bytes = vec![0; DriverState::max_bytes(SIZE)];
    let driver_bytes = driver.save(&mut driver_bytes).unwrap().as_bytes();

    let device_error = |bytes: &[u8]| {
        let ring = tagged::DeviceRing::new(memory.areas(), Features::empty()).unwrap();
        let slots = vec![DeviceSlot::new(); usize::from(SIZE)];
        DeviceState::parse(bytes)
            .and_then(|state| DeviceQueue::restore(ring, slots, &state).map(|_| ()))
            .err()
    };
    let driver_error_in = |half: bool, bytes: &[u8]| {
        let mut ring = tagged::DriverRing::new(memory.areas(), Features::empty()).unwrap();
        if half {
            ring = ring.with_half_distance();
        }
        let slots: Vec<DriverSlot<u16>> = (0..SIZE).map(|_| DriverSlot::new()).collect();
        DriverState::parse(bytes)
            .and_then(|state| DriverQueue::restore(ring, slots, &state, Some).map(|_| ()))
            .err()
    };
    assert_eq!(device_error(device_bytes), None);
    assert_eq!(driver_error_in(false, driver_bytes), None);
    let half = driver_error_in(true, driver_bytes);
    assert_eq!(field_of(half), "available", "more is lent than half a ring");
    for (offset, value) in [(10, 5), (10, 14), (12, 1), (12, 0xffff)] {
        let error = device_error(&with(device_bytes, offset, value));
        assert_eq!(field_of(error), "available", "{offset}: {value:#x}");
    }
    for (offset, value) in [(10, 7), (12, 8)] {
        let error = driver_error_in(false, &with(driver_bytes, offset, value));
        assert_eq!(field_of(error), "available", "{offset}: {value:#x}");
    }
    memory.write_used(0, 0, 0);
    assert_eq!(field_of(device_error(device_bytes)), "used");
}

#[test]
fn what_is_not_published_or_does_not_fit_is_not_saved() {
    let memory = packed_ring::Memory::new(SIZE);
    let mut driver = memory.driver::<u16>(Features::empty());
    let mut device = memory.device(Features::empty());
    driver.add(&[BUFFER], &[BUFFER], 0).unwrap();
    driver.add(&[BUFFER], &[], 1).unwrap();
    let mut bytes = vec![0; DriverState::max_bytes(SIZE)];
    assert_eq!(
        driver.save(&mut bytes).unwrap_err(),
        StateError::Unpublished
    );
    let _ = driver.publish();
    for short in [0, 16, 23, 24, 39] {
        assert!(matches!(
            driver.save(&mut bytes[..short]).unwrap_err(),
            StateError::Length { found, .. } if found == short
        ));
    }

    device.poll().unwrap();
    let mut segments = [Buffer::default(); 4];
    let mut take = || {
        let chain = device.take(&space(64), &mut segments).unwrap().unwrap();
        chain.into_head()
    };
    let (first, second) = (take(), take());
    device.complete(second, 0).unwrap();
    let mut bytes = vec![0; DeviceState::max_bytes(SIZE)];
    assert_eq!(
        device.save(&mut bytes).unwrap_err(),
        StateError::Unpublished
    );
    let _ = device.publish();
    // The second chain's used descriptor lies where the first chain was.
    assert_eq!(
        device.save(&mut bytes).unwrap_err(),
        StateError::Overwritten { id: first.index() }
    );
    device.complete(first, 0).unwrap();
    let _ = device.publish();
    assert_eq!(device.save(&mut bytes).unwrap().positions().in_flight, 0);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 8 } else { 2000 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Whatever bytes a state has: it is refused, or makes a queue that works on.
    #[test]
    fn any_bytes_are_refused_or_make_a_queue(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let (memory, device, driver) = split_states();
        let (mut device, mut driver) = (device, driver);
        for (index, value) in changes {
            *index.get_mut(&mut device) = value;
            *index.get_mut(&mut driver) = value;
        }
        let _ = driver_error(&memory, &driver);
        let ring = split::DeviceRing::new(memory.areas(), Features::empty()).unwrap();
        let slots = vec![DeviceSlot::new(); usize::from(SIZE)];
        if let Ok(state) = DeviceState::parse(&device)
            && let Ok(mut queue) = DeviceQueue::restore(ring, slots, &state)
        {
            let mut segments = [Buffer::default(); 4];
            for chain in state.chains() {
                if let Ok(Some(chain)) = queue.retake(chain, &space(64), &mut segments) {
                    queue.complete(chain, 0).unwrap();
                }
            }
            let _ = (queue.publish(), queue.poll());
        }
    }
}
