//! PCI functions that Linux passes through to this process: VFIO.
//!
//! A [`Container`] is one space of I/O virtual addresses. It [opens](Container::open) functions by their address, each as a
//! [`Function`](crate::pci::Function), and a function has [`Memory`] that it may access, all of it mapped by the IOMMU and
//! nothing else. Below is the crate vfio-ioctls; `PciDriverFunction`, with the feature `pci-driver`, is the same over the
//! crate of that name. docs/vfio.md says when to use which.
//!
//! ```no_run
//! use shmbus_transports::pci::{BarIndex, DmaMemory, Function, Registers};
//! use shmbus_transports::vfio::Container;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let container = Container::new()?;
//! let mut function = container.open("0000:00:03.0".parse()?)?;
//! let registers = function.bar(BarIndex::new(0).unwrap())?;
//! let rings = function.memory().allocate(8192)?;
//! function.set_bus_master(true)?;
//! registers.write_u32(0x10, rings.address as u32)?;
//! # Ok(())
//! # }
//! ```
//!
//! # What holds
//!
//! - An access to a register fails or is made; nothing is only logged. A function's memory space stays enabled while it
//!   is open, whatever is written to its command register: an access to a mapped BAR would end the process otherwise.
//! - What a function can reach by DMA is what [`Memory`] mapped, and no longer than a window on it is there. Behind
//!   each mapping is a page that is not mapped, so a function that runs over the end of one meets a fault, not the next one.
//! - A function that is dropped accesses no memory any more, also if windows are left.

mod command;
mod container;
mod error;
mod function;
mod iommu;
#[cfg(feature = "iommufd")]
mod iommufd;
mod iova;
mod limits;
mod mapping;
mod memory;
#[cfg(feature = "pci-driver")]
mod pci_driver;
mod region;
mod registers;
mod request;
mod sysfs;

pub use container::Container;
pub use error::OpenError;
pub use function::VfioFunction;
pub use limits::Limits;
pub use memory::Memory;
#[cfg(feature = "pci-driver")]
pub use pci_driver::{PciDriverFunction, PciDriverRegisters};
pub use registers::VfioRegisters;
