//! No wake-up is lost: a side that enables notifications, looks again and sleeps is told of what comes.
//!
//! The sleeper waits on loom's `Notify`, which is set only when the other side's `publish` says so. A lost wake-up is
//! a deadlock, which loom finds.
#![cfg(not(miri))]

mod support;

use std::sync::Arc;

use loom::sync::Notify;
use shmbus_ring::{Buffer, DeviceFormat, DriverFormat, Recheck};
use shmbus_virtio::Features;
use support::modelled::{
    Device, Driver, Packed, Side, Split, Tagged, find_failure, no_fence, no_space,
    packed_in_order_queues, packed_queues, split_in_order_queues, split_queues, tagged_queues,
};

const CHAINS: u16 = 2;

/// The split models pass without a bound too. Those of the packed ring, whose takers look once more behind each chain,
/// would take minutes.
const PREEMPTIONS: Option<usize> = Some(4);

/// The driver publishes chains one by one, and the device sleeps in between.
fn device_sleeps<D, V>(
    queues: impl Fn() -> (Driver<D>, Device<V>) + Send + Sync + 'static,
) -> Option<String>
where
    D: DriverFormat + 'static,
    V: DeviceFormat + 'static,
{
    find_failure(PREEMPTIONS, move || {
        let (mut driver, mut device) = queues();
        let doorbell = Arc::new(Notify::new());
        let bell = doorbell.clone();
        let handle = loom::thread::spawn(move || {
            let mut segments = [Buffer::default(); 1];
            let mut taken = 0;
            device.disable_notifications();
            loop {
                device.poll().unwrap();
                while let Some(chain) = device.take(&no_space(), &mut segments).unwrap() {
                    let _ = chain.into_head();
                    taken += 1;
                }
                if taken == CHAINS {
                    break;
                }
                if device.enable_notifications() == Recheck::Empty {
                    bell.wait();
                }
                device.disable_notifications();
            }
        });
        for cookie in 0..CHAINS {
            driver
                .add(&[Buffer::new(0, 8)], &[], u64::from(cookie))
                .unwrap();
            if driver.publish().is_needed() {
                doorbell.notify();
            }
        }
        handle.join().unwrap();
    })
}

/// In which order the device completes chains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Completed {
    FrontToBack,
    /// In order that means that the last one completed is shown with all that waited for it.
    BackToFront,
}

/// The device returns chains one by one, and the driver sleeps in between, until `after` more have come back.
fn driver_sleeps<D, V>(
    queues: impl Fn() -> (Driver<D>, Device<V>) + Send + Sync + 'static,
    after: u16,
    completed: Completed,
) -> Option<String>
where
    D: DriverFormat + 'static,
    V: DeviceFormat + 'static,
{
    find_failure(PREEMPTIONS, move || {
        let (mut driver, mut device) = queues();
        let doorbell = Arc::new(Notify::new());
        let bell = doorbell.clone();
        let mut segments = [Buffer::default(); 1];
        for cookie in 0..CHAINS {
            driver
                .add(&[Buffer::new(0, 8)], &[], u64::from(cookie))
                .unwrap();
        }
        let _ = driver.publish();
        device.poll().unwrap();
        let mut heads: Vec<_> = (0..CHAINS)
            .map(|_| {
                let chain = device.take(&no_space(), &mut segments).unwrap();
                chain.unwrap().into_head()
            })
            .collect();
        if completed == Completed::BackToFront {
            heads.reverse();
        }

        let handle = loom::thread::spawn(move || {
            for head in heads {
                device.complete(head, 0).unwrap();
                if device.publish().is_needed() {
                    bell.notify();
                }
            }
        });
        let mut returned = 0;
        driver.disable_notifications();
        loop {
            driver.poll().unwrap();
            while driver.take().unwrap().is_some() {
                returned += 1;
            }
            if returned == CHAINS {
                break;
            }
            if driver.enable_notifications_after(after) == Recheck::Empty {
                doorbell.wait();
            }
            driver.disable_notifications();
        }
        handle.join().unwrap();
    })
}

const FEATURES: [Features; 2] = [Features::empty(), Features::EVENT_IDX];

/// Event indices wrap in the middle of the run.
fn split(features: Features) -> Split {
    Split {
        size: 2,
        features,
        position: 0xffff,
        ..Split::default()
    }
}

/// The second chain is in the next lap.
fn packed(features: Features) -> Packed {
    Packed {
        size: 2,
        features,
        position: 1 | 1 << 15,
        ..Packed::default()
    }
}

/// Event positions wrap in the middle of the run, and the second chain is in the next lap.
fn tagged(features: Features) -> Tagged {
    Tagged {
        size: 4,
        features,
        position: 0xffff,
        ..Tagged::default()
    }
}

