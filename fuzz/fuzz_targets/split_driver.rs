//! The driver side of a split ring over a peer that writes anything.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shmbus_fuzz::ring::{DriverInput, Split, SplitInOrder, driver_side};

fuzz_target!(|input: DriverInput| {
    if input.setting.in_order {
        driver_side::<SplitInOrder>(&input);
    } else {
        driver_side::<Split>(&input);
    }
});
