//! The device side of a packed ring over a peer that writes anything.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shmbus_fuzz::ring::{DeviceInput, Packed, PackedInOrder, device_side};

fuzz_target!(|input: DeviceInput| {
    if input.setting.in_order {
        device_side::<PackedInOrder>(&input);
    } else {
        device_side::<Packed>(&input);
    }
});
