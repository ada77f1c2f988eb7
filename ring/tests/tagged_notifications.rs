//! When the sides of a tagged ring tell each other: events within a span, over the counters' end, each half of
//! `EVENT_IDX` alone; and silence where it was asked for.

mod support;

use shmbus_ring::tagged::{DeviceRing, DriverRing};
use shmbus_ring::{Buffer, DeviceQueue, DriverQueue, RingFeatures};
use shmbus_virtio::{Features, PrivateFeatures};
use support::heap_ring::space;
use support::tagged_ring::{Device, Driver, Memory};

const BUFFER: Buffer = Buffer::new(0, 8);
/// The flag that asks for one position.
const AT: u16 = 2;

fn queues(memory: &Memory, features: RingFeatures, start: u16) -> (Driver<()>, Device) {
    let driver = DriverRing::new(memory.areas(), features).unwrap();
    let device = DeviceRing::new(memory.areas(), features).unwrap();
    (
        DriverQueue::with_heap_at(driver, start).unwrap(),
        DeviceQueue::with_heap_at(device, start).unwrap(),
    )
}

/// Takes all that is available and returns it, without publishing.
fn return_all(device: &mut Device) {
    let mut segments = [Buffer::default(); 8];
    device.poll().unwrap();
    while let Some(chain) = device.take(&space(64), &mut segments).unwrap() {
        device.complete(chain, 0).unwrap();
    }
}

fn take_all(driver: &mut Driver<()>) -> usize {
    driver.poll().unwrap();
    let mut count = 0;
    while driver.take().unwrap().is_some() {
        count += 1;
    }
    count
}

/// Whether each side tells, when a chain of three entries moves from `start` on in a ring of eight.
fn tells(features: RingFeatures, start: u16, event: u16) -> (bool, bool) {
    let memory = Memory::new(8);
    let (mut driver, mut device) = queues(&memory, features, start);
    memory.set_driver_wish(event, AT);
    memory.set_device_wish(event, AT);
    driver.add(&[BUFFER, BUFFER], &[BUFFER], ()).unwrap();
    let kicks = driver.publish().is_needed();
    return_all(&mut device);
    (kicks, device.publish().is_needed())
}

#[test]
fn an_event_within_a_chains_span_is_told_of() {
    let both = RingFeatures::from(Features::EVENT_IDX);
    for start in [0_u16, 5, 7, 32766, 65534, 65535] {
        for inside in 0..3 {
            let event = start.wrapping_add(inside);
            assert_eq!(tells(both, start, event), (true, true), "{start}, {event}");
        }
        // The same entry in another lap is another position.
        for outside in [3, 4, 8, 32768, 65535, 65528] {
            let event = start.wrapping_add(outside);
            assert_eq!(
                tells(both, start, event),
                (false, false),
                "{start}, {event}"
            );
        }
    }
}

#[test]
fn each_half_of_event_idx_works_alone() {
    let half = |private| RingFeatures::default().with_private(private);
    for (event, inside) in [(1, true), (3, false)] {
        let of = |private| tells(half(private), 0, event);
        assert_eq!(of(PrivateFeatures::AVAIL_EVENT), (inside, true));
        assert_eq!(of(PrivateFeatures::USED_EVENT), (true, inside));
        assert_eq!(of(PrivateFeatures::empty()), (true, true));
    }
}

#[test]
fn suppressed_notifications_are_not_sent() {
    for features in [Features::empty(), Features::EVENT_IDX] {
        let memory = Memory::new(4);
        let (mut driver, mut device) = queues(&memory, features.into(), 65530);
        driver.disable_notifications();
        device.disable_notifications();
        for _ in 0..20 {
            driver.add(&[BUFFER], &[], ()).unwrap();
            assert!(!driver.publish().is_needed());
            return_all(&mut device);
            assert!(!device.publish().is_needed());
            assert_eq!(take_all(&mut driver), 1);
        }
        // Enabled, they are told of what comes next; with EVENT_IDX only of that.
        assert!(driver.enable_notifications().is_empty());
        assert!(device.enable_notifications().is_empty());
        for round in 0..3 {
            let told = round == 0 || features.is_empty();
            driver.add(&[BUFFER], &[], ()).unwrap();
            assert_eq!(driver.publish().is_needed(), told);
            return_all(&mut device);
            assert_eq!(device.publish().is_needed(), told);
            assert_eq!(take_all(&mut driver), 1);
        }
        assert!(!driver.publish().is_needed(), "nothing to tell of");
        assert!(!device.publish().is_needed(), "nothing to tell of");
    }
}
