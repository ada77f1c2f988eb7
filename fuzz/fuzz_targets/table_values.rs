//! Any words in the slots of the bus's and the devices' tables: an error that says which word, or a value that is the same
//! when it is written and read again.
#![no_main]

use std::fmt::Debug;

use libfuzzer_sys::fuzz_target;
use shmbus::control::{DeviceOffer, DriverState};
use shmbus::counters::Counters;
use shmbus_devices::RingState;
use shmbus_devices::clock::{Answer, ClockSample, CounterNotice, Question};
use shmbus_devices::intc::{Control, Wire};
use shmbus_devices::timer::{Deadline, Expiration};
use shmbus_table::Value;

fn check<V: Value + PartialEq + Debug>(words: &[u64]) {
    match V::decode(&words[..V::WORDS]) {
        Ok(value) => {
            let mut encoded = vec![0; V::WORDS];
            value.encode(&mut encoded);
            assert_eq!(V::decode(&encoded), Ok(value));
        }
        Err(invalid) => assert_eq!(invalid.found, words[invalid.word]),
    }
}

fuzz_target!(|input: (u8, [u64; 32])| {
    let (which, words) = input;
    match which % 12 {
        0 => check::<DeviceOffer>(&words),
        1 => check::<DriverState>(&words),
        2 => check::<Counters>(&words),
        3 => check::<RingState>(&words),
        4 => check::<ClockSample>(&words),
        5 => check::<CounterNotice>(&words),
        6 => check::<Deadline>(&words),
        7 => check::<Question>(&words),
        8 => check::<Answer>(&words),
        9 => check::<Wire>(&words),
        10 => check::<Control>(&words),
        _ => check::<Expiration>(&words),
    }
});
