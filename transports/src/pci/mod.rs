//! PCI functions as their drivers see them.
//!
//! A [`Function`] gives access to a function's configuration space, its BARs, its MSI-X vectors and its reset, and
//! [`DmaMemory`] to memory that the function may access. What reaches the function (VFIO by one crate or another, a socket, an
//! emulated device in a test) implements these two, and drivers are written once, over them.

mod address;
mod dma;
mod error;
mod function;

pub use address::{Address, AddressError, Identity};
pub use dma::{DmaError, DmaMemory, DmaRegion};
pub use error::{AccessError, FunctionError};
pub use function::{BarIndex, Function, Registers};
