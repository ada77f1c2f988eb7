//! A PCI function's configuration space of any bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shmbus_fuzz::pci::{ImageInput, image};

fuzz_target!(|input: ImageInput| image(&input));
