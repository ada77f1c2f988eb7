//! The device side of a tagged ring over a peer that writes anything.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shmbus_fuzz::ring::{DeviceInput, Tagged, device_side};

fuzz_target!(|input: DeviceInput| device_side::<Tagged>(&input));
