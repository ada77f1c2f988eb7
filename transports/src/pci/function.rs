//! A function, and its registers.

use core::fmt;
use std::os::fd::BorrowedFd;

use shmbus_shm::{Mapped, MemoryType};

use super::error::{AccessError, FunctionError};

/// One of a function's six base address registers. A 64-bit BAR is named by its lower half.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BarIndex(u8);

impl BarIndex {
    /// How many there are.
    pub const COUNT: u8 = 6;

    /// BAR number `index`; `None` from 6 on.
    pub const fn new(index: u8) -> Option<Self> {
        if index < Self::COUNT {
            Some(Self(index))
        } else {
            None
        }
    }

    /// Its number.
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl fmt::Display for BarIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BAR {}", self.0)
    }
}

/// A region of registers: configuration space, or a BAR.
///
/// Each access has the width that its name says, is made once, and is checked: an offset may have come from the
/// function. Values are in the processor's order, registers little-endian. There are no 64-bit accesses: virtio has drivers make two
/// of 32 bits (virtio 1.4, section 4.1.3.1).
///
/// # Errors
///
/// Each access: [`AccessError`].
#[allow(clippy::missing_errors_doc)] // said once, above
pub trait Registers: Send {
    /// How long the region is, in bytes; zero for none.
    fn len(&self) -> u64;

    /// Whether there is no region.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads one byte.
    fn read_u8(&self, offset: u64) -> Result<u8, AccessError>;
    /// Reads two bytes, at an aligned offset.
    fn read_u16(&self, offset: u64) -> Result<u16, AccessError>;
    /// Reads four bytes, at an aligned offset.
    fn read_u32(&self, offset: u64) -> Result<u32, AccessError>;
    /// Writes one byte.
    fn write_u8(&self, offset: u64, value: u8) -> Result<(), AccessError>;
    /// Writes two bytes, at an aligned offset.
    fn write_u16(&self, offset: u64, value: u16) -> Result<(), AccessError>;
    /// Writes four bytes, at an aligned offset.
    fn write_u32(&self, offset: u64, value: u32) -> Result<(), AccessError>;
}

/// One function of a PCI device, held by its driver alone.
///
/// Nothing that it tells is trusted: whoever uses an offset, a length or a count of its, checks it first.
pub trait Function: Send {
    /// Its registers; they keep what they need of the function.
    type Registers: Registers + 'static;

    /// The configuration space: 256 bytes, or 4096.
    ///
    /// # Errors
    ///
    /// [`FunctionError`].
    fn config(&self) -> Result<Self::Registers, FunctionError>;

    /// The registers behind a BAR.
    ///
    /// # Errors
    ///
    /// [`FunctionError::NoBar`].
    fn bar(&self, bar: BarIndex) -> Result<Self::Registers, FunctionError>;

    /// Maps a part of a BAR, of whole pages. `is_memory`: the BAR is ordinary, cached memory of somebody's, such as
    /// ivshmem's; otherwise it is a device's.
    ///
    /// # Errors
    ///
    /// [`FunctionError::NoBar`], [`FunctionError::NotMappable`], [`FunctionError::Map`].
    fn map(
        &self,
        bar: BarIndex,
        offset: u64,
        len: u64,
        is_memory: bool,
    ) -> Result<Mapped, FunctionError>;

    /// How many vectors it has: of MSI-X, or of MSI if it has no MSI-X.
    fn vectors(&self) -> u16;

    /// Has vector number N signal eventfd number N from now on; none before this, none of the others.
    ///
    /// # Errors
    ///
    /// [`FunctionError::Vectors`], [`FunctionError::System`].
    fn enable_vectors(&mut self, eventfds: &[BorrowedFd<'_>]) -> Result<(), FunctionError>;

    /// Has no vector signal anything.
    ///
    /// # Errors
    ///
    /// [`FunctionError::System`].
    fn disable_vectors(&mut self) -> Result<(), FunctionError>;

    /// Lets the function access memory, or stops it: the Bus Master Enable bit of its command register.
    ///
    /// # Errors
    ///
    /// [`FunctionError::Access`].
    fn set_bus_master(&mut self, enabled: bool) -> Result<(), FunctionError>;

    /// Resets it: as after power on, but for its BARs' addresses.
    ///
    /// # Errors
    ///
    /// [`FunctionError::System`], also if it cannot be reset by itself.
    fn reset(&mut self) -> Result<(), FunctionError>;
}

/// How a BAR is accessed that [`Function::map`] maps with this `is_memory`.
pub(crate) fn bar_memory_type(is_memory: bool) -> MemoryType {
    match is_memory {
        true => MemoryType::Ordinary,
        false => MemoryType::Device,
    }
}
