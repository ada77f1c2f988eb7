//! Driving virtio devices that are PCI functions: virtio-pci without its legacy interface (virtio 1.4, section 4.1).
//!
//! [`VirtioPci`] takes a [`Function`](super::Function), finds the device's structures in its BARs, and walks the device
//! through its life. What the device says is checked before it is used: where structures lie, how queues are notified,
//! how large they may be. Waiting for it is bounded. What goes wrong by the device's fault is latched until a reset.
//!
//! A driver over a device that is emulated; over VFIO only the function and the memory come from elsewhere:
//!
//! ```
//! # #[cfg(feature = "testing")]
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use shmbus_transports::pci::DmaMemory;
//! use shmbus_transports::pci::emulated::{Blueprint, EmulatedDma};
//! use shmbus_transports::pci::virtio::{QueueSetup, VirtioPci};
//! use shmbus_virtio::{DeviceId, Features};
//!
//! let dma = EmulatedDma::new(1 << 16);
//! let (function, device) = Blueprint::new(DeviceId::NET, Features::EVENT_IDX, 2, &[0; 12]).build(&dma);
//!
//! let memory = dma.allocate(3 * 4096)?; // outlives the driver
//! let mut driver = VirtioPci::open(function)?;
//! driver.reset()?;
//! let wanted = Features::VERSION_1 | Features::ACCESS_PLATFORM | Features::EVENT_IDX;
//! driver.negotiate(wanted.choose(driver.offered()))?;
//! let setup = QueueSetup {
//!     size: driver.queue_size(0)?.ok_or("no queue")?,
//!     descriptor_area: memory.address,
//!     driver_area: memory.address + 4096,
//!     device_area: memory.address + 8192,
//!     vector: None,
//! };
//! let notifier = driver.enable_queue(0, &setup)?;
//! driver.start()?;
//!
//! notifier.notify(0)?;
//! assert_eq!(device.take_notifications()[0].value, 0);
//!
//! drop(driver);
//! assert!(!device.is_bus_master());
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "testing"))]
//! # fn main() {}
//! ```

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
