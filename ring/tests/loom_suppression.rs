//! No wake-up is lost: a side that enables notifications, looks again and sleeps is told of what comes.
//!
//! The sleeper waits on loom's `Notify`, which is set only when the other side's `publish` says so. A lost wake-up is
//! a deadlock, which loom finds.
#![cfg(not(miri))]

mod support;

use std::sync::Arc;

use loom::sync::Notify;
use shmbus_ring::{Buffer, Recheck};
use shmbus_virtio::Features;
use support::modelled::{Setting, Side, find_failure, no_fence, no_space, queues};

const CHAINS: u16 = 2;

/// Without a bound the models pass too, and take four times as long.
const PREEMPTIONS: Option<usize> = Some(5);

/// The driver publishes chains one by one, and the device sleeps in between.
fn device_sleeps(setting: Setting) -> Option<String> {
    find_failure(PREEMPTIONS, move || {
        let (mut driver, mut device) = queues(setting);
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

/// The device returns chains one by one, and the driver sleeps in between, until `after` more have come back.
fn driver_sleeps(setting: Setting, after: u16) -> Option<String> {
    find_failure(PREEMPTIONS, move || {
        let (mut driver, mut device) = queues(setting);
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
        let heads: Vec<_> = (0..CHAINS)
            .map(|_| {
                let chain = device.take(&no_space(), &mut segments).unwrap();
                chain.unwrap().into_head()
            })
            .collect();

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

/// Flags, and event indices that wrap in the middle of the run.
fn settings() -> [Setting; 2] {
    [Features::empty(), Features::EVENT_IDX].map(|features| Setting {
        size: 2,
        features,
        position: 0xffff,
        ..Setting::default()
    })
}

#[test]
fn a_device_that_sleeps_is_told() {
    for setting in settings() {
        assert_eq!(device_sleeps(setting), None, "{:?}", setting.features);
    }
}

#[test]
fn a_driver_that_sleeps_is_told() {
    for setting in settings() {
        assert_eq!(driver_sleeps(setting, 1), None, "{:?}", setting.features);
        assert_eq!(driver_sleeps(setting, 2), None, "{:?}", setting.features);
    }
}

#[test]
fn each_missing_fence_is_caught() {
    let without = Side {
        available: no_fence(),
        used: no_fence(),
    };
    for setting in settings() {
        for (side, weakened) in [
            (
                "driver",
                Setting {
                    driver: without,
                    ..setting
                },
            ),
            (
                "device",
                Setting {
                    device: without,
                    ..setting
                },
            ),
        ] {
            for failure in [device_sleeps(weakened), driver_sleeps(weakened, 1)] {
                let failure = failure.unwrap_or_else(|| {
                    panic!("the {side}'s fence is not missed: {:?}", setting.features)
                });
                assert!(failure.contains("deadlock"), "{failure}");
            }
        }
    }
}
