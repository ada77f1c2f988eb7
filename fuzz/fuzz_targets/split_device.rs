//! The device side of a split ring over a peer that writes anything.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shmbus_fuzz::ring::{DeviceInput, Split, SplitInOrder, device_side};

fuzz_target!(|input: DeviceInput| {
    if input.setting.in_order {
        device_side::<SplitInOrder>(&input);
    } else {
        device_side::<Split>(&input);
    }
});
