//! PCI functions as their drivers see them.
//!
//! A [`Function`] gives access to a function's configuration space, its BARs, its MSI-X vectors and its reset, and
//! [`DmaMemory`] to memory that the function may access. What reaches the function (VFIO by one crate or another, a
//! socket, an emulated device in a test) implements these two, and drivers are written once, over them: [`virtio`] has
//! the one of virtio devices.
//!
//! What a configuration space says is read, and checked, over any [`Registers`]: [`Header`], [`Bar`], [`Capability`],
//! [`Msix`], and [`virtio::VirtioCapability`].

mod address;
mod bars;
mod capability;
mod config_error;
mod dma;
#[cfg(feature = "testing")]
pub mod emulated;
mod error;
mod function;
mod header;
mod msix;
mod resource;
pub(crate) mod sysfs;
pub mod virtio;

pub use address::{Address, AddressError, Identity};
pub use bars::{Bar, BarSpace, Place};
pub use capability::Capability;
pub use config_error::ConfigError;
pub use dma::{DmaError, DmaMemory, DmaRegion};
pub use error::{AccessError, FunctionError};
pub(crate) use function::bar_memory_type;
pub use function::{BarIndex, Function, Registers};
pub use header::{Class, Header};
pub use msix::Msix;
pub use resource::{ResourceFunction, ResourceRegisters};
pub use sysfs::{Bound, ConfigSnapshot, Listed, Sysfs, SysfsError};
