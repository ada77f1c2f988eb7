//! Driving virtio devices that are PCI functions: virtio-pci without its legacy interface (virtio 1.4, section 4.1).
//!
//! [`VirtioPci`] takes a [`Function`](super::Function), finds the device's structures in its BARs, and walks the device
//! through its life. What the device says is checked before it is used: where structures lie, how queues are notified,
//! how large they may be. Waiting for it is bounded. What goes wrong by the device's fault is latched until a reset.

mod capability;
mod common_config;
mod config;
mod device;
mod error;
mod identity;
mod layout;
mod notifier;
mod queue;
mod shared_memory;
mod structure;
mod vectors;

pub use capability::{StructureKind, VirtioCapability};
pub use config::DeviceConfig;
pub use device::{Patience, VirtioPci};
pub use error::{DeviceError, Event, LayoutError};
pub use identity::device_id;
pub use layout::{Layout, SharedMemoryRegion};
pub use notifier::QueueNotifier;
pub use queue::QueueSetup;
pub use vectors::InterruptStatus;
