//! The driver side of a tagged ring over a peer that writes anything.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shmbus_fuzz::ring::{DriverInput, Tagged, driver_side};

fuzz_target!(|input: DriverInput| driver_side::<Tagged>(&input));
