//! The driver side of a packed ring over a peer that writes anything.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shmbus_fuzz::ring::{DriverInput, Packed, PackedInOrder, driver_side};

fuzz_target!(|input: DriverInput| {
    if input.setting.in_order {
        driver_side::<PackedInOrder>(&input);
    } else {
        driver_side::<Packed>(&input);
    }
});