#[test]
fn a_device_that_sleeps_is_told() {
    for features in FEATURES {
        let (split, packed, tagged) = (split(features), packed(features), tagged(features));
        for (format, failure) in [
            ("split", device_sleeps(move || split_queues(split))),
            ("packed", device_sleeps(move || packed_queues(packed))),
            ("tagged", device_sleeps(move || tagged_queues(tagged))),
        ] {
            assert_eq!(failure, None, "{format} {features:?}");
        }
    }
}

#[test]
fn a_driver_that_sleeps_is_told() {
    for features in FEATURES {
        let (split, packed, tagged) = (split(features), packed(features), tagged(features));
        for after in [1, 2] {
            let order = Completed::FrontToBack;
            for (format, failure) in [
                (
                    "split",
                    driver_sleeps(move || split_queues(split), after, order),
                ),
                (
                    "packed",
                    driver_sleeps(move || packed_queues(packed), after, order),
                ),
                (
                    "tagged",
                    driver_sleeps(move || tagged_queues(tagged), after, order),
                ),
            ] {
                assert_eq!(failure, None, "{format} {features:?} {after}");
            }
        }
    }
}

#[test]
fn a_driver_that_sleeps_is_told_of_batches_in_order() {
    for features in FEATURES {
        let (split, packed) = (split(features), packed(features));
        for (after, order) in [
            (1, Completed::FrontToBack),
            (1, Completed::BackToFront),
            (2, Completed::BackToFront),
        ] {
            for (format, failure) in [
                (
                    "split",
                    driver_sleeps(move || split_in_order_queues(split), after, order),
                ),
                (
                    "packed",
                    driver_sleeps(move || packed_in_order_queues(packed), after, order),
                ),
            ] {
                assert_eq!(failure, None, "{format} {features:?} {after} {order:?}");
            }
        }
    }
}

fn is_a_lost_wake_up(failure: Option<String>, what: &str) {
    let failure = failure.unwrap_or_else(|| panic!("the {what} fence is not missed"));
    assert!(failure.contains("deadlock"), "{failure}");
}

#[test]
fn each_missing_fence_of_a_split_ring_is_caught() {
    let without = Side {
        available: no_fence(),
        used: no_fence(),
    };
    for features in FEATURES {
        for (side, weakened) in [
            (
                "driver's",
                Split {
                    driver: without,
                    ..split(features)
                },
            ),
            (
                "device's",
                Split {
                    device: without,
                    ..split(features)
                },
            ),
        ] {
            is_a_lost_wake_up(device_sleeps(move || split_queues(weakened)), side);
            let order = Completed::FrontToBack;
            let any_order = driver_sleeps(move || split_queues(weakened), 1, order);
            is_a_lost_wake_up(any_order, side);
            let in_order = driver_sleeps(move || split_in_order_queues(weakened), 1, order);
            is_a_lost_wake_up(in_order, side);
            // Asked by an event index for the only batch there is, nothing is asked anew.
            if features.is_empty() {
                let order = Completed::BackToFront;
                let batch = driver_sleeps(move || split_in_order_queues(weakened), 1, order);
                is_a_lost_wake_up(batch, side);
            }
        }
    }
}

#[test]
fn each_missing_fence_of_a_packed_ring_is_caught() {
    for features in FEATURES {
        for (side, weakened) in [
            (
                "driver's",
                Packed {
                    driver: no_fence(),
                    ..packed(features)
                },
            ),
            (
                "device's",
                Packed {
                    device: no_fence(),
                    ..packed(features)
                },
            ),
        ] {
            is_a_lost_wake_up(device_sleeps(move || packed_queues(weakened)), side);
            for order in [Completed::FrontToBack, Completed::BackToFront] {
                let any_order = driver_sleeps(move || packed_queues(weakened), 1, order);
                is_a_lost_wake_up(any_order, side);
                let in_order = driver_sleeps(move || packed_in_order_queues(weakened), 1, order);
                is_a_lost_wake_up(in_order, side);
            }
        }
    }
}

#[test]
fn each_missing_fence_of_a_tagged_ring_is_caught() {
    for features in FEATURES {
        for (side, weakened) in [
            (
                "driver's",
                Tagged {
                    driver: no_fence(),
                    ..tagged(features)
                },
            ),
            (
                "device's",
                Tagged {
                    device: no_fence(),
                    ..tagged(features)
                },
            ),
        ] {
            is_a_lost_wake_up(device_sleeps(move || tagged_queues(weakened)), side);
            for order in [Completed::FrontToBack, Completed::BackToFront] {
                let any_order = driver_sleeps(move || tagged_queues(weakened), 1, order);
                is_a_lost_wake_up(any_order, side);
            }
        }
    }
}
