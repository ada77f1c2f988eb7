//! PCI functions that say what the fuzzer says.

mod device;
mod image;

pub use device::{DeviceInput, device};
pub use image::{ImageInput, image};
