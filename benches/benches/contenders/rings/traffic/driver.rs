//! The driver's thread: adds elements and gets them back.

use std::hint::black_box;

use shmbus_ring::DriverFormat;

use super::super::HONEST;
use super::Driver;
use super::bells::{Bell, Polling};
use super::shapes::{One, Shape};

/// Adds `operations` elements, at most `outstanding` at a time, and gets them back.
pub(super) fn drive<D: DriverFormat>(
    driver: &mut Driver<D>,
    shape: &impl Shape,
    bell: &impl Bell,
    outstanding: u64,
    operations: u64,
) {
    let (mut started, mut completed) = (0, 0);
    loop {
        loop {
            let added = started < operations
                && started - completed < outstanding
                && add(driver, shape, bell, started);
            if added {
                started += 1;
            }
            let got = get(driver, bell);
            if got {
                completed += 1;
                if completed == operations {
                    return;
                }
            }
            if !added && !got {
                break;
            }
        }
        bell.await_used(driver);
    }
}

/// How many looks are left out after an empty one.
const LAZY: u32 = 8;

/// As [`drive`], but leaves out looks at what came back: [`LAZY`] of them after an empty one, as long as there is room
/// to add. A full ring, and waiting, looks at once.
pub(super) fn drive_lazily<D: DriverFormat>(driver: &mut Driver<D>, operations: u64) {
    let (mut started, mut completed) = (0, 0);
    let mut left_out = 0;
    loop {
        loop {
            let added = started < operations && add(driver, &One, &Polling, started);
            if added {
                started += 1;
                if left_out > 0 {
                    left_out -= 1;
                    continue;
                }
            }
            let got = get(driver, &Polling);
            if got {
                completed += 1;
                if completed == operations {
                    return;
                }
            } else {
                left_out = LAZY;
            }
            if !added && !got {
                break;
            }
        }
        Polling.await_used(driver);
    }
}

/// Adds the element with this number, if there is room, and publishes it.
#[inline(always)]
pub(super) fn add<D: DriverFormat>(
    driver: &mut Driver<D>,
    shape: &impl Shape,
    bell: &impl Bell,
    number: u64,
) -> bool {
    let added = shape.place(driver, number);
    if added {
        bell.publish_available(driver);
    }
    added
}

/// Gets an element back, if one is used.
#[inline(always)]
pub(super) fn get<D: DriverFormat>(driver: &mut Driver<D>, bell: &impl Bell) -> bool {
    let mut used = driver.take().expect(HONEST);
    if used.is_none() && bell.is_used(driver) {
        used = driver.take().expect(HONEST);
    }
    black_box(used).is_some()
}
