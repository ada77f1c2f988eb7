//! The vocabulary that a transport and a device must agree on: feature sets, the device status, device types.
//!
//! There are no algorithms here, only virtio's words (virtio 1.4) as types: a 128-bit [`Features`] set, the separate
//! word of the bus's [`PrivateFeatures`], the [`StatusMachine`] that a driver walks a device through, and
//! [`DeviceId`]s. `no_std`, no allocation.
//!
//! ```
//! use shmbus_virtio::{Features, StatusMachine, Transition, net};
//!
//! let offered = Features::VERSION_1 | Features::EVENT_IDX | net::MAC;
//! let mut device = StatusMachine::new(offered);
//!
//! // The driver knows no EVENT_IDX.
//! let chosen = (Features::VERSION_1 | net::MAC).choose(offered);
//! let ready = 1 | 2 | 8 | 4; // ACKNOWLEDGE, DRIVER, FEATURES_OK, DRIVER_OK
//! assert_eq!(device.write(ready, chosen), Ok(Transition::Activate(chosen)));
//! ```
#![cfg_attr(not(feature = "std"), no_std)]
#![forbid(unsafe_code)]

mod device;
mod features;
mod names;
pub mod net;
mod status;

pub use device::DeviceId;
pub use features::{FeatureError, Features, PrivateFeatures};
pub use status::{DeviceStatus, StatusError, StatusMachine, Transition};
