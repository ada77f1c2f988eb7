//! The driver of a virtio-pci device that says anything.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shmbus_fuzz::pci::{DeviceInput, device};

fuzz_target!(|input: DeviceInput| device(&input));
